"""Transaction: messages taken from some queues and sent to others, all or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from ringpost.aio.queue import Queue
from ringpost.transaction import Transaction as SyncTransaction

if TYPE_CHECKING:
    from ringpost.aio.message import Message
    from ringpost.aio.topic import Topic
    from ringpost.message import Message as SyncMessage


class Transaction:
    """Made by `Broker.transaction()`. What it acks and sends is done at the end of its `async with` block, on
    disk, all of it; nothing of it if an exception, a cancellation too, leaves the block.

    Its end works in a thread; who cancels it then does not know whether it was done.
    """

    def __init__(self, sync: SyncTransaction) -> None:
        self._sync = sync

    def ack(self, message: Message[Any]) -> None:
        """Ack it when everything else is done, too. Raises as ringpost.Transaction.ack()."""
        self._sync.ack(cast("SyncMessage[Any]", message))

    def ack_many(self, messages: Iterable[Message[Any]]) -> None:
        """ack() each."""
        for message in messages:
            self.ack(message)

    def send(self, queue: str | Queue[Any], body: object, **properties: Any) -> None:
        """Send to a queue, given by its name or opened. Arguments and errors are those of
        ringpost.Transaction.send()."""
        self._sync.send(queue if isinstance(queue, str) else queue._sync, body, **properties)

    def publish(self, topic: Topic[Any], body: object, subject: str = "", **properties: Any) -> None:
        """Publish under a topic. Arguments and errors are those of ringpost.Transaction.publish()."""
        self._sync.publish(topic._sync, body, subject, **properties)

    async def __aenter__(self) -> Transaction:
        self._sync.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._sync.__exit__(kind, error, traceback)
        else:
            await asyncio.to_thread(self._sync.__exit__, None, None, None)
