"""Retained messages: the last one of each subject, for who subscribes later. Key: log id, subject.

In a sealed broker a keyed hash stands for the subject.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ringpost._binding import binding
from ringpost.sidestore import SideStore
from ringpost.stored import Stored, pack, unpack

_TABLE = b"retained"


class Retained:
    """Of one topic."""

    def __init__(self, log_id: bytes, store: Callable[[], SideStore]) -> None:
        self._id = log_id
        self._store = store

    def keep(self, subject: bytes, message: Stored) -> None:
        """Instead of what was kept for this subject. Raises Stalled, StorageFailed, SegmentFull."""
        store = self._store()
        with store.write() as transaction:
            key = self._key(store, subject)
            sealed = store.values.seal(_TABLE, key, pack(message))
            transaction.put(key, sealed, db=store.table(_TABLE))
            store.check_room(transaction, len(sealed))

    def clear(self, subject: bytes) -> bool:
        """False: nothing was kept. Raises Stalled, StorageFailed, SegmentFull."""
        store = self._store()
        with store.write() as transaction:
            return bool(transaction.delete(self._key(store, subject), db=store.table(_TABLE)))

    def _key(self, store: SideStore, subject: bytes) -> bytes:
        return self._id + store.values.hide(subject, self._id)

    def matching(self, pattern: str) -> list[Stored]:
        """The last ones of all subjects that match, by subject; "" matches all. Without what is expired."""
        store, now = self._store(), time.time_ns()
        kept = []
        with store.read() as transaction, transaction.cursor(store.table(_TABLE)) as cursor:
            found = cursor.set_range(self._id)
            while found and cursor.key().startswith(self._id):
                message = unpack(store.values.open(_TABLE, cursor.key(), cursor.value()))
                is_over = message.ttl_ms and message.sent_ns + message.ttl_ms * 1_000_000 <= now
                if not is_over and (not pattern or binding.subject_matches(pattern, _subject_of(message))):
                    kept.append(message)
                found = cursor.next()
        return sorted(kept, key=lambda message: message.subject or b"")


def _subject_of(message: Stored) -> str:
    return (message.subject or b"").decode()
