"""Group commit: whoever needs something on disk writes what every log of the broker has, for all who wait.

One writer at a time, whichever process: the holder of the door. It does W1 to W6 of native/src/stored.h for
each log that this process has open, in one transaction. Nobody writes on behalf of others without need: a
putter with level "commit" does when its turn comes, and finds most often that somebody just did.

Level "interval" has a thread in each process that puts: a few milliseconds after the first put it commits.
Acks are stored with the next commit, or a little later by the same thread; until then they are in shared
memory, which only a reboot takes away: what was acked right before may then come again.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lmdb

from ringpost._binding.contract import NativeLog
from ringpost.errors import QueueDeleted, RingpostError, ShutDown, Stalled, StorageFailed
from ringpost.store import format as form
from ringpost.store.decided import Decided
from ringpost.store.disk import full
from ringpost.store.environment import Environment
from ringpost.store.later import DECIDED
from ringpost.store.log import ALL, StoredLog
from ringpost.threads import holding, start_thread

INTERVAL = 0.005  # seconds: what a power cut may cost at level "interval"
ACK_INTERVAL = 0.05  # seconds until acks are stored
_RETRY = 1.0  # seconds, after the disk has failed
_LOOK = 1.0  # seconds until transactions are looked for that nobody carries out
_LONGEST_LOOK = 10.0  # between two looks

if TYPE_CHECKING:
    from ringpost.store.transactions import Transactions

_log = logging.getLogger("ringpost")


Then = Callable[[Any, "dict[StoredLog, int]"], None]


class Writer:
    """Of one environment, in this process."""

    def __init__(self, environment: Environment, most_bytes: int | None = None) -> None:
        self.environment = environment
        self._most_bytes = most_bytes
        self._logs: weakref.WeakValueDictionary[int, StoredLog] = weakref.WeakValueDictionary()  # by number
        self._committer = Committer(self)
        self.decided = Decided(environment)
        self.transactions: Transactions | None = None  # see transactions.py

    def limit(self, most_bytes: int | None) -> None:
        if most_bytes is not None:
            self._most_bytes = max(self._most_bytes or 0, most_bytes)

    def storage_of(
        self, log: NativeLog, record: form.LogRecord, label: str, identity: tuple[str, str]
    ) -> StoredLog:
        """One for a log in this process, however many handles it has."""
        known = self._logs.get(record.number)
        if known is None or known.ring != log.info()["created_ns"]:
            known = self._logs[record.number] = StoredLog(log, record, label, identity, self)
        return known

    def discard(self, log: StoredLog) -> None:
        if self._logs.get(log.record.number) is log:
            del self._logs[log.record.number]

    def logs(self) -> list[StoredLog]:
        return list(self._logs.values())

    # ---- writing -------------------------------------------------------------------------------

    def write(
        self,
        *wanted: StoredLog,
        then: Then | None = None,
        for_good: bool = False,
        may_turn: bool = True,
    ) -> None:
        """Store what is new in these logs, and in the others. The caller holds the door.

        Args:
            then: gets the transaction, to add to it, and where each of these logs ends as it is stored.
            for_good: also where these logs end, though nothing else of them is to be stored.
            may_turn: what was freed lately may be made ready to be used again, if the disk is full.

        Raises StorageFailed, QueueDeleted, StorageDamaged (one of these logs; others are left out then).
        """
        noted: set[StoredLog] = set()
        self.decided.are_some = False
        try:
            plans = self._plans(wanted, noted)
            if then is not None or any(plan.needs_disk(for_good and plan.log in wanted) for plan in plans):
                plans, shortage = self._commit(plans, wanted, then, self._over_quota())
                for plan in plans:
                    plan.remember()
                if shortage is not None and wanted and plans[0].is_waited_for():
                    if self.environment.size() < shortage.used:
                        # something was deleted: perhaps there is room now
                        return self.write(*wanted, for_good=for_good)
                    if shortage.is_quota or not may_turn or not self.environment.has_room(0):
                        raise shortage.problem
                    self.environment.turn_over()
                    return self.write(*wanted, for_good=for_good, may_turn=False)
        except BaseException:
            for log in self.logs():
                log.forget()  # it may be stored, and nobody remembers
            self._committer.try_later(noted)  # who failed may have had nothing to do with them
            raise
        finally:
            for log in noted:
                log.in_flight -= 1
        for plan in plans:
            plan.publish()
        left = noted - {plan.log for plan in plans if not plan.is_waited_for()}
        if left:
            self._committer.try_later(left)
        if then is None and self.decided.are_some:
            self.finish_later()  # until then, nothing of their logs is deleted

    def _plans(self, wanted: tuple[StoredLog, ...], noted: set[StoredLog]) -> list[_Plan]:
        """`noted` gets those that were. Not after the plan is made: what is noted meanwhile is not in it."""
        plans, epoch = [], self.environment.look()
        others = [log for log in self.logs() if log not in wanted and (log.noted or log.is_pending())]
        for log in (*wanted, *(log for log in others if not log.is_spoilt)):
            if log.noted:
                noted.add(log)
                log.in_flight += 1  # first: who flushes in between waits for it
                log.noted = False
            try:
                plans.append(_Plan(log, self, epoch))
            except (RingpostError, ShutDown):
                if log in wanted:
                    raise  # else it is its own users' to hear of
        return plans

    def _commit(
        self,
        plans: list[_Plan],
        wanted: tuple[StoredLog, ...],
        then: Then | None,
        shortage: _Shortage | None,
    ) -> tuple[list[_Plan], _Shortage | None]:
        """In one transaction. Those that were carried out: all that are wanted, and of others those that can
        be. With a shortage, as it was or has come to light, without frames: what was acked is stored all the
        same, and deleted, so there will be room again."""
        while True:
            try:
                with self.environment.begin(only_frames=then is None) as transaction:
                    if then is not None:
                        # first: a record that goes keeps nothing any more
                        then(transaction, {plan.log: plan.tail for plan in plans})
                    with_frames = shortage is None
                    done = [plan for plan in plans if self._store(plan, transaction, with_frames, wanted)]
                    if DECIDED.get() is None and not self._leaves_room(done, transaction):
                        raise full(self.environment.place)
                    return done, shortage
            except _Spoilt as spoilt:  # what it wrote is undone; once more without it
                plans = [plan for plan in plans if plan is not spoilt.plan]
            except StorageFailed as problem:
                is_full = problem.errno in (errno.ENOSPC, errno.EDQUOT)
                if not is_full or shortage is not None or then is not None:
                    raise
                shortage = _Shortage(problem, self.environment.size())

    def _leaves_room(self, plans: list[_Plan], transaction: Any) -> bool:
        written = sum(plan.written for plan in plans)
        return not written or self.environment.had_room(written, transaction)

    def _store(self, plan: _Plan, transaction: Any, with_frames: bool, wanted: tuple[StoredLog, ...]) -> bool:
        """False: it was deleted meanwhile, and is not one that the caller waits for."""
        try:
            plan.store(transaction, self.environment, with_frames)
        except QueueDeleted:
            if plan.log in wanted:
                raise
            return False
        except (OSError, lmdb.Error, MemoryError):
            raise  # they are everybody's
        except Exception as error:
            if plan.log in wanted:
                raise
            plan.log.is_spoilt = True
            raise _Spoilt(plan) from error
        return True

    def _over_quota(self) -> _Shortage | None:
        if not self._most_bytes or DECIDED.get() is not None:
            return None
        used = self.environment.size()
        if used <= self._most_bytes:
            return None
        problem = StorageFailed(
            errno.EDQUOT,
            f"the broker's quota of {self._most_bytes} bytes is reached ({used} in use): consume messages, "
            "delete queues, or connect with a larger max_bytes",
            str(self.environment.place),
        )
        return _Shortage(problem, used, is_quota=True)

    def check_room(self, size: int, timeout: float | None) -> None:
        """For so many bytes that are about to be decided on. Raises StorageFailed, Stalled."""
        if self.environment.has_room(size):
            return
        self.make_room(timeout)
        if not self.environment.has_room(size):
            raise full(self.environment.place)

    def make_room(self, timeout: float | None) -> None:
        """Delete what was acked, and make it ready to be used again. Raises StorageFailed, Stalled."""
        with self.environment.alone(timeout):
            self.write()
            self.environment.turn_over()

    # ---- levels --------------------------------------------------------------------------------

    def note(self, log: StoredLog, soon: bool) -> None:
        """There is something to store in a moment."""
        log.noted = True
        try:
            self._committer.note(log, soon)
        except BaseException:  # a signal handler's
            log.noted = False  # else nobody would come, and nobody note it again
            raise

    def commit_noted(self, others: Collection[StoredLog] = (), for_good: bool = True) -> None:
        """Raises StorageFailed, Stalled; what else one of them has keeps no other from being stored."""
        problem: Exception | None = None
        for log in self.logs():
            if log.noted or log in others:
                try:
                    with log.stored.entering(ALL, 5.0):
                        self.write(log, for_good=for_good)
                except QueueDeleted:
                    self.discard(log)
                except (StorageFailed, Stalled):
                    raise
                except Exception as error:
                    problem = error
        if problem is not None:
            raise problem

    # ---- transactions --------------------------------------------------------------------------

    def finish_later(self) -> None:
        """What somebody decided, if he does not carry it out himself meanwhile."""
        self._committer.look_later()

    def finish_those_of_the_dead(self) -> bool:
        """False: there are some left."""
        transactions, environment = self.transactions, self.environment
        if transactions is None or not environment.is_there():
            return True
        try:
            transactions.finish_those_of_the_dead(_LOOK)
            return not environment.has_transactions()
        except Exception as error:
            _log.debug("transactions cannot be carried out now: %s", error)
            return False


def writer_of(environment: Environment, most_bytes: int | None) -> Writer:
    """That of an environment, with the largest quota that anybody connected with."""
    if not isinstance(environment.writer, Writer):
        environment.writer = Writer(environment, most_bytes)
    environment.writer.limit(most_bytes)
    return environment.writer


class _Spoilt(Exception):
    """A plan that nobody waits for cannot be carried out."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__(plan.log.label)
        self.plan = plan


@dataclass(frozen=True)
class _Shortage:
    """Why no frames are stored, and how many bytes were in use then."""

    problem: StorageFailed
    used: int
    is_quota: bool = False


class _Plan:
    """W1 to W3 of one log; then the rest."""

    def __init__(self, log: StoredLog, writer: Writer, epoch: int) -> None:
        self.log = log
        self._writer = writer
        stored = log.stored
        self._groups = [form.GroupRecord(*each) for each in stored.groups()]
        self.tail = stored.tail()  # what is put behind that is stored by who comes later
        needed = stored.needed()
        # A group as it is stored must find its frames; it may have acked more since.
        self._acked = min([self.tail if needed is None else needed, *(one.acked for one in self._groups)])
        self._needed = self._acked
        if log.record.retention is not None:
            self._needed = 0  # its subscribers are not the only ones it is kept for
        elif self._needed:
            floor = writer.decided.floor(log.identity)
            if floor is not None:
                self._needed = min(self._needed, floor)  # whoever carries it out looks for what was sent
        self._start = max(stored.durable(), min(self._needed, self.tail))
        self._published = self.tail  # durable, when it is done
        if log.looked_in != epoch:
            with writer.environment.read() as reading:
                log.look(reading, epoch)
        self._has_blocks = log.has_blocks
        self._stored = log.stored_to
        self.written = 0  # bytes of frames and payloads

    def is_waited_for(self) -> bool:
        return self._published < self.tail

    def needs_disk(self, for_good: bool) -> bool:
        if self._start < self.tail or (for_good and self.log.stored_to < self.tail):
            return True
        return self._has_changed_groups() if self._has_blocks else self._has_other_groups()

    def _has_changed_groups(self) -> bool:
        known = self.log.known_groups
        return len(known) != len(self._groups) or any(known.get(one.name) != one for one in self._groups)

    def _has_other_groups(self) -> bool:
        """Some were made, or closed. A queue always has its own, which has no name."""
        return {one.name for one in self._groups if one.name} != {one for one in self.log.known_groups if one}

    def store(self, transaction: Any, environment: Environment, with_frames: bool) -> None:
        """W4. Raises QueueDeleted: this is not the ring any more that this log is stored from."""
        log, number = self.log, self.log.record.number
        log.look(transaction, environment.epoch)
        self._published, self._has_blocks = self.tail, log.has_blocks  # it may be tried a second time
        self.written = 0
        key, stored = form.number_key(number), log.stored_to
        if stored < 0:
            self._writer.discard(log)
            raise QueueDeleted(
                f"{log.label} was deleted, or its shared memory removed and made anew, while this handle was "
                "open; open it again"
            )
        retained = log.record.retention is not None
        floor = self._writer.decided.floor(log.identity, transaction) if retained else None
        start = max(self._start, stored)
        if start < self.tail and with_frames:
            self.written = log.blocks.write(transaction, log.stored, start, self.tail, floor)
            self._has_blocks, stored = True, self.tail
        elif start < self.tail:
            self._published = start
        self._store_groups(transaction, environment, key)
        had_blocks = self._has_blocks
        self._delete_what_nobody_needs(transaction, floor)
        if self._published > stored or (had_blocks and not self._has_blocks):  # else the last block says it
            after = form.Progress(self._published, log.stored.sequence_at(self._published), log.ring)
            sealed = log.blocks.values.seal(form.PROGRESS, key, after.pack())
            transaction.put(key, sealed, db=environment.table(form.PROGRESS))
            stored = self._published
        self._stored = stored

    def _store_groups(self, transaction: Any, environment: Environment, key: bytes) -> None:
        table, known = environment.table(form.GROUPS), self.log.known_groups
        values, names = self.log.blocks.values, {one.name for one in self._groups}
        for one in self._groups:
            if known.get(one.name) != one:
                sealed = values.seal(form.GROUPS, key + one.name, form.encode(one))
                transaction.put(key + one.name, sealed, db=table)
        for name in [each for each in known if each not in names]:
            transaction.delete(key + name, db=table)

    def _delete_what_nobody_needs(self, transaction: Any, floor: int | None) -> None:
        if not self._has_blocks:
            return
        if self.log.record.retention is None:
            self._has_blocks = self.log.blocks.delete_before(transaction, min(self._needed, self.tail))
        else:
            from ringpost.store.retention import apply

            needed = self._acked if floor is None else min(self._acked, floor)
            self._has_blocks = apply(self.log, transaction, needed)

    def remember(self) -> None:
        """The transaction was committed, and not before: what was undone is not stored."""
        self.log.is_spoilt = False
        self.log.has_blocks = self._has_blocks
        self.log.known_groups = {one.name: one for one in self._groups}
        self.log.stored_to = self._stored

    def publish(self) -> None:
        """W5."""
        self.log.stored.set_durable(self._published)


class Committer:
    """The thread of level "interval". It is there as long as there is something to do for it."""

    def __init__(self, writer: Writer) -> None:
        self._writer = weakref.ref(writer)
        self._lock = threading.RLock()  # entered in C: of a condition a signal handler may come in between
        self._changed = threading.Condition(self._lock)
        self._due: float | None = None
        self._for_good = False  # something was acked, too
        self._look_at: float | None = None  # for transactions
        self._pause = _LOOK
        self._kept: set[StoredLog] = set()  # closed perhaps before they were stored
        self._at_work: set[StoredLog] = set()  # the thread stores these right now
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        _committers.add(self)

    def note(self, log: StoredLog, soon: bool) -> None:
        self._for_good |= not soon
        self._come({log}, INTERVAL if soon else ACK_INTERVAL)

    def look_later(self) -> None:
        if self._look_at is None:
            self._look_at = time.monotonic() + self._pause
            self._come(set(), self._pause)

    def _come(self, logs: set[StoredLog], after: float) -> None:
        _finish_under_multiprocessing()
        when = time.monotonic() + after
        with holding(self._lock):
            self._kept |= logs
            if self._due is None or when < self._due:
                self._due = when
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="ringpost-committer", daemon=True)
                start_thread(self._thread)
            else:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with holding(self._lock):
                while self._due is None or (left := self._due - time.monotonic()) > 0:
                    if not self._changed.wait(5.0 if self._due is None else left) and self._due is None:
                        self._thread = None  # nothing for a while: the next note() starts another
                        return
                self._due = None
                kept = self._at_work = self._kept
                self._kept = set()
            writer = self._writer()
            if writer is None:
                return
            try:
                for_good, self._for_good = self._for_good, False
                writer.commit_noted(for_good=for_good)
            except Exception as error:
                if self.try_later(kept) and not isinstance(error, QueueDeleted):
                    _log.warning("what was put is not yet on disk: %s", error)
            self._at_work = set()
            self._look(writer)
            del writer, kept

    def _look(self, writer: Writer) -> None:
        if self._look_at is None:
            return
        left = self._look_at - time.monotonic()
        if left > 0:
            self._come(set(), left)  # it came for something else
            return
        self._look_at = None
        if writer.finish_those_of_the_dead():
            self._pause = _LOOK
        else:
            self._pause = min(2 * self._pause, _LONGEST_LOOK)
            self.look_later()

    def try_later(self, logs: set[StoredLog]) -> bool:
        """False: there is nothing left to try."""
        writer = self._writer()
        if writer is None or not writer.environment.is_there():
            return False
        left = {log for log in logs if log in writer.logs()}
        for log in left:
            log.noted = True
        if left:
            self._come(left, _RETRY)
        return bool(left)

    def finish(self) -> None:
        """At the end of the process: store what was noted, and what the thread will not live to store."""
        writer = self._writer()
        if writer is not None and self._pid == os.getpid():
            with contextlib.suppress(Exception):
                writer.commit_noted(self._at_work)

    def forget(self) -> None:
        """In a forked child: the thread is the parent's, and so is its work."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._thread = None
        self._due = None
        self._look_at = None
        self._pid = os.getpid()
        self._kept, self._at_work = set(), set()
        writer = self._writer()
        for log in [] if writer is None else writer.logs():  # not only those that are kept: see _at_work
            log.noted = False


_committers: weakref.WeakSet[Committer] = weakref.WeakSet()


@atexit.register
def _finish_all() -> None:
    for committer in list(_committers):
        committer.finish()


_finalizer: Any = None


def _finish_under_multiprocessing() -> None:
    """Children that it forked end without atexit, and begin without the finalizers that were there before."""
    global _finalizer
    util = sys.modules.get("multiprocessing.util")  # there, if this is such a child
    if util is not None and (_finalizer is None or not _finalizer.still_active()):
        # a negative priority: after it has joined this process's children; but before anonymous queues go
        _finalizer = util.Finalize(None, _finish_all, exitpriority=-50)


def _forget_all() -> None:
    global _finalizer
    _finalizer = None
    for committer in list(_committers):
        committer.forget()


os.register_at_fork(after_in_child=_forget_all)
