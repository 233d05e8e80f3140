"""Message: what a consumer or a subscriber of ringpost.aio receives."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ringpost.aio.waiting import GRACE, Waiting, patiently
from ringpost.errors import LeaseLost
from ringpost.message import Message as SyncMessage
from ringpost.message import Received

if TYPE_CHECKING:
    from ringpost.queue import Queue

T = TypeVar("T")


class Message(Received[T]):
    __doc__ = f"""{Received.__doc__}
    `async with message:` acks it on success, and gives it back by nack() when an exception, a cancellation
    too, leaves the block. Settling waits for nothing but a lock that is held for a moment.
    """

    __slots__ = ()

    def _as_sync(self) -> SyncMessage[T]:
        return cast(SyncMessage[T], self)

    async def ack(self) -> None:
        """It is done with. Raises LeaseLost if it was given to somebody else meanwhile."""
        await patiently(lambda patience: self.holder._ack(self._as_sync(), patience))

    async def nack(self, delay: float | None = None, requeue: bool = True) -> None:
        """It is not done: hand it out again, to anybody, `delay` seconds from now. As
        ringpost.Message.nack()."""
        await patiently(lambda patience: self.holder._nack(self._as_sync(), delay, requeue, patience))

    async def reject(self, reason: str = "rejected") -> None:
        """Nobody should try again: to the dead letters, or away where there are none.

        Raises LeaseLost. Full: the dead letters have no room; StorageFailed, Stalled: its letter is not
        stored. It is still held then: reject() it again, which writes no second letter.
        """
        await patiently(lambda patience: self.holder._reject(self._as_sync(), reason, patience))

    async def extend(self, seconds: float | None) -> None:
        """Hold it for `seconds` from now; None: as long as this process lives. Raises LeaseLost."""
        await patiently(lambda patience: self.holder._extend(self._as_sync(), seconds, patience))

    async def reply(self, body: object, **properties: Any) -> None:
        """Send `body` to whoever asked. Raises ValueError, QueueNotFound, as ringpost.Message.reply()."""
        consumer = self.holder
        with_id = consumer._prepare_reply(self._as_sync(), properties)
        assert consumer._replies is not None
        replies, reply_to = consumer._replies, str(self.reply_to)
        queue: Queue[Any] = replies.queue_of(reply_to)
        producer = queue.producer(overflow="raise")
        producer._grace = GRACE
        waiting = Waiting(queue._log.watch_space, wakes_all=True)
        try:
            await waiting.until(lambda: replies.send_to(producer, reply_to, body, with_id))
        finally:
            waiting.close()

    async def __aenter__(self) -> Message[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.settled:
            return
        if error is None:
            await self.ack()
            return
        try:
            await patiently(lambda patience: self.holder._nack_or_keep(self._as_sync(), patience))
        except LeaseLost:
            pass  # somebody else has it: the exception under way says more
