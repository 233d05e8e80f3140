"""Queue: each message to one consumer."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from ringpost.aio.consumer import Consumer, ConsumerBelow
from ringpost.aio.deadletters import DeadLetters
from ringpost.aio.producer import Producer, in_pieces, in_slices
from ringpost.aio.storing import Storing
from ringpost.aio.waiting import GRACE, Waiting
from ringpost.errors import Full, ShutDown
from ringpost.queue import Queue as SyncQueue
from ringpost.records import parts_of, take

if TYPE_CHECKING:
    import numpy

    from ringpost.backoff import Backoff
    from ringpost.broker import Durability
    from ringpost.producer import Overflow
    from ringpost.stats import QueueStats

T = TypeVar("T")
R = TypeVar("R")


class Queue(Generic[T]):
    """A first-in first-out queue between tasks, threads and processes, in shared memory.

    `Queue()` makes an anonymous one; `Broker.queue(name)` opens one by name. Other processes may use the same
    queue through ringpost.Queue: `Queue.of(queue)` is another handle of one, for tasks.

    What may wait is a coroutine; cancelling one neither takes nor puts. Any number of tasks, in the loops of
    any number of threads, may wait in one handle.
    """

    def __init__(self, maxsize: int = 0, *, capacity: int | None = None) -> None:
        """As ringpost.Queue()."""
        self._take_over(SyncQueue(maxsize, capacity=capacity))

    @classmethod
    def of(cls, queue: SyncQueue[R]) -> Queue[R]:
        """A handle for tasks of a queue that was opened otherwise. Both are closed on their own."""
        return cls._over(copy.copy(queue))

    @classmethod
    def _over(cls, sync: SyncQueue[R]) -> Queue[R]:
        queue: Queue[Any] = cls.__new__(cls)
        queue._take_over(sync)
        return queue

    def _take_over(self, sync: SyncQueue[T]) -> None:
        self._sync = sync
        sync._consumer_type = ConsumerBelow
        self._items = Waiting(lambda: sync._log.group().watch())
        self._room = Waiting(lambda: sync._log.watch_space(), wakes_all=True)
        self._tasks = Waiting(lambda: sync._log.watch_join(), wakes_all=True)

    @property
    def name(self) -> str | None:
        """The name under which it was opened."""
        return self._sync.name

    @property
    def path(self) -> str:
        """The file in shared memory, for programs in C."""
        return self._sync.path

    # ---- putting -------------------------------------------------------------------------------

    async def put(
        self, item: T, timeout: float | None = None, *, durability: Durability | None = None
    ) -> None:
        """Put one item, as soon as there is room; when this returns it is in the queue, for everybody to see,
        and as durable as was asked for.

        Cancelled while it waits for room, it has put nothing; while it waits for the disk, the item is in the
        queue, and perhaps not yet on disk.

        Raises Full after `timeout` seconds (0: at once), and what ringpost.Queue.put() raises.
        """
        log = self._sync._log
        if not log.is_stored and durability is None:
            await self._room.until(lambda: log.put(item, False, GRACE), timeout)
            return
        storing = Storing()

        def put() -> None:
            log.put(item, False, GRACE, durability=durability)

        await self._room.until(lambda: storing.attempt(put), timeout)
        await storing.wait(timeout)

    def put_nowait(self, item: T) -> None:
        """Put one item, or raise Full. It does not wait for the disk: flush() does."""
        log = self._sync._log
        if not log.is_stored:
            log.put(item, False, GRACE)
            return
        storing = Storing()
        storing.attempt(lambda: log.put(item, False, GRACE))
        storing.begin()

    async def put_many(
        self, items: Iterable[T], timeout: float | None = None, *, durability: Durability | None = None
    ) -> int:
        """Put items in order, many in one commit; much faster than one put() each. A structured numpy array
        is put as ringpost.Queue.put_many() does, at the speed of memory.

        Returns how many were put: all of them. Raises what put() raises; the exception's attribute `put`, a
        CancelledError's too, then says how many went in before it.
        """
        log, storing = self._sync._log, Storing()
        records = parts_of(items) if type(items) is not list and not self._sync._speech.is_checked else None
        if records is None:

            def put(piece: list[T]) -> int:
                return storing.attempt(lambda: log.put_many(piece, False, GRACE, durability=durability))

            done = await in_pieces(items, put, self._room.until, timeout)
        else:
            kind, head, buffer, size = records

            def put_records(start: int) -> int:
                left = buffer[start * size :]
                return storing.attempt(
                    lambda: log.put_records(kind, head, left, size, False, GRACE, durability)
                )

            done = await in_slices(len(buffer) // size, put_records, self._room.until, timeout)
        await storing.wait(timeout)
        return done

    async def flush(self, timeout: float | None = None) -> None:
        """Everything that was put, by any process, is on disk, and what this one got or acked. As
        ringpost.Queue.flush()."""
        if self._sync._log.is_stored:
            await asyncio.to_thread(self._sync.flush, timeout)

    # ---- getting -------------------------------------------------------------------------------

    async def get(self, timeout: float | None = None) -> T:
        """Take one item, as soon as there is one.

        Raises Empty after `timeout` seconds (0: at once), and what ringpost.Queue.get() raises.
        """
        return await self._items.until(self._get, timeout)

    def _get(self) -> T:
        item: T = self._sync._log.get(False, GRACE)
        return item

    def get_nowait(self) -> T:
        """Take one item, or raise Empty."""
        return self._get()

    @overload
    async def get_many(
        self, limit: int | None = None, timeout: float | None = None, *, as_array: Literal[False] = False
    ) -> list[T]: ...
    @overload
    async def get_many(
        self, limit: int | None = None, timeout: float | None = None, *, as_array: Literal[True]
    ) -> numpy.ndarray[Any, Any]: ...
    @overload
    async def get_many(
        self, limit: int | None = None, timeout: float | None = None, *, as_array: bool
    ) -> list[T] | numpy.ndarray[Any, Any]: ...
    async def get_many(
        self, limit: int | None = None, timeout: float | None = None, *, as_array: bool = False
    ) -> Any:
        """Take what is there, at most `limit` items (default 1024); wait for the first one only.

        With `as_array` records come as one structured numpy array, as from ringpost.Queue.get_many(). Raises
        what that raises.
        """
        log = self._sync._log
        if as_array:
            return await self._items.until(lambda: take(log, limit, False, GRACE), timeout)
        return await self._items.until(lambda: log.get_many(limit, False, GRACE), timeout)

    def __aiter__(self) -> Queue[T]:
        """Items until the queue is shut down."""
        return self

    async def __anext__(self) -> T:
        try:
            return await self._items.until(self._get)
        except ShutDown:
            raise StopAsyncIteration from None

    # ---- messages that are acked ---------------------------------------------------------------

    def producer(
        self,
        *,
        overflow: Overflow = "block",
        ttl: float | None = None,
        dedup_window: float | None = None,
        durability: Durability | None = None,
    ) -> Producer[T]:
        """A producer. Arguments and errors are those of ringpost.Queue.producer()."""
        if overflow not in ("block", "raise", "drop-oldest"):
            raise ValueError(f"'overflow' is 'block', 'raise' or 'drop-oldest', not {overflow!r}")
        sync = self._sync.producer(
            overflow="raise", ttl=ttl, dedup_window=dedup_window, durability=durability
        )
        return Producer(sync, overflow)

    def consumer(
        self,
        *,
        prefetch: int = 32,
        lease: float | None = None,
        group: str | None = None,
        auto_ack: bool = False,
        max_deliveries: int | None = None,
        backoff: Backoff | None = None,
        dead_letters: bool | str | None = None,
    ) -> Consumer[T]:
        """A consumer. Arguments and errors are those of ringpost.Queue.consumer()."""
        return Consumer(
            self._sync.consumer(
                prefetch=prefetch,
                lease=lease,
                group=group,
                auto_ack=auto_ack,
                max_deliveries=max_deliveries,
                backoff=backoff,
                dead_letters=dead_letters,
            )
        )

    def dead_letters(self, name: str | None = None) -> DeadLetters:
        """What could not be handled: the queue NAME.dead, or `name`. As ringpost.Queue.dead_letters()."""
        return DeadLetters(self._sync.dead_letters(name))

    def stats(self) -> QueueStats:
        """Numbers for people and monitors."""
        return self._sync.stats()

    # ---- looking -------------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many items wait. Exact; others may change it the next moment."""
        return self._sync.qsize()

    def empty(self) -> bool:
        """True if no item waits."""
        return self._sync.empty()

    def full(self) -> bool:
        """True if put_nowait() would raise Full, even for a tiny item."""
        return self._sync.full()

    @property
    def maxsize(self) -> int:
        """The most messages that wait; 0: bounded by bytes only."""
        return self._sync.maxsize

    @property
    def capacity(self) -> int:
        """Bytes of shared memory for messages."""
        return self._sync.capacity

    # ---- tasks ---------------------------------------------------------------------------------

    def task_done(self) -> None:
        """One item that was taken is done with. Raises ValueError if called more often than put()."""
        self._sync.task_done()

    async def join(self, timeout: float | None = None) -> None:
        """Wait until every item put was taken and task_done() called for it, by any process.

        Raises TimeoutError after `timeout` seconds (None: never).
        """

        def attempt() -> None:
            if self._sync._log.info()["unfinished"]:
                raise Full

        try:
            await self._tasks.until(attempt, timeout)
        except Full:
            raise TimeoutError(
                f"{self._sync._log.label}: tasks were still unfinished after {timeout} s"
            ) from None

    # ---- ending --------------------------------------------------------------------------------

    def shutdown(self, immediate: bool = False) -> None:
        """No process may put any more; get() takes what is left, then raises ShutDown."""
        self._sync.shutdown(immediate)

    @property
    def is_shutdown(self) -> bool:
        """True once any process has called shutdown()."""
        return self._sync.is_shutdown

    async def close(self) -> None:
        """This handle is done; the queue and other handles go on. Tasks that wait in it raise ValueError."""
        self._close()
        await asyncio.sleep(0)

    def _close(self) -> None:
        self._sync.close()
        for waiting in (self._items, self._room, self._tasks):
            waiting.close()

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._sync.closed

    async def __aenter__(self) -> Queue[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # ---- travelling ----------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _over, (self._sync,)

    def __repr__(self) -> str:
        return repr(self._sync).replace("ringpost.Queue", "ringpost.aio.Queue", 1)


def _over(sync: SyncQueue[Any]) -> Queue[Any]:
    return Queue._over(sync)
