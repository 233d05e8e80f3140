"""Deduplication: the ids of messages that were sent lately.

Two rows for an id: log id, 0, id -> when it expires (ns, 8 bytes); and log id, 1, that time, id, to find
what has expired. An id is committed after its message was put, and stored: a death in between lets the
message be sent once more, and never loses it. In a sealed broker a keyed hash stands for the id.

A message that did not wait for the disk (durability "memory" or "interval") may be lost with its ring, and
its id would not: such a row names the ring as well, and counts only as long as that is there. Whether the
message was stored since nobody knows: after a reboot a copy may come, and nothing is lost.

Where storing fails notes.py has the id. As long as the ring is there it is as good as sent; who sends it once
more has it stored first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ringpost._binding.contract import Log
from ringpost.levels import Level
from ringpost.notes import Found, Note, ring_of, rings_of
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
                    rows = self._send_and_store(key, put, to, send, now)
                    for each, row in rows.items():
                        self._remember(transaction, store, each, row)
                    self._sweep(transaction, store, now)
            except BaseException as error:
                if put != noted:
                    error.put = 1  # type: ignore[attr-defined]  # see errors.was_put()
                    notes.write(put)
                raise
            if len(rows) == len(put):
                notes.clear()
        return key not in noted

    def _is_known(self, transaction: Any, store: SideStore, key: bytes, now: int) -> bool:
        sealed = transaction.get(key, db=store.table(_TABLE))
        if sealed is None:
            return False
        until, ring = _unpack(store.values.open(_TABLE, key, sealed))
        return until > now and (ring is None or ring in rings_of(self._log))

    def _send_and_store(
        self, key: bytes, put: Found, to: Log | Level, send: Callable[[], None], now: int
    ) -> dict[bytes, bytes]:
        """Rows of those that are as durable as they shall be. `put`: what is in the ring, this one too."""
        if key in put:
            self._log.flush(STORING)
            return _rows_of(put)
        unconfirmed, others = Unconfirmed(), bool(put)
        unconfirmed.put(send)
        note = put[key] = Note(ring_of(to), now + int(self._seconds * 1e9))
        if not unconfirmed.waits_for_disk:
            # and no other shall make it wait
            return {key: _pack(note.until_ns, note.ring if self._log.is_stored else None)}
        unconfirmed.confirm()
        if others:
            self._log.flush(STORING)
        return _rows_of(put)

    def _remember(self, transaction: Any, store: SideStore, key: bytes, row: bytes) -> None:
        table = store.table(_TABLE)
        transaction.put(key, store.values.seal(_TABLE, key, row), db=table)
        transaction.put(self._id + b"\1" + row[:8] + key[len(self._id) + 1 :], b"", db=table)

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
            if known is not None and store.values.open(_TABLE, by_id, known)[:8] == row[17:25]:
                transaction.delete(by_id, db=table)


def _pack(until_ns: int, ring: int | None = None) -> bytes:
    """A row's value; with the ring that its message may be lost with."""
    return until_ns.to_bytes(8, "big") + (b"" if ring is None else ring.to_bytes(8, "big"))


def _unpack(value: bytes) -> tuple[int, int | None]:
    ring = value[8:]
    return int.from_bytes(value[:8], "big"), int.from_bytes(ring, "big") if ring else None


def _rows_of(stored: Found) -> dict[bytes, bytes]:
    return {key: _pack(note.until_ns) for key, note in stored.items()}
