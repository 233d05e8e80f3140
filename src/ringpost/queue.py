"""Queue: each message to one consumer, with the names, semantics and exceptions of queue.Queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from ringpost._binding.contract import Log
from ringpost.errors import Empty, ShutDown, Stalled
from ringpost.places import store_places
from ringpost.speech import Speech

if TYPE_CHECKING:
    import numpy

    from ringpost.backoff import Backoff
    from ringpost.broker import Broker, Durability
    from ringpost.consumer import Consumer
    from ringpost.deadletters import DeadLetters
    from ringpost.producer import Overflow, Producer
    from ringpost.readiness import Readiness
    from ringpost.stats import QueueStats

T = TypeVar("T")

_HOT = ("put", "put_nowait", "get", "get_nowait")


class Queue(Generic[T]):
    """A first-in first-out queue between threads and processes, in shared memory.

    `Queue()` makes an anonymous one, which replaces `multiprocessing.Queue()`: pass it to other processes
    as an argument, through a Pool or through another queue. `Broker.queue(name)` opens one by name.

    Args:
        maxsize: the most messages that wait in it; 0 or less: bounded by `capacity` only.
        capacity: bytes of shared memory for messages, allocated at once (default 16 MiB). Half of it
            is the pool for messages above 16 KiB, so the largest message has about capacity/2 bytes.

    Raises:
        SegmentFull: /dev/shm has no room for it.
        NotOurs: the directory in /dev/shm is not this user's own.
        ValueError: capacity below 128 KiB.

    Every call may be made from any thread and any process; after fork the child's handle just works. A closed
    handle raises ValueError. A process that is killed at any instruction never blocks the others.
    """

    name: str | None
    _log: Log
    _readiness: Readiness | None
    _speech = Speech()
    _consumer_type: type[Consumer[Any]] | None = None  # another one than Consumer

    def __init__(self, maxsize: int = 0, *, capacity: int | None = None) -> None:
        from ringpost import anonymous  # only who uses it pays for its at-exit machinery

        log = anonymous.create(capacity, maxsize)
        self._take_over(log, None, None)

    def _take_over(self, log: Log, name: str | None, broker: Broker | None) -> None:
        self._log = log
        self._broker = broker
        self._readiness = None
        self.name = name
        if type(self) is Queue:
            # the binding's own methods, with the same signatures: a Python frame less is 50 of 120 ns
            self.__dict__.update((each, getattr(log, each)) for each in _HOT)

    @classmethod
    def _of(cls, log: Log, name: str | None, broker: Broker | None) -> Queue[Any]:
        queue: Queue[Any] = cls.__new__(cls)
        queue._take_over(log, name, broker)
        return queue

    @property
    def path(self) -> str:
        """The file in shared memory, for programs in C: rp_attach() of native/include/ringpost.h."""
        return self._log.path

    # ---- putting -------------------------------------------------------------------------------

    def put(
        self,
        item: T,
        block: bool = True,
        timeout: float | None = None,
        *,
        durability: Durability | None = None,
    ) -> None:
        """Put one item; when this returns it is in the queue, for everybody to see.

        Args:
            block: wait for room.
            timeout: seconds to wait at most; None waits for ever. The disk gets five seconds at least.
            durability: of this item, where the queue is a durable broker's; None: the queue's.

        Raises:
            Full: no room, at once or within the timeout.
            Stalled: a lock's holder is stopped (a `Full` too).
            ShutDown, QueueDeleted: nobody may put any more.
            MessageTooLarge: it could never fit.
            EncodeError: it cannot be encoded for this queue.
            StorageFailed: it is not on disk, as it should be. It is in the queue all the same, and may be
                got.
        """
        self._log.put(item, block, timeout, durability=durability)

    def put_nowait(self, item: T) -> None:
        """put(item, block=False)."""
        self._log.put_nowait(item)

    def put_many(
        self,
        items: Iterable[T],
        block: bool = True,
        timeout: float | None = None,
        *,
        durability: Durability | None = None,
    ) -> int:
        """Put items in order, many in one commit; much faster than one put() each.

        A structured numpy array of one dimension is put at the speed of memory: each of its records is a
        message of its own, which get() returns as a record (numpy.void).

        Returns how many were put: all of them. Raises what put() raises; the exception's attribute
        `put` then says how many went in before it.
        """
        if type(items) is not list and not self._speech.is_checked:
            from ringpost.records import parts_of

            records = parts_of(items)
            if records is not None:
                return self._log.put_records(*records, block, timeout, durability)
        return self._log.put_many(items, block, timeout, durability=durability)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was put, by any process, is on disk, and what this one got or acked.
        Of a memory queue there is nothing to wait for.

        Raises StorageFailed; Stalled after `timeout` seconds (None: never).
        """
        self._log.flush(timeout)

    # ---- getting -------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take one item.

        Args:
            block: wait for an item.
            timeout: seconds to wait at most; None waits for ever.

        Raises:
            Empty: none there, at once or within the timeout.
            Stalled: a lock's holder is stopped (an `Empty` too).
            ShutDown, QueueDeleted: none there, and none will come.
            DecodeError: it cannot be decoded here; the exception carries it.
            CorruptLog: the shared memory was damaged.
        """
        item: T = self._log.get(block, timeout)
        return item

    def get_nowait(self) -> T:
        """get(block=False)."""
        item: T = self._log.get_nowait()
        return item

    @overload
    def get_many(
        self,
        limit: int | None = None,
        block: bool = True,
        timeout: float | None = None,
        *,
        as_array: Literal[False] = False,
    ) -> list[T]: ...
    @overload
    def get_many(
        self,
        limit: int | None = None,
        block: bool = True,
        timeout: float | None = None,
        *,
        as_array: Literal[True],
    ) -> numpy.ndarray[Any, Any]: ...
    @overload
    def get_many(
        self,
        limit: int | None = None,
        block: bool = True,
        timeout: float | None = None,
        *,
        as_array: bool,
    ) -> list[T] | numpy.ndarray[Any, Any]: ...
    def get_many(
        self,
        limit: int | None = None,
        block: bool = True,
        timeout: float | None = None,
        *,
        as_array: bool = False,
    ) -> Any:
        """Take what is there, at most `limit` items (default 1024); wait for the first one only.

        An item above 16 KiB comes in a batch of its own.

        With `as_array` they come as one structured numpy array, at the speed of memory: what put_many() put
        of such arrays, as far as it is there and of one dtype (default: at most 8192 records). Raises
        TypeError, and takes nothing, if the next message is no record; ImportError where numpy is missing.

        Raises what get() raises, and ValueError for a negative `limit`. A DecodeError carries the items that
        came with it (`items`, `more`); any other exception out of decoding, KeyboardInterrupt too, those
        decoded before it (`items`) and the bytes of the others (`payloads`).
        """
        try:
            if as_array:
                return self._get_records(limit, block, timeout)
            return self._log.get_many(limit, block, timeout)
        except Stalled:
            raise
        except Empty:
            if self._readiness is None:
                raise
            take: Callable[..., Any] = self._get_records if as_array else self._log.get_many
            return self._readiness.again(partial(take, limit, False))

    def _get_records(self, limit: int | None, block: bool, timeout: float | None = None) -> Any:
        from ringpost.records import take

        return take(self._log, limit, block, timeout)

    def fileno(self) -> int:
        """A descriptor that is readable while get_nowait() may succeed, for select, selectors, epoll,
        multiprocessing.connection.wait(), and loops.

        Take until Empty, or wait again and take more. It may be readable in vain: after another process was
        faster, and ten times a second. It is this handle's, until close(); a forked child asks for its own.

        Raises NotOurs, SegmentFull, QueueDeleted, and OSError where there are no descriptors left.
        """
        if self._readiness is None or not self._readiness.is_ours():
            from ringpost.readiness import Readiness

            self._readiness = Readiness(self._log.group().watch(True))
            self._log.on_empty = self._readiness.settler()
        return self._readiness.fileno()

    def __iter__(self) -> Iterator[T]:
        """Items until the queue is shut down."""
        while True:
            try:
                item = self.get()
            except ShutDown:
                return
            yield item

    # ---- messages that are acked ---------------------------------------------------------------

    def producer(
        self,
        *,
        overflow: Overflow = "block",
        ttl: float | None = None,
        dedup_window: float | None = None,
        durability: Durability | None = None,
    ) -> Producer[T]:
        """A producer: sends messages with headers, a time to live, and more.

        Args:
            overflow: what send() does without room: wait ("block"), raise Full ("raise"), or take away the
                oldest message that nobody holds ("drop-oldest").
            ttl: seconds to live of messages that say nothing else; None: for ever.
            dedup_window: seconds in which a message_id is sent once only, by all producers together that have
                a window; None: duplicates are not looked for.
            durability: of what it sends to a durable broker's queue; None: the queue's.

        Raises ValueError for a window of an anonymous queue.
        """
        from ringpost.levels import Levels
        from ringpost.producer import Producer

        store = None if self._broker is None else self._broker._engine.side_store
        levels = self._log if isinstance(self._log, Levels) else None
        return Producer(
            self._log,
            overflow=overflow,
            ttl=ttl,
            dedup_window=dedup_window,
            store=store,
            levels=levels,
            durability=durability,
        )

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
        """A consumer: its messages stay in the queue until they are acked, and come again if it dies.

        Args:
            prefetch: how many messages receive() fetches ahead. 1 shares slow work most evenly, and lets a
                higher priority overtake as soon as it can.
            lease: seconds after which a message that was not settled goes to another consumer although this
                process lives; None: never, only when it dies.
            group: a further group of consumers, which gets every message too, from the oldest that is there
                when it is made. Like the queue's own consumers, it keeps messages until it has had them.
            auto_ack: messages are taken for good when they are received.
            max_deliveries: after so many, a message that is given back goes to the dead letters.
            backoff: how long nack() waits before a message comes again; None: not at all.
            dead_letters: True: the queue NAME.dead; a name: that one; None: NAME.dead if max_deliveries is
                given, or the queue has a type or codec that a message may not fit; False: none.

        Raises:
            ValueError: a number out of range; dead letters for an anonymous queue.
        """
        from ringpost.consumer import Consumer

        make = self._consumer_type or Consumer
        letters = None
        wanted = max_deliveries is not None or (self._speech.is_checked and self._broker is not None)
        if dead_letters or (dead_letters is None and wanted):
            letters = self.dead_letters(dead_letters if isinstance(dead_letters, str) else None)
        if group is None:
            members = self._log.group()
        else:
            members, made = self._log.open_group(group, from_start=True)
            if made:
                store_places(self._log)
        return make(
            members,
            prefetch=1 if auto_ack else prefetch,
            lease=lease,
            auto_ack=auto_ack,
            max_deliveries=max_deliveries,
            backoff=backoff,
            dead_letters=letters,
            replies=None if self._broker is None else self._broker._replies,
            checks=self._speech.is_checked,
        )

    def dead_letters(self, name: str | None = None) -> DeadLetters:
        """What could not be handled: the queue NAME.dead, or `name`. Made if there is none.

        Raises ValueError for an anonymous queue: it has no name to find them by.
        """
        from ringpost.deadletters import DeadLetters

        if self._broker is None or self.name is None:
            raise ValueError(
                "an anonymous queue has no dead letters: open one by name, with connect().queue()"
            )
        broker, source = self._broker, self.name
        return DeadLetters(lambda: broker._dead_letter_queue(source, name), source, self._log)

    def stats(self) -> QueueStats:
        """Numbers for people and monitors."""
        from ringpost.stats import queue_stats

        dead = 0 if self._broker is None else self._broker._count_dead_letters(self.name or "")
        return queue_stats(self._log, self.name or "", dead)

    # ---- looking -------------------------------------------------------------------------------

    def qsize(self) -> int:
        """How many items wait. Exact; others may change it the next moment."""
        return self._log.size()

    def empty(self) -> bool:
        """True if no item waits."""
        return self._log.size() == 0

    def full(self) -> bool:
        """True if put_nowait() would raise Full, even for a tiny item."""
        return self._log.full()

    @property
    def maxsize(self) -> int:
        """The most messages that wait; 0: bounded by bytes only."""
        return int(self._log.info()["max_messages"])

    @property
    def capacity(self) -> int:
        """Bytes of shared memory for messages."""
        info = self._log.info()
        return int(info["ring_size"] + info["pool_size"])

    # ---- tasks ---------------------------------------------------------------------------------

    def task_done(self) -> None:
        """One item that was taken is done with. Raises ValueError if called more often than put()."""
        self._log.task_done()

    def join(self, timeout: float | None = None) -> None:
        """Wait until every item put was taken and task_done() called for it, by any process.

        Raises TimeoutError after `timeout` seconds (None: never).
        """
        self._log.join(timeout)

    # ---- ending --------------------------------------------------------------------------------

    def shutdown(self, immediate: bool = False) -> None:
        """No process may put any more; get() takes what is left, then raises ShutDown.

        With `immediate` what is left is discarded: every get() raises at once. It cannot be undone.
        """
        self._log.shutdown(immediate)

    @property
    def is_shutdown(self) -> bool:
        """True once any process has called shutdown()."""
        return bool(self._log.info()["shut_down"])

    def close(self) -> None:
        """This handle is done; the queue and other handles go on. Threads waiting in it raise ValueError."""
        if not self._log.closed:
            self._log.close()
        for each in _HOT:
            self.__dict__.pop(each, None)
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None  # and with it the memory
        self._log = cast(Log, _Closed(self._log.label))

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._log.closed

    def join_thread(self) -> None:
        """For programs written for multiprocessing.Queue: there is no feeder thread to join."""

    def cancel_join_thread(self) -> None:
        """For programs written for multiprocessing.Queue: there is no feeder thread."""

    def __enter__(self) -> Queue[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- travelling ----------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        if self._broker is not None:
            return self._broker._reopen_queue(self)
        from ringpost import anonymous

        return _attach_anonymous, (anonymous.hand_out(self._log),)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<ringpost.Queue {self.name or 'anonymous'} {state}>"


def _attach_anonymous(path: str) -> Queue[Any]:
    from ringpost import anonymous

    return Queue._of(anonymous.attach(path), None, None)


class _Closed:
    """Stands where the log was: whatever is asked of it, the handle is closed."""

    closed = True

    def __init__(self, label: str) -> None:
        self.label = label

    def __getattr__(self, name: str) -> Any:
        raise ValueError(f"{self.label} is closed: this handle was closed before")
