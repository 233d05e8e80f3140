"""Deduplication: the ids of messages that were sent lately.

Two rows for an id: log id, 0, id -> when it expires; and log id, 1, that time, id, to find what has
expired. An id is committed after its message was put, and stored: a death in between lets the message be
sent once more, and never loses it. In a sealed broker a keyed hash stands for the id.

Where storing fails notes.py has the id. As long as the ring is there it is as good as sent; who sends it once
more has it stored first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ringpost._binding.contract import Log
from ringpost.levels import Level
from ringpost.notes import Found, Note, ring_of
from ringpost.sidestore import SideStore
from ringpost.store.later import STORING, Unconfirmed

_TABLE = b"sent"
_SWEPT = 8  # expired ids that each new one takes away
_LONGEST = 400  # bytes of an id; LMDB's keys have 511
_LONGEST_WINDOW = 1e9  # seconds


class Window:
    """Of one queue."""

    def __init__(self, log: Log, store: Callable[[], SideStore], seconds: float) -> None:
        if not 0 < seconds < _LONGEST_WINDOW:
            raise ValueError(f"'dedup_window' must be a positive number of seconds, not {seconds}")
        self._log = log
        self._id = bytes(log.info()["log_id"])
        self._store = store
        self._seconds = seconds

    def send_once(self, message_id: str, to: Log | Level, send: Callable[[], None]) -> bool:
        """Call `send`, which puts into `to`, unless `message_id` was sent within the window. False: it was.

        Raises ValueError for an id of more than 400 bytes, and what `send` raises. After StorageFailed,
        SegmentFull and Stalled it may have been sent: the same id once more is no copy.
        """
        encoded = message_id.encode()
        if not 0 < len(encoded) <= _LONGEST:
            raise ValueError(f"a message_id has 1 to {_LONGEST} bytes where duplicates are looked for")
        store, now = self._store(), time.time_ns()
        key = self._id + b"\0" + store.values.hide(encoded, self._id)
        with store.alone():
            notes = store.notes(self._id, _TABLE)
            noted = notes.read(self._log, now)
            put = dict(noted)
            try:
                with store.begin() as transaction:
                    if key not in put and self._is_known(transaction, store, key, now):
                        return False
                    stored = self._send_and_store(key, put, to, send, now)
                    for each in stored:
                        self._remember(transaction, store, each, put[each].until_ns)
                    self._sweep(transaction, store, now)
            except BaseException as error:
                if put != noted:
                    error.put = 1  # type: ignore[attr-defined]  # see errors.was_put()
                    notes.write(put)
                raise
            if len(stored) == len(put):
                notes.clear()
        return key not in noted

    def _is_known(self, transaction: Any, store: SideStore, key: bytes, now: int) -> bool:
        known = transaction.get(key, db=store.table(_TABLE))
        return known is not None and int.from_bytes(store.values.open(_TABLE, key, known), "big") > now

    def _send_and_store(
        self, key: bytes, put: Found, to: Log | Level, send: Callable[[], None], now: int
    ) -> list[bytes]:
        """Keys of those that are as durable as they shall be. `put`: what is in the ring, this one too."""
        if key in put:
            self._log.flush(STORING)
            return list(put)
        unconfirmed, others = Unconfirmed(), bool(put)
        unconfirmed.put(send)
        put[key] = Note(ring_of(to), now + int(self._seconds * 1e9))
        if not unconfirmed.waits_for_disk:
            return [key]  # and no other shall make it wait
        unconfirmed.confirm()
        if others:
            self._log.flush(STORING)
        return list(put)

    def _remember(self, transaction: Any, store: SideStore, key: bytes, until: int) -> None:
        table, expires = store.table(_TABLE), until.to_bytes(8, "big")
        transaction.put(key, store.values.seal(_TABLE, key, expires), db=table)
        transaction.put(self._id + b"\1" + expires + key[len(self._id) + 1 :], b"", db=table)

    def _sweep(self, transaction: Any, store: SideStore, now: int) -> None:
        table, prefix = store.table(_TABLE), self._id + b"\1"
        expired: list[bytes] = []
        with transaction.cursor(table) as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix) and len(expired) < _SWEPT:
                if int.from_bytes(cursor.key()[17:25], "big") > now:
                    break
                expired.append(cursor.key())
                found = cursor.next()
        for row in expired:
            transaction.delete(row, db=table)
            by_id = self._id + b"\0" + row[25:]
            known = transaction.get(by_id, db=table)
            if known is not None and store.values.open(_TABLE, by_id, known) == row[17:25]:
                transaction.delete(by_id, db=table)
