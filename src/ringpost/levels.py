"""Levels: a queue with priorities. Each priority in use is a log of its own; this makes one queue of them.

The log of priority 0 is there from the start. It has what they share: which levels there are, and a bell that
senders ring and receivers sleep on (native/src/bell.c says why none is missed).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from ringpost._binding import binding
from ringpost._binding.contract import Group, Loan, Log, NativeLog, Watch
from ringpost.errors import Empty, QueueDeleted, QueueNotFound, ShutDown, Stalled, Status, failure
from ringpost.message import Message

HIGHEST = 9

_AT_ONCE = 256  # items put between two rings of the bell

M = TypeVar("M")
R = TypeVar("R")


class Levels:
    """A Log, as contract.py has it, made of one for each priority. What is put without one has priority 0."""

    def __init__(self, base: NativeLog, open_level: Callable[[int, bool], Log]) -> None:
        self._base = base
        self._open_level = open_level  # (priority, create) -> its log
        self._logs: dict[int, Log] = {0: base}
        self._ready = {0}  # where we have made every group's place
        self._known = 0
        self.on_empty: Callable[[], Callable[[], None] | None] | None = None

    # ---- levels --------------------------------------------------------------------------------

    def level(self, priority: int) -> Level:
        """To send with this priority. Raises ValueError."""
        check_priority(priority)
        if priority not in self._ready:
            self._add(priority)
        return Level(self._logs[priority], self._base)

    def _add(self, priority: int) -> None:
        """Make a level, and tell the others, before we put anything into it. One that is there may lack the
        places of groups: whoever made it is not done, or died over it."""
        found = self._logs.get(priority)
        log = found or self._open_level(priority, True)
        self._base.add_level(priority)
        for group in self._base.groups():
            if group["name"]:
                log.open_group(group["name"], group["pattern"], policy=group["policy"], from_start=True)
        self._logs[priority] = log
        state = self._base.info()
        if state["deleted"]:
            if found is None:  # else another queue's level may lie there by now
                binding.remove(log.path)
            raise failure(Status.DELETED, "put into", self.label)
        if state["shut_down"]:
            log.shutdown()
        self._ready.add(priority)

    def by_priority(self) -> list[tuple[int, Log]]:
        """Those that there are now, the highest first."""
        bits = self._base.levels()
        if bits != self._known:
            for priority in range(1, HIGHEST + 1):
                if bits >> priority & 1 and priority not in self._logs:
                    self._logs[priority] = self._find(priority)
            self._known = bits
        return sorted(self._logs.items(), reverse=True, key=lambda each: each[0])

    def _find(self, priority: int) -> Log:
        try:
            return self._open_level(priority, False)
        except QueueNotFound:
            raise QueueDeleted(f"{self.label} was deleted") from None

    def logs(self) -> list[Log]:
        return [log for _, log in self.by_priority()]

    # ---- putting -------------------------------------------------------------------------------

    def put(
        self,
        item: object,
        block: bool = True,
        timeout: float | None = None,
        *,
        durability: str | None = None,
    ) -> None:
        self._base.put(item, block, timeout, durability=durability)
        self._base.ring()

    def put_nowait(self, item: object) -> None:
        self.put(item, False)

    def put_many(
        self,
        items: Iterable[object],
        block: bool = True,
        timeout: float | None = None,
        *,
        durability: str | None = None,
    ) -> int:
        return self.level(0).put_many(items, block, timeout, durability)

    def send(
        self,
        item: object,
        subject: bytes | None = None,
        headers: bytes | None = None,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> None:
        self.level(0).send(item, subject, headers, ttl_ms, block, timeout, durability)

    def send_raw(
        self,
        kind: int,
        payload: Any,
        subject: bytes | None = None,
        headers: bytes | None = None,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
        beyond: bool = False,
    ) -> None:
        self.level(0).send_raw(kind, payload, subject, headers, ttl_ms, block, timeout, durability, beyond)

    def send_many(
        self,
        items: Iterable[Any],
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> int:
        return self.level(0).send_many(items, block, timeout, durability)

    def flush(self, timeout: float | None = None) -> None:
        for log in self.logs():
            log.flush(timeout)

    def put_records(self, *parts: Any) -> int:
        try:
            return self._base.put_records(*parts)
        finally:
            self._base.ring()

    def peek(self, block: bool = True, timeout: float | None = None) -> tuple[int, bytes, int] | None:
        grace = None if block else timeout
        return self.first(lambda log: log.peek(False, grace), block, timeout)

    def take_records(self, kind: int, head: bytes, items: Any, item: int) -> int:
        """Of the highest priority that has such records."""
        return next((done for log in self.logs() if (done := log.take_records(kind, head, items, item))), 0)

    def borrow(self, size: int, block: bool = True, timeout: float | None = None) -> Loan:
        return self.level(0).borrow(size, block, timeout)

    def commit(self, loan: Loan, *parts: Any) -> None:
        self.level(0).commit(loan, *parts)

    def encode(self, item: object) -> tuple[int, bytes]:
        return self._base.encode(item)

    # ---- taking --------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        grace = None if block else timeout
        try:
            return self.first(lambda log: log.get(False, grace), block, timeout)
        except Stalled:
            raise
        except Empty:
            if self.on_empty is None:
                raise
            return self._get_after_all(self.on_empty)

    def _get_after_all(self, on_empty: Callable[[], Callable[[], None] | None]) -> Any:
        found = on_empty()
        item = self.first(lambda log: log.get(False), False, None)
        if found is not None:
            found()
        return item

    def get_nowait(self) -> Any:
        return self.get(False)

    def get_many(
        self, limit: int | None = None, block: bool = True, timeout: float | None = None
    ) -> list[Any]:
        """Of one priority."""
        grace = None if block else timeout
        return self.first(lambda log: log.get_many(limit, False, grace), block, timeout)

    def first(
        self,
        take: Callable[[Log], R],
        block: bool,
        timeout: float | None,
        look_around: Callable[[], None] = lambda: None,
    ) -> R:
        """What `take` gets from the highest priority that has something. Raises Empty, ShutDown.

        `look_around` is called whenever it is about to sleep.
        """
        if block and timeout is not None and not timeout >= 0:
            raise ValueError("'timeout' must be a non-negative number")
        deadline = None if timeout is None or not block else time.monotonic() + timeout
        while True:
            heard = self._base.listen() if block else 0
            self._look_at_alarm()
            levels, ended, stalled, empty = self.logs(), 0, None, None
            for log in levels:
                try:
                    return take(log)
                except Stalled as error:
                    stalled = error  # the others go on
                except Empty as error:
                    empty = error
                except ShutDown:
                    ended += 1
                    if ended == len(levels) == len(self.logs()):
                        raise
                    if log is self._base:
                        self._shut_down_the_others()
            look_around()
            if not block:
                raise stalled or empty or Empty()
            try:
                left = None if deadline is None else max(deadline - time.monotonic(), 0)
                self._base.wait_for_bell(heard, left)
            except Empty:
                if stalled:
                    raise stalled from None
                raise

    def _shut_down_the_others(self) -> None:
        """Whoever shut down the lowest may have died over it. Was it `immediate`? Nobody knows any more:
        what the others have is not discarded."""
        still_open = [log for log in self.logs() if not log.info()["shut_down"]]
        for log in still_open:
            log.shutdown()
        if still_open:
            self._base.ring()

    def _look_at_alarm(self) -> None:
        """Before the highest priority is tried: what is due may be of that one."""
        when, call = self._base.alarm(), self._base.on_alarm
        if when and call is not None and when <= time.time_ns():
            call()

    # ---- groups --------------------------------------------------------------------------------

    def group(self) -> LevelsGroup:
        return LevelsGroup(self, lambda log: log.group())

    def open_group(
        self,
        name: str,
        pattern: str = "",
        *,
        policy: int = 0,
        from_start: bool = False,
        lossy: bool = False,
        ends_with_us: bool = False,
        start: tuple[int, int] | None = None,
    ) -> tuple[LevelsGroup, bool]:
        def open_one(log: Log) -> tuple[Group, bool]:
            return log.open_group(
                name,
                pattern,
                policy=policy,
                from_start=from_start,
                lossy=lossy,
                ends_with_us=ends_with_us,
            )

        _, made = open_one(self._base)  # first: who adds a level looks for groups there
        group = LevelsGroup(self, lambda log: open_one(log)[0])
        group.members()
        return group, made

    def groups(self) -> list[dict[str, Any]]:
        """One for each name, with the numbers of all levels together."""
        together: dict[str, dict[str, Any]] = {}
        for log in reversed(self.logs()):  # what is not summed up comes from priority 0
            for one in log.groups():
                known = together.setdefault(one["name"], one)
                if known is not one:
                    together[one["name"]] = _sum(known, one)
        return list(together.values())

    # ---- descriptors ---------------------------------------------------------------------------

    def watch_space(self, timed: bool = False) -> Watch:
        """For priority 0; a Level's is its own."""
        return self._base.watch_space(timed)

    def watch_join(self, timed: bool = False) -> Watch:
        return self._base.watch_join(timed)

    # ---- looking -------------------------------------------------------------------------------

    def size(self) -> int:
        return sum(log.size() for log in self.logs())

    def full(self) -> bool:
        return self._base.full()

    def info(self) -> dict[str, Any]:
        together = self._base.info()
        for log in self.logs():
            if log is not self._base:
                one = log.info()
                for each in ("next_sequence", "ready", "unfinished", "used_bytes", "pool_used"):
                    together[each] += one[each]
        return together

    @property
    def is_stored(self) -> bool:
        return self._base.is_stored

    @property
    def path(self) -> str:
        return self._base.path

    @property
    def label(self) -> str:
        return self._base.label

    @property
    def closed(self) -> bool:
        return self._base.closed

    # ---- the alarm is priority 0's -------------------------------------------------------------

    @property
    def on_alarm(self) -> Callable[[], None] | None:
        return self._base.on_alarm

    @on_alarm.setter
    def on_alarm(self, call: Callable[[], None] | None) -> None:
        self._base.on_alarm = call

    def set_alarm(self, when_ns: int) -> None:
        self._base.set_alarm(when_ns)

    def alarm(self) -> int:
        return self._base.alarm()

    # ---- tasks, ending -------------------------------------------------------------------------

    def task_done(self) -> None:
        """Nobody says of which priority the item was: only the sum counts."""
        for log in self.logs():
            try:
                return log.task_done()
            except ValueError:
                continue
        raise ValueError("task_done() called too many times")

    def join(self, timeout: float | None = None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.info()["unfinished"]:
            for log in self.logs():
                log.join(None if deadline is None else max(deadline - time.monotonic(), 0))

    def shutdown(self, immediate: bool = False) -> None:
        self._base.shutdown(immediate)  # first: who adds a level looks there
        for log in self.logs():
            log.shutdown(immediate)
        self._base.ring()

    def leave(self) -> None:
        for log in self._logs.values():
            log.leave()

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
        self._base.ring()


class Level:
    """What producers use: the log of one priority, and the bell."""

    def __init__(self, log: Log, bell: NativeLog) -> None:
        self._log = log
        self._bell = bell

    def send(self, *parts: Any) -> None:
        self._log.send(*parts)
        self._bell.ring()

    def send_raw(self, *parts: Any) -> None:
        self._log.send_raw(*parts)
        self._bell.ring()

    @property
    def label(self) -> str:
        return self._log.label

    def info(self) -> dict[str, Any]:
        return self._log.info()

    def encode(self, item: object) -> tuple[int, Any]:
        return self._log.encode(item)

    def borrow(self, size: int, block: bool = True, timeout: float | None = None) -> Loan:
        return self._log.borrow(size, block, timeout)

    def commit(self, loan: Loan, *parts: Any) -> None:
        self._log.commit(loan, *parts)
        self._bell.ring()

    def put_many(
        self, items: Iterable[object], block: bool, timeout: float | None, durability: str | None = None
    ) -> int:
        return self._in_pieces(partial(self._log.put_many, durability=durability), items, block, timeout)

    def send_many(
        self,
        items: Iterable[Any],
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> int:
        return self._in_pieces(partial(self._log.send_many, durability=durability), items, block, timeout)

    def _in_pieces(
        self,
        put: Callable[..., int],
        items: Iterable[Any],
        block: bool,
        timeout: float | None,
    ) -> int:
        """So that consumers hear of the first ones while producers wait for room for the others."""
        deadline = None if timeout is None or not block else time.monotonic() + timeout
        done = 0
        for piece in _pieces(items):
            left = timeout if deadline is None else max(deadline - time.monotonic(), 0)
            try:
                done += put(piece, block, left)
            except BaseException as error:
                error.put = done + getattr(error, "put", 0)  # type: ignore[attr-defined]
                raise
            finally:
                self._bell.ring()
        return done

    def group(self) -> Group:
        return self._log.group()

    def watch_space(self, timed: bool = False) -> Watch:
        return self._log.watch_space(timed)


class LevelsGroup:
    """A Group, as contract.py has it, of all levels."""

    def __init__(self, log: Levels, open_one: Callable[[Log], Group]) -> None:
        self.log = log
        self._open_one = open_one
        self._members: dict[Log, Group] = {}
        self._stopped = False

    def members(self) -> list[Group]:
        return [self._member(log) for log in self.log.logs()]

    def _member(self, log: Log) -> Group:
        group = self._members.get(log)
        if group is None:
            group = self._members[log] = self._open_one(log)
        return group

    # ---- receiving -----------------------------------------------------------------------------

    def receive(
        self,
        limit: int,
        lease: float,
        block: bool,
        timeout: float | None,
        message_type: type[M],
        into: Any = None,
        holder: Any = None,
    ) -> list[M]:
        grace = None if block else timeout
        return self.log.first(
            lambda log: self._member(log).receive(limit, lease, False, grace, message_type, into, holder),
            block,
            timeout,
            self._look_around,
        )

    def take(
        self,
        limit: int,
        block: bool,
        timeout: float | None,
        message_type: type[M],
        into: Any = None,
        holder: Any = None,
    ) -> list[M]:
        grace = None if block else timeout
        return self.log.first(
            lambda log: self._member(log).take(limit, False, grace, message_type, into, holder),
            block,
            timeout,
            self._look_around,
        )

    def _look_around(self) -> None:
        if self._stopped:
            raise ValueError(f"{self.log.label}: this consumer was closed before")

    def interrupt(self) -> None:
        self._stopped = True
        self.log._base.ring()

    def restore(self, message_type: type[M], *parts: Any) -> M:
        return self._member(self.log._base).restore(message_type, *parts)

    def watch(self, timed: bool = False) -> Watch:
        return self.log._base.watch_bell(timed)

    # ---- settling ------------------------------------------------------------------------------

    def settle_one(self, message: Message[Any], patience: float | None = None) -> bool:
        return message.group.settle_one(message, patience)

    def settle(self, messages: Iterable[Message[Any]], patience: float | None = None) -> list[Message[Any]]:
        return [lost for group, part in _by_group(messages) for lost in group.settle(part, patience)]

    def give_back(
        self,
        messages: Iterable[Message[Any]],
        delay: float = 0,
        unseen: bool = False,
        wait: bool = True,
        patience: float | None = None,
    ) -> list[Message[Any]]:
        with self._ringing():
            return [
                lost
                for group, part in _by_group(messages)
                for lost in group.give_back(part, delay, unseen, wait, patience)
            ]

    def extend(self, message: Message[Any], seconds: float | None, patience: float | None = None) -> bool:
        return message.group.extend(message, seconds, patience)

    @contextmanager
    def _ringing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.log._base.ring()

    # ---- looking, ending -----------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        first, *others = [each.info() for each in reversed(self.members())]
        for other in others:
            first = _sum(first, other)
        return first

    def holdings(self) -> list[dict[str, Any]]:
        return [each for group in self.members() for each in group.holdings()]

    def seek(self, sequence: int = 0, time_ns: int = 0) -> None:
        for group in self.members():
            group.seek(sequence, time_ns)

    def set_pattern(self, pattern: str) -> None:
        for group in self.members():
            group.set_pattern(pattern)

    def count_rejected(self, by: int = 1) -> None:
        self._member(self.log._base).count_rejected(by)

    def count_expired(self, by: int = 1) -> None:
        self._member(self.log._base).count_expired(by)

    def count_dropped(self, by: int = 1) -> None:
        self._member(self.log._base).count_dropped(by)

    def abandon(self) -> None:
        for group in self.members():
            group.abandon()

    def remove(self) -> None:
        for group in self.members():
            group.remove()


def check_priority(priority: int) -> None:
    """Raises ValueError."""
    if not isinstance(priority, int) or not 0 <= priority <= HIGHEST:
        raise ValueError(f"'priority' is a whole number from 0 to {HIGHEST}, the highest; not {priority!r}")


def _pieces(items: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(items)
    while piece := list(islice(left, _AT_ONCE)):
        yield piece


def _by_group(messages: Iterable[Message[Any]]) -> list[tuple[Group, list[Message[Any]]]]:
    parts: dict[Group, list[Message[Any]]] = {}
    for message in messages:
        parts.setdefault(message.group, []).append(message)
    return list(parts.items())


_NUMBERS = (
    *("ready", "in_flight", "delivered", "acknowledged", "redelivered", "returned"),
    *("rejected", "expired", "dropped", "lost", "lag_bytes"),
)


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    oldest = [each["oldest_ns"] for each in (one, other) if each["oldest_ns"]]
    return {
        **one,
        **{name: one[name] + other[name] for name in _NUMBERS},
        "oldest_ns": min(oldest, default=0),
    }
