"""Requests and replies: one reply queue for each loop that asks, and one task that reads it while anybody
waits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ringpost.aio.message import Message
from ringpost.aio.queue import Queue
from ringpost.engines import Kind
from ringpost.errors import QueueDeleted, ShutDown

if TYPE_CHECKING:
    from ringpost.broker import Broker as SyncBroker


class Replies:
    """Of one broker handle, in one loop."""

    def __init__(self, broker: SyncBroker) -> None:
        self._broker = broker
        self._pid = os.getpid()
        broker._engine.collect()
        self._queue: Queue[Any] = Queue._over(broker._open_reply_queue(uuid.uuid4().hex, create=True))
        self._consumer = self._queue.consumer(auto_ack=True)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None

    def is_ours(self) -> bool:
        """False in a forked child."""
        return self._pid == os.getpid()

    async def ask(
        self, to: Queue[Any], body: object, headers: Mapping[str, Any] | None, timeout: float | None
    ) -> Any:
        """The answer. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        correlation_id = uuid.uuid4().hex
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting[correlation_id] = answer
        try:
            async with to.producer() as producer:
                await producer.send(
                    body,
                    headers=headers,
                    ttl=timeout,
                    correlation_id=correlation_id,
                    reply_to=self._queue.name,
                    timeout=timeout,
                )
            if self._reader is None or self._reader.done():
                self._reader = loop.create_task(self._read())
            left = None if deadline is None else max(deadline - loop.time(), 0)
            return await asyncio.wait_for(answer, left)
        except asyncio.TimeoutError:
            raise TimeoutError(f"no answer from queue {to.name!r} within {timeout} seconds") from None
        finally:
            del self._waiting[correlation_id]
            if not self._waiting and self._reader is not None:
                self._reader.cancel()
                self._reader = None

    async def _read(self) -> None:
        try:
            async for message in self._consumer:
                self._hand_over(message)
        except (QueueDeleted, ShutDown, ValueError) as error:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(error)

    def _hand_over(self, message: Message[Any]) -> None:
        answer = self._waiting.get(message.correlation_id or "")
        if answer is None or answer.done():
            return  # its request timed out
        try:
            answer.set_result(message.body)
        except Exception as error:  # it cannot be decoded here
            answer.set_exception(error)

    def close(self) -> None:
        """In its loop, or after that was closed."""
        if self._reader is not None:
            with contextlib.suppress(RuntimeError):  # its loop was closed
                self._reader.cancel()
        self._consumer._sync.close()
        self._consumer._waiting.close()
        self._queue.shutdown()
        assert self._queue.name is not None
        self._broker._engine.delete_log(
            Kind.REPLIES, self._queue.name
        )  # those who answered have it open still
        self._queue._close()
        for answer in self._waiting.values():
            with contextlib.suppress(RuntimeError):
                answer.cancel()
