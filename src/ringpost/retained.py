"""Retained messages: the last one of each subject, for who subscribes later. Key: log id, subject."""

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
        """Instead of what was kept for this subject. Raises Stalled."""
        store = self._store()
        with store.write() as transaction:
            transaction.put(self._id + subject, pack(message), db=store.table(_TABLE))

    def clear(self, subject: bytes) -> bool:
        """False: nothing was kept."""
        store = self._store()
        with store.write() as transaction:
            return bool(transaction.delete(self._id + subject, db=store.table(_TABLE)))

    def matching(self, pattern: str) -> list[Stored]:
        """The last ones of all subjects that match, by subject; "" matches all. Without what is expired."""
        store = self._store()
        kept = []
        now = time.time_ns()
        with store.read() as transaction, transaction.cursor(store.table(_TABLE)) as cursor:
            found = cursor.set_range(self._id)
            while found and cursor.key().startswith(self._id):
                subject = cursor.key()[16:].decode()
                if not pattern or binding.subject_matches(pattern, subject):
                    message = unpack(cursor.value())
                    if not message.ttl_ms or message.sent_ns + message.ttl_ms * 1_000_000 > now:
                        kept.append(message)
                found = cursor.next()
        return kept
