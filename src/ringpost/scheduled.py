"""Scheduled delivery: messages wait in the side store, and are put into their queue when they are due.

Key: log id, due time, a number that keeps those of the same time apart. The log's alarm says when the first
one is due; whoever takes messages, or waits for some, then moves what is due. The alarm is set before the
transaction that adds a message is committed, and computed anew by whoever moves: a death in between makes
it ring too early, never too late. A death between put and commit puts a message twice: at least once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ringpost._binding.contract import Log
from ringpost.errors import Full, ShutDown, Stalled, Status, failure
from ringpost.levels import Levels
from ringpost.sidestore import SideStore
from ringpost.stored import Stored, pack, unpack

_TABLE = b"scheduled"
_AT_ONCE = 256  # moved in one transaction
_LATEST = 2**63 - 1  # ns: in the year 2262
_LATER = 10_000_000  # ns until the next try, where there was no room


class Schedule:
    """Of one queue."""

    def __init__(self, log: Log, store: Callable[[], SideStore]) -> None:
        self._log = log
        self._store = store
        self._id = bytes(log.info()["log_id"])

    def add(self, due_ns: int, message: Stored) -> None:
        """Deliver it at `due_ns` (CLOCK_REALTIME).

        Raises MessageTooLarge, ShutDown and QueueDeleted, as putting it now would; Stalled.
        """
        self._check(len(message.payload) + len(message.headers or b""))
        due_ns = min(max(due_ns, 1), _LATEST)
        store = self._store()
        with store.write() as transaction:
            key = self._id + due_ns.to_bytes(8, "big") + os.urandom(8)
            transaction.put(key, store.values.seal(_TABLE, key, pack(message)), db=store.table(_TABLE))
            alarm = self._log.alarm()
            if alarm == 0 or due_ns < alarm:
                self._log.set_alarm(due_ns)

    def _check(self, size: int) -> None:
        """What can never be put would be in the way of everything that is due after it."""
        info = self._log.info()
        if info["deleted"]:
            raise failure(Status.DELETED, "put into", self._log.label)
        if info["shut_down"]:
            raise failure(Status.SHUT_DOWN, "put into", self._log.label)
        if size > info["max_payload"]:
            raise failure(Status.TOO_LARGE, "put into", self._log.label, size=size, most=info["max_payload"])

    def move_due(self) -> None:
        """Put what is due into the queue, oldest first, as far as there is room."""
        store = self._store()
        try:
            with store.alone(timeout=0):
                if self._log.alarm() > time.time_ns():
                    return  # another process was faster
                with store.begin() as transaction:
                    following = self._move(transaction, store)
                self._log.set_alarm(following)
        except Stalled:
            return  # somebody else is at it

    def _move(self, transaction: Any, store: SideStore) -> int:
        """When to look again; 0: nothing is left."""
        moved = 0
        with transaction.cursor(store.table(_TABLE)) as cursor:
            found = cursor.set_range(self._id)
            while found and cursor.key().startswith(self._id):
                due = int.from_bytes(cursor.key()[16:24], "big")
                if due > time.time_ns() or moved == _AT_ONCE:
                    return due
                one = unpack(store.values.open(_TABLE, cursor.key(), cursor.value()))
                try:
                    self._put(one)
                except (Full, Stalled):
                    return time.time_ns() + _LATER
                except ShutDown:
                    return 0
                moved += 1
                found = cursor.delete()
        return 0

    def _put(self, one: Stored) -> None:
        to = self._log.level(one.priority) if isinstance(self._log, Levels) else self._log
        to.send_raw(one.kind, one.payload, one.subject, one.headers, one.ttl_ms, False)

    def count(self) -> int:
        """Messages that are not due yet."""
        store = self._store()
        count = 0
        with store.read() as transaction, transaction.cursor(store.table(_TABLE)) as cursor:
            found = cursor.set_range(self._id)
            while found and cursor.key().startswith(self._id):
                count += 1
                found = cursor.next()
        return count
