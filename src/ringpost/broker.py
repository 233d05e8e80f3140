"""Broker: the names under which processes meet."""

from __future__ import annotations

import builtins
import os
import weakref
from collections.abc import Mapping
from concurrent.futures import TimeoutError as _FutureTimeout
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload
from urllib.parse import quote

from ringpost.engines import Engine, Kind, open_engine
from ringpost.errors import QueueDeleted, QueueNotFound, Unsupported
from ringpost.queue import Queue
from ringpost.speech import Speech

if TYPE_CHECKING:
    from ringpost.events import EventBus
    from ringpost.requests import Replies
    from ringpost.stats import BrokerStats, Recovered
    from ringpost.store.format import Retention
    from ringpost.topic import Topic
    from ringpost.transaction import Transaction
    from ringpost.typed import OwnCodec

T = TypeVar("T")
Durability = Literal["memory", "interval", "commit"]

DEFAULT_URL = "ring:default"
DEAD = ".dead"  # what a dead letter queue's name has more than its queue's


def connect(url: str | None = None, *, key: bytes | str | None = None, group: str | None = None) -> Broker:
    """The broker at `url`; $RINGPOST_URL, else "ring:default", if none is given.

    "ring:NAME" is a memory broker: this user's, in shared memory, until it is destroyed or a reboot.
    "ring:///DIRECTORY" is a durable one: its queues and topics are on disk too. The directory is made
    if there is none; ?max_bytes=10g bounds what it holds.

    Args:
        key: seals what a durable broker has on disk: 32 bytes; or a str, "base64:..." of 32 bytes, else a
            passphrase. A directory is sealed from its beginning, or never. Default: $RINGPOST_KEY, or the
            first line of the file $RINGPOST_KEY_FILE, both for durable brokers only. Needs
            ringpost[encryption].
        group: name (or number) of a group of users who share this broker; each of them says so. Its
            files are then of mode 0660, its directories of mode 2770. Default: this user alone. As a part of
            the URL:
            ?group=NAME.

    Raises:
        ValueError, TypeError: no URL, no key, or no such group.
        Unsupported: no engine for its scheme is installed; a key, and this broker has no disk.

    A durable broker's directory is opened by the first queue or topic, which raises StorageFailed, NotOurs,
    KeyRefused (no key, a wrong one, or one too many), or Unsupported (a network file system).
    """
    url = url or os.environ.get("RINGPOST_URL") or DEFAULT_URL
    if group is not None:
        url = _with_group(url, group)
    if key is None:
        return Broker(open_engine(url))
    from ringpost.keys import key_of

    return Broker(open_engine(url, key_of(key)))


def _with_group(url: str, group: str) -> str:
    """So that whoever gets the URL, or a handle, comes to the same broker."""
    if not isinstance(group, str):
        raise TypeError(f"group is the name of a group, a str, not {type(group).__qualname__}")
    return f"{url}{'&' if '?' in url else '?'}group={quote(group)}"


class Broker:
    """Opens queues, topics and event buses by name. Costs nothing by itself; closing it closes the handles it
    gave out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: weakref.WeakSet[Queue[Any] | Topic[Any] | EventBus] = weakref.WeakSet()
        self._kept: dict[str, Queue[Any]] = {}  # opened by their names, on behalf of others
        self._replies_made: Replies | None = None
        self._closed = False

    @property
    def url(self) -> str:
        """What connect() was called with, and the group."""
        return self._engine.url

    @overload
    def queue(
        self,
        name: str,
        *,
        type: builtins.type[T],
        capacity: int | None = None,
        maxsize: int | None = None,
        priorities: bool | None = None,
        durability: Durability | None = None,
        create: bool = True,
    ) -> Queue[T]: ...
    @overload
    def queue(
        self,
        name: str,
        *,
        codec: OwnCodec[T],
        capacity: int | None = None,
        maxsize: int | None = None,
        priorities: bool | None = None,
        durability: Durability | None = None,
        create: bool = True,
    ) -> Queue[T]: ...
    @overload
    def queue(
        self,
        name: str,
        *,
        type: builtins.object,
        capacity: int | None = None,
        maxsize: int | None = None,
        priorities: bool | None = None,
        durability: Durability | None = None,
        create: bool = True,
    ) -> Queue[Any]: ...
    @overload
    def queue(
        self,
        name: str,
        *,
        capacity: int | None = None,
        maxsize: int | None = None,
        pickle: bool = False,
        priorities: bool | None = None,
        durability: Durability | None = None,
        create: bool = True,
    ) -> Queue[Any]: ...
    def queue(
        self,
        name: str,
        *,
        capacity: int | None = None,
        maxsize: int | None = None,
        pickle: bool = False,
        type: Any = None,
        codec: OwnCodec[Any] | None = None,
        priorities: bool | None = None,
        durability: Durability | None = None,
        create: bool = True,
    ) -> Queue[Any]:
        """The queue `name`, made if there is none.

        Args:
            capacity: bytes of shared memory for messages (default 16 MiB); half of it is the pool
                for messages above 16 KiB.
            maxsize: the most messages that wait in it; 0: bounded by bytes only (default).
            pickle: allow pickles through this handle, only where you trust every producer. What MessagePack
                would give back as something else (tuples, sets, dataclasses, arrays within) is pickled, and
                comes back as what it was.
            type: of the messages: a msgspec.Struct, a dataclass, a TypedDict, or whatever else msgspec
                decodes. What is received is checked; what does not fit raises DecodeError from get(), and
                goes to the dead letters of a consumer.
            codec: an object with encode(item) -> bytes and decode(bytes) -> item, instead of MessagePack.
            durability: when put() of a durable broker returns. "commit": when it is on disk (default);
                "interval": at once, it is on disk a few milliseconds later; "memory": at once, it survives
                the death of every process, and not a reboot. Each put() may say otherwise.
            priorities: make one whose producers may give each message a priority. Every priority that is
                used takes memory as a queue of its own, and `maxsize` is meant for each. None: as it is.
            create: make it if there is none; else QueueNotFound.

        Raises:
            SettingsMismatch: it exists with another capacity, maxsize, durability or priorities than
                asked for.
            SegmentFull: /dev/shm has no room for it.
            NotOurs, LayoutMismatch, CorruptLog: the file that is there is not ours to use.
            StorageFailed, StorageDamaged: the disk.
            Unsupported: durability, and this broker has no disk.
            TypeError, ValueError: a type or codec that is none; type, codec and pickle together.
        """
        self._check_open()
        speech = Speech(type, codec, pickle)
        log = self._engine.open_log(
            Kind.QUEUE,
            name,
            capacity=capacity,
            maxsize=maxsize,
            make_codec=speech.make_codec(),
            priorities=priorities,
            durability=durability,
            create=create,
        )
        queue = Queue._of(log, name, self)
        queue._speech = speech
        self._open.add(queue)
        return queue

    @overload
    def topic(
        self,
        name: str,
        *,
        type: builtins.type[T],
        capacity: int | None = None,
        durability: Durability | None = None,
        retention: Retention | None = None,
        create: bool = True,
    ) -> Topic[T]: ...
    @overload
    def topic(
        self,
        name: str,
        *,
        codec: OwnCodec[T],
        capacity: int | None = None,
        durability: Durability | None = None,
        retention: Retention | None = None,
        create: bool = True,
    ) -> Topic[T]: ...
    @overload
    def topic(
        self,
        name: str,
        *,
        type: builtins.object,
        capacity: int | None = None,
        durability: Durability | None = None,
        retention: Retention | None = None,
        create: bool = True,
    ) -> Topic[Any]: ...
    @overload
    def topic(
        self,
        name: str,
        *,
        capacity: int | None = None,
        pickle: bool = False,
        durability: Durability | None = None,
        retention: Retention | None = None,
        create: bool = True,
    ) -> Topic[Any]: ...
    def topic(
        self,
        name: str,
        *,
        capacity: int | None = None,
        pickle: bool = False,
        type: Any = None,
        codec: OwnCodec[Any] | None = None,
        durability: Durability | None = None,
        retention: Retention | None = None,
        create: bool = True,
    ) -> Topic[Any]:
        """The topic `name`, made if there is none. Arguments and errors are those of queue().

        Args:
            retention: what a durable topic keeps beyond what its named subscribers have still to get, for
                those who come later with a start; default: the last 8 MiB.
        """
        from ringpost.topic import Topic

        self._check_open()
        speech = Speech(type, codec, pickle)
        log = self._engine.open_log(
            Kind.TOPIC,
            name,
            capacity=capacity,
            make_codec=speech.make_codec(),
            durability=durability,
            retention=retention,
            create=create,
        )
        topic: Topic[Any] = Topic(log, name, self, speech)
        self._open.add(topic)
        return topic

    def events(
        self, name: str, *, capacity: int | None = None, pickle: bool = False, create: bool = True
    ) -> EventBus:
        """The event bus `name`, made if there is none. Arguments and errors are those of queue()."""
        from ringpost.events import EventBus
        from ringpost.topic import Topic

        self._check_open()
        speech = Speech(None, None, pickle)
        log = self._engine.open_log(
            Kind.EVENTS, name, capacity=capacity, make_codec=speech.make_codec(), create=create
        )
        bus = EventBus(Topic(log, name, self, speech))
        self._open.add(bus)
        return bus

    def request(
        self,
        queue: str | Queue[Any],
        body: object,
        timeout: float | None = None,
        *,
        headers: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send `body` to a queue whose consumers reply(), and wait for the answer.

        Args:
            queue: its name, or the queue.
            timeout: seconds to wait for the answer; None: for ever. The request's time to live, too.

        Raises:
            TimeoutError: no answer in time. A later one is thrown away.
            DecodeError: the answer cannot be decoded here.
            Full, ShutDown, QueueDeleted, Stalled, MessageTooLarge, EncodeError: as for Producer.send().
        """
        self._check_open()
        to = self.queue(queue) if isinstance(queue, str) else queue
        correlation_id, future = self._replies.ask(to, body, headers, timeout)
        try:
            return future.result(timeout)
        except _FutureTimeout:
            raise TimeoutError(f"no answer from queue {to.name!r} within {timeout} seconds") from None
        finally:
            self._replies.forget(correlation_id)

    def transaction(self, timeout: float | None = None) -> Transaction:
        """A context in which messages are acked and sent, to several queues and topics, all or nothing,
        whoever dies whenever:

            with broker.transaction() as tx:
                tx.ack(message)
                tx.send("invoices", invoice)
                tx.send("parcels", parcel)

        Its end waits for the disk, twice; one transaction of a broker ends at a time.

        Args:
            timeout: seconds that its end may wait for others; None: for ever.

        Its end raises LeaseLost, QueueDeleted, StorageFailed, StorageDamaged and Stalled: nothing was done.
        Once it is decided it raises none of them: what it sends goes beyond the broker's quota, and beyond a
        queue's maxsize if others filled it meanwhile; what cannot be done within some seconds (the disk is
        full, somebody is stopped) is left to whoever comes next.

        Raises Unsupported here if the broker is in memory.
        """
        from ringpost.transaction import Transaction

        self._check_open()
        transactions = getattr(self._engine, "transactions", None)
        if transactions is None:
            raise Unsupported(f"{self.url} has no transactions: connect to ring:///DIRECTORY")
        return Transaction(self, transactions(), timeout)

    def list(self) -> list[str]:
        """Names of the queues, sorted."""
        self._check_open()
        return self._engine.list_logs(Kind.QUEUE)

    def topics(self) -> builtins.list[str]:
        """Names of the topics, sorted."""
        self._check_open()
        return self._engine.list_logs(Kind.TOPIC)

    def delete(self, name: str) -> bool:
        """Delete a queue with what is in it. Whoever uses it gets QueueDeleted. False: there was none."""
        self._check_open()
        return self._engine.delete_log(Kind.QUEUE, name)

    def delete_topic(self, name: str) -> bool:
        """Delete a topic with what is in it. Whoever uses it gets QueueDeleted. False: there was none."""
        self._check_open()
        return self._engine.delete_log(Kind.TOPIC, name)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that was put is on disk, whatever its level, and what this process acked.
        Of a memory broker there is nothing to wait for.

        Raises StorageFailed; Stalled after `timeout` seconds (None: never).
        """
        self._check_open()
        self._engine.flush(timeout)

    def recovered(self) -> tuple[Recovered, ...]:
        """What this connection was the first to open after a reboot, and found on disk, in the order of
        opening. Of a broker in memory: nothing."""
        self._check_open()
        return tuple(getattr(self._engine, "recovered", ()))

    def backup(self, path: str | os.PathLike[str]) -> None:
        """A copy of a durable broker, while it is used: connect to it as to any other. It has everything that
        was put before. A scheduled message that becomes due while it is made may be delivered twice by it.

        Args:
            path: a directory, new or empty.

        Raises FileExistsError, StorageFailed, Stalled: no copy is left then; Unsupported for a broker in
        memory.
        """
        self._check_open()
        make = getattr(self._engine, "backup", None)
        if make is None:
            raise Unsupported(f"{self.url} keeps nothing on disk: there is nothing to copy")
        make(path)

    def rotate_key(self, key: bytes | str) -> None:
        """From now on this is the key of a sealed broker, and what is written is sealed with a new data key.
        What was written before stays as it is; the old key opens the directory no more.

        Processes that have the broker open go on; those that are started afterwards need the new key.

        Args:
            key: as for connect(). The same as before makes a new data key only.

        Raises KeyRefused; Unsupported: it is not sealed; StorageFailed, SegmentFull, Stalled: nothing was
        changed.
        """
        from ringpost.keys import key_of

        self._check_open()
        rotate = getattr(self._engine, "rotate_key", None)
        new = key_of(key)
        if rotate is None:
            raise Unsupported(f"{self.url} keeps nothing on disk: it has no key to rotate")
        if new is None:
            raise TypeError("'key' is 32 bytes, or a str, not None: a sealed broker stays sealed")
        rotate(new)

    def destroy(self) -> None:
        """Delete every queue, topic and event bus of this broker."""
        self._check_open()
        self._engine.destroy()

    def stats(self) -> BrokerStats:
        """Numbers of every queue and topic, for people and monitors."""
        from ringpost.stats import BrokerStats

        self._check_open()
        queues, topics = [], []
        for name in self.list():
            try:
                with self.queue(name, create=False) as queue:
                    queues.append(queue.stats())
            except (QueueNotFound, QueueDeleted):
                continue  # meanwhile
        for name in self.topics():
            try:
                with self.topic(name, create=False) as topic:
                    topics.append(topic.stats())
            except (QueueNotFound, QueueDeleted):
                continue
        return BrokerStats(url=self.url, queues=tuple(queues), topics=tuple(topics))

    def close(self) -> None:
        """Close the handles that this broker gave out. The queues and their messages stay."""
        self._closed = True
        if self._replies_made is not None:
            self._replies_made.close()
        for each in [*self._open, *self._kept.values()]:
            each.close()
        self._engine.close()

    # ---- for those it gave out -----------------------------------------------------------------

    @property
    def _replies(self) -> Replies:
        if self._replies_made is None:
            from ringpost.requests import Replies

            self._replies_made = Replies(self)
        return self._replies_made

    def _open_reply_queue(self, name: str, create: bool) -> Queue[Any]:
        log = self._engine.open_log(Kind.REPLIES, name, create=create, capacity=1 << 20 if create else None)
        return Queue._of(log, name, self)

    def _dead_letter_queue(self, source: str, name: builtins.object = None) -> Queue[Any]:
        return self._keep_open(name if isinstance(name, str) else source + DEAD)

    def _keep_open(self, name: str) -> Queue[Any]:
        queue = self._kept.get(name)
        if queue is None or queue.closed:
            queue = self._kept[name] = self.queue(name)
        return queue

    def _count_dead_letters(self, source: str) -> int:
        try:
            with self.queue(source + DEAD, create=False) as queue:
                return queue.qsize()
        except (QueueNotFound, QueueDeleted):
            return 0

    def _reopen_queue(self, queue: Queue[Any]) -> tuple[Any, ...]:
        return _reopen, (self, queue.name, queue._speech)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the broker {self.url} is closed: connect() again")

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        key = getattr(self._engine, "key", None)
        if key is None:
            return connect, (self.url,)
        from ringpost.keys import is_starting_a_process

        return _connect_sealed, (self.url, key if is_starting_a_process() else None)

    def __repr__(self) -> str:
        return f"<ringpost.Broker {self.url}>"


def _connect_sealed(url: str, key: Any) -> Broker:
    """A key travels to a process that is being started only; others have opened the broker themselves."""
    from ringpost.keys import remembered

    return Broker(open_engine(url, key or remembered(url)))


def _reopen(broker: Broker, name: str, speech: Speech) -> Queue[Any]:
    return broker.queue(name, type=speech.type, codec=speech.codec, pickle=speech.pickle)  # type: ignore[call-overload,no-any-return]
