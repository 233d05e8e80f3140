"""Consumer: receives messages that stay in the queue until they are acked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from ringpost.aio.message import Message
from ringpost.aio.waiting import GRACE, Waiting, patiently
from ringpost.consumer import Consumer as SyncConsumer
from ringpost.errors import ShutDown
from ringpost.message import Message as SyncMessage

T = TypeVar("T")
C = TypeVar("C", bound="Consumer[Any]")


class ConsumerBelow(SyncConsumer[Any]):
    """Does the work, and never waits long for a lock."""

    _message_type = cast("type[SyncMessage[Any]]", Message)
    _grace = GRACE


class Consumer(Generic[T]):
    """At least once: what it hands out is leased to this process, and comes again if the process dies.

    Made by `Queue.consumer()`. May be used by several tasks. Closing it gives back what it holds; use it with
    `async with`, or close() it.
    """

    def __init__(self, sync: SyncConsumer[T]) -> None:
        self._sync = sync
        self._waiting = Waiting(sync._group.watch)

    async def receive(self, timeout: float | None = None) -> Message[T]:
        """The next message.

        Args:
            timeout: seconds to wait at most; 0: do not wait; None: for ever.

        Raises:
            Empty: none within the timeout.
            ShutDown: the queue was shut down, and nobody holds anything that may come back.
            QueueDeleted, CorruptLog, Stalled: as Queue.get().
            ValueError: this consumer, or its queue's handle, is closed.

        Cancelling it loses no message.
        """
        return await self._waiting.until(self._receive, timeout)

    def _receive(self) -> Message[T]:
        return cast(Message[T], self._sync.receive(0))

    async def receive_many(self, limit: int = 256, timeout: float | None = None) -> list[Message[T]]:
        """What is there, at most `limit` messages (and 1024); waits for the first one only.

        Raises what receive() raises.
        """

        def attempt() -> list[Message[T]]:
            return cast("list[Message[T]]", self._sync.receive_many(limit, 0))

        return await self._waiting.until(attempt, timeout)

    def __aiter__(self: C) -> C:
        """Messages until the queue is shut down, or this consumer closed."""
        return self

    async def __anext__(self) -> Message[T]:
        try:
            return await self._waiting.until(self._receive)
        except ShutDown:
            raise StopAsyncIteration from None
        except ValueError:
            if self._sync.closed:
                raise StopAsyncIteration from None
            raise

    async def ack_many(self, messages: Iterable[Message[T]]) -> None:
        """Ack all of these at once. Raises LeaseLost, whose `messages` were no longer ours; ValueError: one
        came from another queue or group, and none is acked."""
        these = cast("list[SyncMessage[T]]", list(messages))
        await patiently(lambda patience: self._sync._ack_many(these, patience))

    async def close(self) -> None:
        """Give back what was not settled: others get it at once. Tasks that wait in it end."""
        self._sync.close()
        self._waiting.close()
        await asyncio.sleep(0)

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._sync.closed

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
