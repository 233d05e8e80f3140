"""Producer: sends messages with headers, a time to live, and what else a message can say beside its body."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ringpost._binding.contract import Loan as Room
from ringpost._binding.contract import Log
from ringpost.codecs import Kind
from ringpost.envelope import Envelope, seal
from ringpost.errors import Empty, Full, Stalled, Unsupported
from ringpost.loan import Loan, Order, Way, check_takes_arrays
from ringpost.message import Message

if TYPE_CHECKING:
    from ringpost.broker import Durability
    from ringpost.dedup import Window
    from ringpost.levels import Level, Levels
    from ringpost.sidestore import SideStore

T = TypeVar("T")
R = TypeVar("R")
Overflow = Literal["block", "raise", "drop-oldest"]
Parts = tuple[object, "bytes | None", "bytes | None", int]

_PAUSE = 0.002  # seconds between two looks for room
_LONGEST_TTL = 2**32 / 1000  # seconds: a frame counts milliseconds in 32 bits


class Producer(Generic[T]):
    """Sends to one queue. Made by `Queue.producer()`; may be used by several threads.

    When send() returns, the message is in the queue. As a context manager it closes nothing but itself.
    """

    def __init__(
        self,
        log: Log,
        *,
        overflow: Overflow = "block",
        ttl: float | None = None,
        dedup_window: float | None = None,
        store: Callable[[], SideStore] | None = None,
        levels: Levels | None = None,
        durability: Durability | None = None,
    ) -> None:
        if overflow not in ("block", "raise", "drop-oldest"):
            raise ValueError(f"'overflow' is 'block', 'raise' or 'drop-oldest', not {overflow!r}")
        self._log = log
        self._overflow = overflow
        self._ttl = ttl
        self._store = store
        self._levels = levels
        self._durability = durability
        self._window: Window | None = None
        self._grace: float | None = None  # as a Consumer's
        if dedup_window is not None:
            from ringpost.dedup import Window

            self._window = Window(log, self._need_store(), dedup_window)
        self._lends = False  # it was checked
        self._closed = False

    def send(
        self,
        body: T,
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        delay: float | None = None,
        not_before: datetime | None = None,
        priority: int = 0,
        key: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        durability: Durability | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Send one message; when this returns it is in the queue, for every process to see.

        Returns False, and sends nothing, if this producer has a `dedup_window` and `message_id` was sent in
        it.

        Args:
            headers: str to what MessagePack knows.
            ttl: seconds after which nobody wants it any more (at most 49 days): it is then not delivered,
                but goes to the dead letters where the consumer has them.
            delay: seconds until it is put into the queue; its ttl begins then.
            not_before: the same, as a time (with a time zone).
            priority: 0 to 9: the highest is handed out first, first-in first-out within one. The queue must
                have been opened with priorities=True.
            key: what it is about.
            message_id: its name; Message.id.
            correlation_id, reply_to: for answers; see Broker.request().
            content_type: what the body is, if the consumer cannot know.
            durability: as for Queue.put(); None: this producer's.
            timeout: seconds to wait for room, where this producer waits at all; None: for ever.

        Raises:
            Full: no room within the timeout, or at once where overflow="raise".
            ShutDown, QueueDeleted, MessageTooLarge, EncodeError: as Queue.put().
            StorageFailed, Stalled: as Queue.put(). With a `dedup_window` the same message_id once more puts
                no copy; it returns False when the message is stored.
            SegmentFull: no room in shared memory for what is kept aside.
            Unsupported: a priority, and the queue has none.
            ValueError: a priority or a ttl out of range; delay and not_before together, or for an
                anonymous queue; this producer is closed.
        """
        self._check_open()
        to = self._log if not priority else self._level(priority)
        envelope = None
        if headers or key or message_id or correlation_id or reply_to or content_type or priority:
            envelope = seal(
                Envelope(
                    headers=dict(headers) if headers else None,
                    message_id=message_id,
                    correlation_id=correlation_id,
                    reply_to=reply_to,
                    content_type=content_type,
                    key=key,
                    priority=priority,
                )
            )
        if ttl is None:
            ttl = self._ttl
        ttl_ms = 0 if ttl is None else milliseconds(ttl)
        due_ns = None if delay is None and not_before is None else _due_ns(delay, not_before)
        if self._window is not None and message_id is not None:
            return self._put_once(to, message_id, body, envelope, ttl_ms, due_ns, timeout, durability)
        if due_ns is None:
            self._put(to, body, envelope, ttl_ms, timeout, durability)
        else:
            self._schedule(due_ns, body, envelope, ttl_ms, priority)
        return True

    def loan(
        self,
        shape: int | Sequence[int],
        dtype: Any = float,
        *,
        order: Order = "C",
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        priority: int = 0,
        key: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        timeout: float | None = None,
        durability: Durability | None = None,
    ) -> Loan:
        """Room for a numpy array in shared memory, to be filled in place and sent without being copied:

        with producer.loan((1080, 1920, 3), "u1") as array:
            camera.read_into(array)

        Args:
            shape, dtype, order: of the array; its content is arbitrary at first.
            timeout: seconds to wait for room, here and at the end.
            headers, ttl, priority, key, message_id, correlation_id, reply_to, content_type, durability: as
                for send().

        Raises:
            Full, ShutDown, QueueDeleted, Stalled, StorageFailed: as send(), here and at the end.
            MessageTooLarge: it could never fit.
            EncodeError: a dtype with Python objects, or a queue whose messages are of another type.
            TypeError: lengths that are no integers, a dtype that is none.
            Unsupported: a priority, and the queue has none.
            ValueError: as send(); a message_id where this producer has a `dedup_window`.
        """
        self._check_open()
        if self._window is not None and message_id is not None:
            raise ValueError("a loan cannot be looked for among duplicates: send() the array")
        to = self._log if not priority else self._level(priority)
        if not self._lends:
            check_takes_arrays(self._log)
            self._lends = True
        envelope = None
        if headers or key or message_id or correlation_id or reply_to or content_type or priority:
            envelope = seal(
                Envelope(
                    headers=dict(headers) if headers else None,
                    message_id=message_id,
                    correlation_id=correlation_id,
                    reply_to=reply_to,
                    content_type=content_type,
                    key=key,
                    priority=priority,
                )
            )
        ttl_ms = milliseconds(self._ttl if ttl is None else ttl)

        def commit(room: Room, subject: int, headers: int) -> None:
            def send(block: bool, patience: float | None) -> None:
                to.commit(
                    room,
                    Kind.NDARRAY,
                    subject,
                    headers,
                    ttl_ms,
                    block,
                    patience,
                    durability or self._durability,
                )

            self._with_room(to, send, timeout)

        def borrow(size: int) -> Room:
            return self._with_room(to, lambda block, patience: to.borrow(size, block, patience), timeout)

        return Loan(shape, dtype, order, Way(borrow, commit, b"", envelope or b""))

    def _level(self, priority: int) -> Level:
        if self._levels is None:
            raise Unsupported(
                f"{self._log.label} has no priorities: make it with broker.queue(name, priorities=True)"
            )
        return self._levels.level(priority)

    def _schedule(
        self, due_ns: int, body: object, envelope: bytes | None, ttl_ms: int, priority: int
    ) -> None:
        from ringpost.scheduled import Schedule
        from ringpost.stored import Stored

        kind, payload = self._log.encode(body)
        stored = Stored(kind, payload, None, envelope, ttl_ms, time.time_ns(), priority)
        Schedule(self._log, self._need_store()).add(due_ns, stored)

    def _put_once(
        self,
        to: Log | Level,
        message_id: str,
        body: object,
        envelope: bytes | None,
        ttl_ms: int,
        due_ns: int | None,
        timeout: float | None,
        durability: Durability | None,
    ) -> bool:
        """Ids are looked at by one process at a time, so nobody waits for room meanwhile."""
        assert self._window is not None
        if due_ns is not None:
            raise ValueError("a message with a delay cannot be looked for among duplicates: send it without")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._window.send_once(
                    message_id,
                    to,
                    lambda: to.send(
                        body, None, envelope, ttl_ms, False, self._grace, durability or self._durability
                    ),
                )
            except Stalled:
                raise  # it may have been put; and is no lack of room
            except Full:
                if self._overflow == "raise" or (deadline is not None and time.monotonic() >= deadline):
                    raise
            if self._overflow == "drop-oldest":
                self._drop_oldest(to)
            else:
                time.sleep(_PAUSE)

    def _need_store(self) -> Callable[[], SideStore]:
        if self._store is None:
            raise ValueError(
                "an anonymous queue keeps nothing aside: open one by name, with connect().queue()"
            )
        return self._store

    def _put(
        self,
        to: Log | Level,
        body: object,
        envelope: bytes | None,
        ttl_ms: int,
        timeout: float | None,
        durability: Durability | None = None,
    ) -> None:
        durability = durability or self._durability
        if self._overflow == "block":  # the usual way, without a detour
            to.send(body, None, envelope, ttl_ms, True, timeout, durability)
            return
        self._with_room(
            to,
            lambda block, patience: to.send(body, None, envelope, ttl_ms, block, patience, durability),
            timeout,
        )

    def _with_room(
        self, to: Log | Level, attempt: Callable[[bool, float | None], R], timeout: float | None
    ) -> R:
        """What needs room, as this producer gets it."""
        if self._overflow == "block":
            return attempt(True, timeout)
        while True:
            try:
                return attempt(False, self._grace)
            except Stalled:
                raise  # it may have been put; and is no lack of room
            except Full:
                if self._overflow == "raise":
                    raise
            self._drop_oldest(to)

    def send_many(
        self,
        bodies: Iterable[T],
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        priority: int = 0,
        timeout: float | None = None,
    ) -> int:
        """Send bodies in order, many in one commit, all with these headers; much faster than one send() each.

        Returns how many were sent. Raises what send() raises; the exception's attribute `put` then says how
        many went in before it.
        """
        self._check_open()
        envelope = seal(Envelope(headers=dict(headers) if headers else None, priority=priority))
        ttl_ms = milliseconds(self._ttl if ttl is None else ttl)
        parts = ((body, None, envelope, ttl_ms) for body in bodies)
        return self._put_many(priority, parts, timeout)

    def _put_many(self, priority: int, parts: Iterable[Parts], timeout: float | None) -> int:
        to = self._log if not priority else self._level(priority)
        if self._overflow != "drop-oldest":
            block = self._overflow == "block"
            return to.send_many(parts, block, timeout if block else self._grace, self._durability)
        sent = 0
        for body, _, envelope, ttl_ms in parts:
            self._put(to, body, envelope, ttl_ms, None)
            sent += 1
        return sent

    def batch(self, *, timeout: float | None = None) -> Batch[T]:
        """A context that gathers what is sent and sends it all at its end, in order:

        with producer.batch() as batch:
            batch.send(order, headers={"shop": 7})
        """
        self._check_open()
        return Batch(self, timeout)

    def _drop_oldest(self, to: Log | Level) -> None:
        if not self._drop_one(to):
            time.sleep(0.001)

    def _drop_one(self, to: Log | Level) -> bool:
        """False: all of it is in consumers' hands, and nothing may be dropped."""
        group = to.group()
        try:
            dropped: list[Message[Any]] = group.take(1, False, self._grace, Message)
        except Empty:
            return False
        group.count_dropped(len(dropped))
        return True

    def close(self) -> None:
        """This producer sends no more; its queue stays open."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this producer was closed before")

    def __enter__(self) -> Producer[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Batch(Generic[T]):
    """What was sent in a `with producer.batch()`. Nothing of it is sent if an exception leaves the block."""

    def __init__(self, producer: Producer[T], timeout: float | None) -> None:
        self._producer = producer
        self._timeout = timeout
        self._parts: list[tuple[int, Parts]] = []  # each with its priority

    def send(
        self,
        body: T,
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        priority: int = 0,
        key: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """As Producer.send(), at the end of the block. The body must not be changed before that."""
        envelope = Envelope(
            headers=dict(headers) if headers else None,
            message_id=message_id,
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type=content_type,
            key=key,
            priority=priority,
        )
        if priority:
            self._producer._level(priority)
        ttl_ms = milliseconds(self._producer._ttl if ttl is None else ttl)
        self._parts.append((priority, (body, None, seal(envelope), ttl_ms)))

    def __enter__(self) -> Batch[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            return
        for priority, parts in self.runs():
            self._producer._put_many(priority, parts, self._timeout)

    def runs(self) -> Iterator[tuple[int, list[Parts]]]:
        """What was sent, in pieces of one priority."""
        for priority, run in groupby(self._parts, key=lambda each: each[0]):
            yield priority, [parts for _, parts in run]


def milliseconds(ttl: float | None) -> int:
    """As a frame counts it; 0: for ever. A ttl of 0 is over at once, so the least is 1."""
    if ttl is None:
        return 0
    if not 0 <= ttl < _LONGEST_TTL:
        raise ValueError(f"'ttl' must be between 0 and {_LONGEST_TTL:.0f} seconds, or None; not {ttl}")
    return max(int(ttl * 1000), 1)


def _due_ns(delay: float | None, not_before: datetime | None) -> int | None:
    """CLOCK_REALTIME; None: now."""
    if delay is not None and not_before is not None:
        raise ValueError("'delay' or 'not_before', not both")
    if not_before is not None:
        if not_before.tzinfo is None:
            raise ValueError(f"'not_before' needs a time zone: {not_before!r} has none")
        return int(not_before.timestamp() * 1e9)
    if delay is None:
        return None
    if not 0 <= delay < 1e9:
        raise ValueError(f"'delay' must be a non-negative number of seconds, not {delay}")
    return time.time_ns() + int(delay * 1e9)
