"""Producer: sends messages with headers, a time to live, and what else a message can say beside its body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ringpost.aio.loan import Loan
from ringpost.aio.storing import Storing
from ringpost.aio.waiting import GRACE, Waiting
from ringpost.errors import Full, Stalled
from ringpost.loan import Loan as SyncLoan
from ringpost.loan import Order
from ringpost.producer import Batch as SyncBatch
from ringpost.producer import Producer as SyncProducer

if TYPE_CHECKING:
    from ringpost.broker import Durability
    from ringpost.producer import Overflow

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 1024  # messages in one call, between two turns of the loop's other tasks
_PAUSE = 0.001  # seconds, where all is in consumers' hands and nothing may be dropped


class Producer(Generic[T]):
    """Sends to one queue. Made by `Queue.producer()`; may be used by several tasks.

    When send() returns, the message is in the queue; if it is cancelled, it is not. As a context manager it
    closes nothing but itself.
    """

    def __init__(self, sync: SyncProducer[T], overflow: Overflow) -> None:
        """`sync` raises Full, always."""
        self._sync = sync
        self._overflow = overflow
        self._room: dict[int, Waiting] = {}  # of each priority
        sync._grace = GRACE

    async def send(
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
        timeout: float | None = None,
        durability: Durability | None = None,
    ) -> bool:
        """Send one message. Arguments, result and errors are those of ringpost.Producer.send().

        Cancelled while it waits for room, it has sent nothing; while it waits for the disk, the message is in
        the queue, and perhaps not yet on disk.
        """

        def attempt() -> bool:
            return self._sync.send(
                body,
                headers=headers,
                ttl=ttl,
                delay=delay,
                not_before=not_before,
                priority=priority,
                key=key,
                message_id=message_id,
                correlation_id=correlation_id,
                reply_to=reply_to,
                content_type=content_type,
                durability=durability,
            )

        if not self._sync._log.is_stored:
            return await self._until_room(priority, attempt, timeout)
        if delay is not None or not_before is not None or self._sync._window is not None:
            return await self._in_thread(attempt, timeout)  # what is kept aside is committed at once
        storing = Storing()
        sent = await self._until_room(priority, lambda: storing.attempt(attempt), timeout)
        await storing.wait(timeout)
        return sent

    async def _in_thread(self, attempt: Callable[[], bool], timeout: float | None) -> bool:
        """Where it is full, again after a moment."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            try:
                return await asyncio.to_thread(attempt)
            except Stalled:
                raise  # it may have been put; and is no lack of room
            except Full:
                if self._overflow == "raise" or (deadline is not None and loop.time() >= deadline):
                    raise
            if self._overflow == "drop-oldest":
                self._sync._drop_one(self._sync._log)
            await asyncio.sleep(_PAUSE)

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

        async with producer.loan((1080, 1920, 3), "u1") as array:
            camera.read_into(array)

        Arguments and errors are those of ringpost.Producer.loan().
        """

        def borrow() -> SyncLoan:
            return self._sync.loan(
                shape,
                dtype,
                order=order,
                headers=headers,
                ttl=ttl,
                priority=priority,
                key=key,
                message_id=message_id,
                correlation_id=correlation_id,
                reply_to=reply_to,
                content_type=content_type,
                durability=durability,
            )

        return Loan(borrow, lambda attempt: self._until_room(priority, attempt, timeout), timeout)

    async def send_many(
        self,
        bodies: Iterable[T],
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        priority: int = 0,
        timeout: float | None = None,
    ) -> int:
        """Send bodies in order, many in one commit, all with these headers; much faster than one send() each.

        Returns how many were sent. Raises what send() raises; the exception's attribute `put`, a
        CancelledError's too, then says how many went in before it.
        """

        storing = Storing()

        def send(piece: list[T]) -> int:
            return storing.attempt(
                lambda: self._sync.send_many(piece, headers=headers, ttl=ttl, priority=priority)
            )

        done = await in_pieces(
            bodies, send, lambda attempt, left: self._until_room(priority, attempt, left), timeout
        )
        await storing.wait(timeout)
        return done

    async def _until_room(self, priority: int, attempt: Callable[[], R], timeout: float | None) -> R:
        if self._overflow == "block":
            return await self._waiting(priority).until(attempt, timeout)
        while True:
            try:
                return attempt()
            except Stalled:
                raise
            except Full:
                if self._overflow == "raise":
                    raise
            to = self._sync._log if not priority else self._sync._level(priority)
            await asyncio.sleep(0 if self._sync._drop_one(to) else _PAUSE)

    def _waiting(self, priority: int) -> Waiting:
        waiting = self._room.get(priority)
        if waiting is None:
            waiting = Waiting(lambda: self._watch(priority), wakes_all=True)
            self._room[priority] = waiting
        return waiting

    def _watch(self, priority: int) -> Any:
        to = self._sync._log if not priority else self._sync._level(priority)
        return to.watch_space()

    def batch(self, *, timeout: float | None = None) -> Batch[T]:
        """A context that gathers what is sent and sends it all at its end, in order:

        async with producer.batch() as batch:
            batch.send(order, headers={"shop": 7})
        """
        self._sync._check_open()
        return Batch(self, timeout)

    async def close(self) -> None:
        """This producer sends no more; its queue stays open."""
        self._sync.close()
        for waiting in self._room.values():
            waiting.close()

    async def __aenter__(self) -> Producer[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class Batch(Generic[T]):
    """What was sent in an `async with producer.batch()`. Nothing of it is sent if an exception leaves the
    block."""

    def __init__(self, producer: Producer[T], timeout: float | None) -> None:
        self._producer = producer
        self._timeout = timeout
        self._gathered = SyncBatch(producer._sync, None)
        self.send = self._gathered.send  # gathers: it waits for nothing

    async def __aenter__(self) -> Batch[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            return
        producer = self._producer
        storing = Storing()
        for priority, parts in self._gathered.runs():

            def send(piece: list[Any], priority: int = priority) -> int:
                return storing.attempt(lambda: producer._sync._put_many(priority, piece, None))

            def wait(attempt: Callable[[], int], left: float | None, priority: int = priority) -> Any:
                return producer._until_room(priority, attempt, left)

            await in_pieces(parts, send, wait, self._timeout)
        await storing.wait(self._timeout)


async def in_slices(
    count: int,
    put: Callable[[int], int],
    until_room: Callable[[Callable[[], int], float | None], Any],
    timeout: float | None,
) -> int:
    """Put `count` items, whose put() takes where to begin, as many at once as there is room for. As
    in_pieces()."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    done = 0

    def attempt() -> int:
        try:
            return put(done)
        except Full as full:
            some: int = getattr(full, "put", 0)
            if some == 0:
                raise
            return some

    try:
        while done < count:
            if done:
                await asyncio.sleep(0)
            remaining = None if deadline is None else max(deadline - loop.time(), 0)
            done += await until_room(attempt, remaining)
        return done
    except BaseException as error:
        error.put = done + getattr(error, "put", 0)  # type: ignore[attr-defined]
        raise


async def in_pieces(
    items: Iterable[Any],
    put: Callable[[list[Any]], int],
    until_room: Callable[[Callable[[], int], float | None], Any],
    timeout: float | None,
) -> int:
    """Put all items in order, as many at once as there is room for. An exception says in `put` how many are
    in."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    left = iter(items)
    done = 0
    piece: list[Any] = []

    def attempt() -> int:
        """At least one of the piece, or Full."""
        try:
            put(piece)
        except Full as full:
            some: int = getattr(full, "put", 0)
            if some == 0:
                raise
            del piece[:some]
            return some
        some = len(piece)
        piece.clear()
        return some

    try:
        while True:
            if not piece:
                piece.extend(islice(left, _AT_ONCE))
                if not piece:
                    return done
            if done:
                await asyncio.sleep(0)  # the loop's other tasks have a turn
            remaining = None if deadline is None else max(deadline - loop.time(), 0)
            done += await until_room(attempt, remaining)
    except BaseException as error:
        error.put = done + getattr(error, "put", 0)  # type: ignore[attr-defined]
        raise
