"""Scheduled delivery: messages wait in the side store, and are put into their queue when they are due.

Key: log id, due time, a number that keeps those of the same time apart. The log's alarm says when the first
one is due; whoever takes messages, or waits for some, then moves what is due. The alarm is set before the
transaction that adds a message is committed, and computed anew by whoever moves: a death in between makes
it ring too early, never too late. A death between put and commit puts a message twice: at least once.

What is due is put into the ring, then stored there, and only then forgotten here. Where storing or forgetting
fails, notes.py says what is in the ring: taking goes on, which is what makes room, and nothing is put again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ringpost._binding.contract import Log
from ringpost.errors import Full, SegmentFull, ShutDown, Stalled, Status, StorageFailed, failure
from ringpost.levels import Level, Levels
from ringpost.notes import Found, Note, ring_of
from ringpost.sidestore import SideStore
from ringpost.store.later import STORING, Unconfirmed
from ringpost.stored import Stored, pack, unpack

_TABLE = b"scheduled"
_AT_ONCE = 256  # moved in one transaction
_LATEST = 2**63 - 1  # ns: in the year 2262
_LATER = 10_000_000  # ns until the next try, where there was no room
_RETRY = 1_000_000_000  # ns until the next try, where storage has failed

_logger = logging.getLogger("ringpost")


class Schedule:
    """Of one queue."""

    def __init__(self, log: Log, store: Callable[[], SideStore]) -> None:
        self._log = log
        self._store = store
        self._id = bytes(log.info()["log_id"])

    def add(self, due_ns: int, message: Stored) -> None:
        """Deliver it at `due_ns` (CLOCK_REALTIME).

        Raises MessageTooLarge, ShutDown and QueueDeleted, as putting it now would; Stalled, StorageFailed,
        SegmentFull.
        """
        self._check(len(message.payload) + len(message.headers or b""))
        due_ns = min(max(due_ns, 1), _LATEST)
        store = self._store()
        with store.write() as transaction:
            key = self._id + due_ns.to_bytes(8, "big") + os.urandom(8)
            sealed = store.values.seal(_TABLE, key, pack(message))
            transaction.put(key, sealed, db=store.table(_TABLE))
            store.check_room(transaction, len(sealed))
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
        """Put what is due into the queue, oldest first, as far as there is room. Where storage fails it stays
        due: who takes messages has nothing to do with that."""
        try:
            store = self._store()
            with store.alone(timeout=0):
                if self._log.alarm() > time.time_ns():
                    return  # another process was faster
                self._log.set_alarm(self._move_and_note(store))
        except Stalled:
            return  # somebody else is at it
        except (StorageFailed, SegmentFull) as error:
            self._log.set_alarm(self._after_failure(error))

    def _move_and_note(self, store: SideStore) -> int:
        """When to look again; 0: nothing is left."""
        notes = store.notes(self._id, _TABLE)
        put = notes.read(self._log, time.time_ns())
        try:
            with store.begin() as transaction:
                following = self._move(transaction, store, put)
        except (StorageFailed, SegmentFull, Stalled) as error:
            notes.write(put)
            return self._after_failure(error)
        except BaseException:
            notes.write(put)
            raise
        notes.clear()
        return following

    def _after_failure(self, error: Exception) -> int:
        _logger.warning("what is due in %s is not yet stored there: %s", self._log.label, error)
        return time.time_ns() + _RETRY

    def _move(self, transaction: Any, store: SideStore, put: Found) -> int:
        """As _move_and_note(). `put`: what is in the ring already; then, with what this has put there."""
        noted, moved, following = frozenset(put), 0, 0
        unconfirmed = Unconfirmed()
        with transaction.cursor(store.table(_TABLE)) as cursor:
            found = cursor.set_range(self._id)
            while found and cursor.key().startswith(self._id):
                key = bytes(cursor.key())
                due = int.from_bytes(key[16:24], "big")
                if due > time.time_ns() or moved == _AT_ONCE:
                    following = due
                    break
                if key not in noted:
                    one = unpack(store.values.open(_TABLE, key, cursor.value()))
                    to = self._log.level(one.priority) if isinstance(self._log, Levels) else self._log
                    try:
                        unconfirmed.put(partial(self._put, to, one))
                    except (Full, Stalled):
                        following = time.time_ns() + _LATER
                        break
                    except ShutDown:
                        break
                    put[key] = Note(ring_of(to))
                moved += 1
                found = cursor.delete()
        unconfirmed.confirm()
        if noted or (moved and self._log.is_stored):
            # Of those that were noted nobody knows whether they were stored since; and they were on disk
            # here, whatever the log's durability.
            self._log.flush(STORING)
        return following

    def _put(self, to: Log | Level, one: Stored) -> None:
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
