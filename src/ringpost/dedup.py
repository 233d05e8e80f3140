"""Deduplication: the ids of messages that were sent lately.

Two rows for an id: log id, 0, id -> when it expires; and log id, 1, that time, id, to find what has
expired. An id is committed after its message was put: a death in between lets the message be sent once
more, and never loses it. In a sealed broker a keyed hash stands for the id.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ringpost.sidestore import SideStore

_TABLE = b"sent"
_SWEPT = 8  # expired ids that each new one takes away
_LONGEST = 400  # bytes of an id; LMDB's keys have 511
_LONGEST_WINDOW = 1e9  # seconds


class Window:
    """Of one queue."""

    def __init__(self, log_id: bytes, store: Callable[[], SideStore], seconds: float) -> None:
        if not 0 < seconds < _LONGEST_WINDOW:
            raise ValueError(f"'dedup_window' must be a positive number of seconds, not {seconds}")
        self._id = log_id
        self._store = store
        self._seconds = seconds

    def send_once(self, message_id: str, send: Callable[[], None]) -> bool:
        """Call `send` unless `message_id` was sent within the window. False: it was.

        Raises ValueError for an id of more than 400 bytes, Stalled, and what `send` raises.
        """
        encoded = message_id.encode()
        if not 0 < len(encoded) <= _LONGEST:
            raise ValueError(f"a message_id has 1 to {_LONGEST} bytes where duplicates are looked for")
        store, now = self._store(), time.time_ns()
        values, shown = store.values, store.values.hide(encoded, self._id)
        key = self._id + b"\0" + shown
        with store.write() as transaction:
            table = store.table(_TABLE)
            known = transaction.get(key, db=table)
            if known is not None and int.from_bytes(values.open(_TABLE, key, known), "big") > now:
                return False
            send()
            expires = (now + int(self._seconds * 1e9)).to_bytes(8, "big")
            transaction.put(key, values.seal(_TABLE, key, expires), db=table)
            transaction.put(self._id + b"\1" + expires + shown, b"", db=table)
            self._sweep(transaction, store, now)
        return True

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
