"""Broker: the names under which processes meet."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ringpost.aio.opening import Opening
from ringpost.aio.queue import Queue
from ringpost.aio.topic import Topic
from ringpost.aio.transaction import Transaction
from ringpost.broker import Broker as SyncBroker
from ringpost.broker import connect as sync_connect

if TYPE_CHECKING:
    from ringpost.aio.events import EventBus
    from ringpost.aio.requests import Replies
    from ringpost.broker import Durability
    from ringpost.stats import BrokerStats, Recovered
    from ringpost.store.format import Retention
    from ringpost.typed import OwnCodec

T = TypeVar("T")


def connect(
    url: str | None = None, *, key: bytes | str | None = None, group: str | None = None
) -> Opening[Broker]:
    """The broker at `url`: `broker = await connect(url)`, or `async with connect(url) as broker`.

    As ringpost.connect().
    """
    return Opening(lambda: Broker(sync_connect(url, key=key, group=group)))


class Broker:
    """Opens queues, topics and event buses by name. Closing it closes the handles it gave out."""

    def __init__(self, sync: SyncBroker) -> None:
        self._sync = sync
        self._open: weakref.WeakSet[Queue[Any] | Topic[Any] | EventBus] = weakref.WeakSet()
        self._replies: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Replies] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def url(self) -> str:
        """What connect() was called with."""
        return self._sync.url

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
    ) -> Opening[Queue[T]]: ...
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
    ) -> Opening[Queue[T]]: ...
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
    ) -> Opening[Queue[Any]]: ...
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
    ) -> Opening[Queue[Any]]: ...
    def queue(
        self,
        name: str,
        *,
        capacity: int | None = None,
        maxsize: int | None = None,
        pickle: bool = False,
        type: Any = None,
        codec: OwnCodec[Any] | None = None,
        durability: Durability | None = None,
        priorities: bool | None = None,
        create: bool = True,
    ) -> Opening[Queue[Any]]:
        """The queue `name`, made if there is none: `await broker.queue(name)`, or `async with`. Arguments and
        errors are those of ringpost.Broker.queue()."""

        def make() -> Queue[Any]:
            open_queue: Any = self._sync.queue
            sync = open_queue(
                name,
                capacity=capacity,
                maxsize=maxsize,
                pickle=pickle,
                type=type,
                codec=codec,
                durability=durability,
                priorities=priorities,
                create=create,
            )
            return self._remember(Queue._over(sync))

        return Opening(make)

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
    ) -> Opening[Topic[T]]: ...
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
    ) -> Opening[Topic[T]]: ...
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
    ) -> Opening[Topic[Any]]: ...
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
    ) -> Opening[Topic[Any]]: ...
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
    ) -> Opening[Topic[Any]]:
        """The topic `name`, made if there is none: `await broker.topic(name)`, or `async with`. Arguments and
        errors are those of ringpost.Broker.topic()."""

        def make() -> Topic[Any]:
            open_topic: Any = self._sync.topic
            sync = open_topic(
                name,
                capacity=capacity,
                pickle=pickle,
                type=type,
                codec=codec,
                durability=durability,
                retention=retention,
                create=create,
            )
            topic: Topic[Any] = Topic(sync)
            self._open.add(topic)
            return topic

        return Opening(make)

    def events(
        self, name: str, *, capacity: int | None = None, pickle: bool = False, create: bool = True
    ) -> Opening[EventBus]:
        """The event bus `name`, made if there is none: `await broker.events(name)`, or `async with`."""
        from ringpost.aio.events import EventBus

        def make() -> EventBus:
            bus = EventBus(self._sync.events(name, capacity=capacity, pickle=pickle, create=create))
            self._open.add(bus)
            return bus

        return Opening(make)

    def _remember(self, queue: Queue[Any]) -> Queue[Any]:
        self._open.add(queue)
        return queue

    async def request(
        self,
        queue: str | Queue[Any],
        body: object,
        timeout: float | None = None,
        *,
        headers: Mapping[str, Any] | None = None,
    ) -> Any:
        """Send `body` to a queue whose consumers reply(), and wait for the answer. Any number of tasks may.

        Arguments and errors are those of ringpost.Broker.request().
        """
        self._sync._check_open()
        replies = self._replies_here()
        if not isinstance(queue, str):
            return await replies.ask(queue, body, headers, timeout)
        async with self.queue(queue) as to:
            return await replies.ask(to, body, headers, timeout)

    def _replies_here(self) -> Replies:
        from ringpost.aio.requests import Replies

        loop = asyncio.get_running_loop()
        replies = self._replies.get(loop)
        if replies is None or not replies.is_ours():
            replies = self._replies[loop] = Replies(self._sync)
        return replies

    async def list(self) -> list[str]:
        """Names of the queues, sorted."""
        return self._sync.list()

    async def topics(self) -> builtins.list[str]:
        """Names of the topics, sorted."""
        return self._sync.topics()

    async def delete(self, name: str) -> bool:
        """Delete a queue with what is in it. Whoever uses it gets QueueDeleted. False: there was none."""
        return self._sync.delete(name)

    async def delete_topic(self, name: str) -> bool:
        """Delete a topic with what is in it. Whoever uses it gets QueueDeleted. False: there was none."""
        return self._sync.delete_topic(name)

    async def destroy(self) -> None:
        """Delete every queue, topic and event bus of this broker."""
        self._sync.destroy()

    def transaction(self, timeout: float | None = None) -> Transaction:
        """A context in which messages are acked and sent, to several queues and topics, all or nothing:
        `async with broker.transaction() as tx:`. As ringpost.Broker.transaction()."""
        return Transaction(self._sync.transaction(timeout))

    async def flush(self, timeout: float | None = None) -> None:
        """Everything that was put is on disk, and what this process acked. As ringpost.Broker.flush()."""
        await asyncio.to_thread(self._sync.flush, timeout)

    def recovered(self) -> tuple[Recovered, ...]:
        """What this connection was the first to open after a reboot. As ringpost.Broker.recovered()."""
        return self._sync.recovered()

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """A copy of a durable broker, while it is used. As ringpost.Broker.backup()."""
        await asyncio.to_thread(self._sync.backup, path)

    async def rotate_key(self, key: bytes | str) -> None:
        """From now on this is the key of a sealed broker. As ringpost.Broker.rotate_key()."""
        await asyncio.to_thread(self._sync.rotate_key, key)

    async def stats(self) -> BrokerStats:
        """Numbers of every queue and topic, for people and monitors."""
        return self._sync.stats()

    async def close(self) -> None:
        """Close the handles that this broker gave out. The queues and their messages stay."""
        for replies in list(self._replies.values()):
            if replies.is_ours():
                with contextlib.suppress(ValueError):
                    replies.close()
        self._replies.clear()
        for handle in list(self._open):
            handle._close()
        self._sync.close()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Broker:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Broker, (self._sync,)

    def __repr__(self) -> str:
        return f"<ringpost.aio.Broker {self.url}>"
