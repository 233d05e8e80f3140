"""Message: what a consumer or a subscriber receives. What it says is Received; ringpost.aio settles its own
way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ringpost._binding import binding
from ringpost.codecs import array_view
from ringpost.envelope import Envelope, unseal
from ringpost.errors import LeaseLost

if TYPE_CHECKING:
    from ringpost._binding.contract import Group
    from ringpost.consumer import Consumer

    class _Delivery:
        """binding.Delivery, as type checkers see it."""

        body: Any
        group: Group
        kind: int
        payload: bytes
        size: int
        raw_headers: bytes | None
        subject: str
        raw_subject: bytes | None
        sequence: int
        time_ns: int
        ttl_ms: int
        deliveries: int
        lost: int
        settled: bool
        expired: bool
        holder: Consumer[Any]

        def view(self) -> Any: ...
        def release(self) -> None: ...

else:
    _Delivery = binding.Delivery

T = TypeVar("T")

_NO_HEADERS: Mapping[str, Any] = MappingProxyType({})


class Received(_Delivery, Generic[T]):
    """One message, in the hands of this process until it is settled: by ack(), nack() or reject().

    Attributes:
        body: the object that was sent. DecodeError if it cannot be decoded here.
        payload: the bytes of the body; a copy, if it lies in shared memory.
        size: how many they are.
        subject: what it was published under; "" in a queue.
        sequence: its number in its queue or topic, from 0, without gaps.
        deliveries: how often it was handed out, this time included.
        lost: how many messages were overwritten before this one, for a subscriber that may be overrun.
        settled: True after ack(), nack() or reject(), and for what needs none of them.
        expired: True once its time to live is over.
    """

    __slots__ = ("_envelope", "_retained")

    _envelope: Envelope
    _retained: bool

    if TYPE_CHECKING:
        body: T

    def _open(self) -> Envelope:
        try:
            return self._envelope
        except AttributeError:
            self._envelope = unseal(self.raw_headers)
            return self._envelope

    # ---- what it says --------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Its message_id, or else its sequence."""
        return self._open().message_id or str(self.sequence)

    @property
    def headers(self) -> Mapping[str, Any]:
        """What the producer said with it."""
        return self._open().headers or _NO_HEADERS

    @property
    def correlation_id(self) -> str | None:
        """Which request it answers, or belongs to."""
        return self._open().correlation_id

    @property
    def reply_to(self) -> str | None:
        """The queue that waits for an answer."""
        return self._open().reply_to

    @property
    def content_type(self) -> str | None:
        """What the producer says the body is."""
        return self._open().content_type

    @property
    def key(self) -> str | None:
        """What it is about; messages with one key keep their order on every engine."""
        return self._open().key

    @property
    def priority(self) -> int:
        """As it was sent, 0 to 9; higher ones are handed out first."""
        return self._open().priority

    @property
    def array(self) -> Any:
        """The body, a numpy array, read-only. A large one (above 16 KiB, or lent) is not copied: it lies in
        shared memory, which is used for nothing else as long as this array, or any view of it, is there;
        also after ack(). `body` is a copy instead.

        Raises:
            TypeError: the body is no array.
            DecodeError: it is broken.
            ValueError: it was released: ask before ack(), nack(), reject() or release().
        """
        return array_view(self.kind, self.view(), self.group.log.label, self.sequence)

    @property
    def timestamp(self) -> datetime:
        """When it was put (UTC; a few milliseconds coarse)."""
        return datetime.fromtimestamp(self.time_ns / 1e9, timezone.utc)

    @property
    def redelivered(self) -> bool:
        """True if it was handed out before."""
        return self.deliveries > 1

    @property
    def retained(self) -> bool:
        """True of a last value that was kept for who subscribes later."""
        return getattr(self, "_retained", False)

    def __repr__(self) -> str:
        subject = f" {self.subject!r}" if self.subject else ""
        again = f", delivery {self.deliveries}" if self.redelivered else ""
        return f"<ringpost.Message {self.id}{subject}, {self.size} bytes{again}>"


class Message(Received[T]):
    __doc__ = f"""{Received.__doc__}
    As a context manager it is acked on success, and given back by nack() when an exception leaves the block.
    """

    __slots__ = ()

    # ---- settling ------------------------------------------------------------------------------

    def ack(self) -> None:
        """It is done with. Raises LeaseLost if it was given to somebody else meanwhile."""
        self.holder._ack(self)

    def nack(self, delay: float | None = None, requeue: bool = True) -> None:
        """It is not done: hand it out again, to anybody.

        Args:
            delay: seconds until then; None: at once, or as the consumer's `backoff` says.
            requeue: False: as reject().

        Where the consumer has a `max_deliveries` and this was the last one, it goes to the dead letters.
        Raises LeaseLost.
        """
        self.holder._nack(self, delay, requeue)

    def reject(self, reason: str = "rejected") -> None:
        """Nobody should try again: to the dead letters, or away where there are none.

        Raises LeaseLost. Full: the dead letters have no room; StorageFailed, Stalled: its letter is not
        stored. It is still held then: reject() it again, which writes no second letter.
        """
        self.holder._reject(self, reason)

    def extend(self, seconds: float | None) -> None:
        """Hold it for `seconds` from now; None: as long as this process lives. Raises LeaseLost.

        Messages that were received together may share one lease. While others of them are not settled, it
        only grows: none comes back earlier than was asked for, and all may stay as long as the longest.
        """
        self.holder._extend(self, seconds)

    def reply(self, body: object, **properties: Any) -> None:
        """Send `body` to whoever asked, with this message's correlation_id; `properties` as for send().

        Raises:
            ValueError: it asks for no answer.
            QueueNotFound: whoever asked is gone.
        """
        self.holder._reply(self, body, properties)

    def __enter__(self) -> Message[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.settled:
            return
        if error is None:
            self.ack()
            return
        try:
            self.holder._nack_or_keep(self)
        except LeaseLost:
            pass  # somebody else has it: the exception under way says more
