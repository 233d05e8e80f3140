"""Producer: sends messages with headers, a time to live, and what else a message can say beside its body."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

from ringpost._binding.contract import Log
from ringpost.envelope import Envelope, seal
from ringpost.errors import Empty, Full
from ringpost.message import Message

Overflow = Literal["block", "raise", "drop-oldest"]
Parts = tuple[object, "bytes | None", "bytes | None", int]

_LONGEST_TTL = 2**32 / 1000  # seconds: a frame counts milliseconds in 32 bits


class Producer:
    """Sends to one queue. Made by `Queue.producer()`; may be used by several threads.

    When send() returns, the message is in the queue. As a context manager it closes nothing but itself.
    """

    def __init__(self, log: Log, *, overflow: Overflow = "block", ttl: float | None = None) -> None:
        if overflow not in ("block", "raise", "drop-oldest"):
            raise ValueError(f"'overflow' is 'block', 'raise' or 'drop-oldest', not {overflow!r}")
        self._log = log
        self._overflow = overflow
        self._ttl = ttl
        self._closed = False

    def send(
        self,
        body: object,
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        key: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send one message; when this returns it is in the queue, for every process to see.

        Args:
            headers: str to what MessagePack knows.
            ttl: seconds after which nobody wants it any more (at most 49 days): it is then not delivered,
                but goes to the dead letters where the consumer has them.
            key: what it is about.
            message_id: its name; Message.id.
            correlation_id, reply_to: for answers; see Broker.request().
            content_type: what the body is, if the consumer cannot know.
            timeout: seconds to wait for room, where this producer waits at all; None: for ever.

        Raises:
            Full: no room within the timeout, or at once where overflow="raise".
            ShutDown, QueueDeleted, Stalled, MessageTooLarge, EncodeError: as Queue.put().
            ValueError: a ttl that is not between 0 and 49 days; this producer is closed.
        """
        self._check_open()
        envelope = None
        if headers or key or message_id or correlation_id or reply_to or content_type:
            envelope = seal(
                Envelope(
                    headers=dict(headers) if headers else None,
                    message_id=message_id,
                    correlation_id=correlation_id,
                    reply_to=reply_to,
                    content_type=content_type,
                    key=key,
                )
            )
        self._put(body, envelope, milliseconds(self._ttl if ttl is None else ttl), timeout)

    def _put(self, body: object, envelope: bytes | None, ttl_ms: int, timeout: float | None) -> None:
        if self._overflow == "block":
            self._log.send(body, None, envelope, ttl_ms, True, timeout)
            return
        while True:
            try:
                self._log.send(body, None, envelope, ttl_ms, False)
                return
            except Full:
                if self._overflow == "raise":
                    raise
            self._drop_oldest()

    def send_many(
        self,
        bodies: Iterable[object],
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> int:
        """Send bodies in order, many in one commit, all with these headers; much faster than one send() each.

        Returns how many were sent. Raises what send() raises; the exception's attribute `put` then says how
        many went in before it.
        """
        self._check_open()
        envelope = seal(Envelope(headers=dict(headers))) if headers else None
        ttl_ms = milliseconds(self._ttl if ttl is None else ttl)
        return self._put_many(((body, None, envelope, ttl_ms) for body in bodies), timeout)

    def _put_many(self, parts: Iterable[Parts], timeout: float | None) -> int:
        if self._overflow != "drop-oldest":
            return self._log.send_many(parts, self._overflow == "block", timeout)
        sent = 0
        for body, _, envelope, ttl_ms in parts:
            self._put(body, envelope, ttl_ms, None)
            sent += 1
        return sent

    def batch(self, *, timeout: float | None = None) -> Batch:
        """A context that gathers what is sent and sends it all at its end, in order:

        with producer.batch() as batch:
            batch.send(order, headers={"shop": 7})
        """
        self._check_open()
        return Batch(self, timeout)

    def _drop_oldest(self) -> None:
        group = self._log.group()
        try:
            dropped = group.take(1, False, None, Message)
        except Empty:
            time.sleep(0.001)  # all of it is in consumers' hands: nothing may be dropped
            return
        group.count_dropped(len(dropped))

    def close(self) -> None:
        """This producer sends no more; its queue stays open."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this producer was closed before")

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Batch:
    """What was sent in a `with producer.batch()`. Nothing of it is sent if an exception leaves the block."""

    def __init__(self, producer: Producer, timeout: float | None) -> None:
        self._producer = producer
        self._timeout = timeout
        self._parts: list[Parts] = []

    def send(
        self,
        body: object,
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        key: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """As Producer.send(), at the end of the block. The body must not be changed before that."""
        envelope = Envelope(
            headers=dict(headers) if headers else None,
            message_id=message_id,
            correlation_id=correlation_id,
            reply_to=reply_to,
            content_type=content_type,
            key=key,
        )
        ttl_ms = milliseconds(self._producer._ttl if ttl is None else ttl)
        self._parts.append((body, None, seal(envelope), ttl_ms))

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._producer._put_many(self._parts, self._timeout)


def milliseconds(ttl: float | None) -> int:
    """As a frame counts it; 0: for ever. A ttl of 0 is over at once, so the least is 1."""
    if ttl is None:
        return 0
    if not 0 <= ttl < _LONGEST_TTL:
        raise ValueError(f"'ttl' must be between 0 and {_LONGEST_TTL:.0f} seconds, or None; not {ttl}")
    return max(int(ttl * 1000), 1)
