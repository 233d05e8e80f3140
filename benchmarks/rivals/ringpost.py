"""ringpost itself, with default settings: named queues and topics."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from benchmarks.rivals.acking import AckingLane, AckingRival, Consumer
from benchmarks.rivals.asynchronous import AsyncLane, AsyncReceiver, AsyncRival, AsyncSender
from benchmarks.rivals.base import CAPACITY, Lane, Receiver, Sender, SendingLane, room
from benchmarks.rivals.deep import DeepRival
from benchmarks.rivals.lending import (
    Lender,
    LendingLane,
    LendingRival,
    Looker,
    RecordLane,
    RecordReceiver,
    RecordRival,
    RecordSender,
)
from benchmarks.rivals.shared import SharedRival
from benchmarks.rivals.topic import TopicRival


@dataclass(frozen=True)
class _InBroker(SendingLane):
    url: str
    name: str

    def broker(self) -> Any:
        import ringpost

        return ringpost.connect(self.url)

    def remove(self) -> None:
        with self.broker() as broker:
            broker.destroy()


class _QueueLane(_InBroker, Lane):
    def sender(self, index: int) -> Sender:
        queue = self.broker().queue(self.name)
        return Sender(queue.put, queue.put_many, queue.close)

    def receiver(self) -> Receiver:
        queue = self.broker().queue(self.name)
        return Receiver(queue.get, queue.get_many, queue.close)


class _AsyncLane(_InBroker, AsyncLane):
    async def async_sender(self) -> AsyncSender:
        from ringpost import aio

        queue = aio.Queue.of(self.broker().queue(self.name))
        return AsyncSender(queue.put, queue.put_many)

    async def async_receiver(self) -> AsyncReceiver:
        from ringpost import aio

        queue = aio.Queue.of(self.broker().queue(self.name))
        return AsyncReceiver(queue.get, queue.get_many)


class _AckingLane(_InBroker, AckingLane):
    def sender(self, index: int) -> Sender:
        queue = self.broker().queue(self.name)
        return Sender(queue.put, queue.put_many, queue.close)

    def consumer(self) -> Consumer:
        import ringpost

        consumer = self.broker().queue(self.name).consumer()
        return Consumer(
            receive=consumer.receive,
            body=attrgetter("body"),
            ack=ringpost.Message.ack,
            receive_many=consumer.receive_many,
            ack_many=consumer.ack_many,
            close=consumer.close,
        )


class _TopicLane(_InBroker, Lane):
    def sender(self, index: int) -> Sender:
        topic = self.broker().topic(self.name)
        return Sender(topic.publish, _publish_many(topic), topic.close)

    def receiver(self) -> Receiver:
        subscriber = self.broker().topic(self.name).subscribe(on_lag="block")
        receive, receive_many = subscriber.receive, subscriber.receive_many
        return Receiver(
            get=lambda: receive().body,
            get_many=lambda limit: [message.body for message in receive_many(limit)],
            close=subscriber.close,
        )


@dataclass(frozen=True)
class _LendingLane(_InBroker, LendingLane):
    size: int

    def sender(self, index: int) -> Sender:
        raise NotImplementedError

    def lender(self) -> Lender:
        queue = self._queue()
        loan, count = queue.producer().loan, self.size // 8

        def send(stamp: int) -> None:
            with loan(count, "<i8") as array:
                array[0] = array[-1] = stamp

        return Lender(send, queue.close)

    def looker(self) -> Looker:
        queue = self._queue()
        consumer = queue.consumer()

        def look() -> tuple[int, int]:
            with consumer.receive() as message:
                array = message.array
                return int(array[0]), int(array[-1])

        return Looker(look, queue.close)

    def _queue(self) -> Any:
        return self.broker().queue(self.name, capacity=8 * self.size)


class _RecordLane(_InBroker, RecordLane):
    def sender(self, index: int) -> Sender:
        raise NotImplementedError

    def record_sender(self) -> RecordSender:
        queue = self.broker().queue(self.name)
        return RecordSender(queue.put_many, queue.close)

    def record_receiver(self) -> RecordReceiver:
        queue = self.broker().queue(self.name)
        return RecordReceiver(lambda: queue.get_many(as_array=True), queue.close)


def _publish_many(topic: Any) -> Callable[[list[bytes]], Any]:
    return lambda messages: topic.publish_many([("", message) for message in messages])


_FRAME = 32  # bytes around each message


class Ringpost(SharedRival, DeepRival, AckingRival, TopicRival, AsyncRival, LendingRival, RecordRival):
    """The library that this repository is about."""

    name = "ringpost"
    module = "ringpost"
    distribution = "ringpost"
    note = "named queue or topic, default settings; subscribers use receive_many; asyncio: ringpost.aio"
    async_batches = True
    batches = True
    ack_batches = True
    redelivers = True

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        if room(size) > CAPACITY:
            _make(name, room(size))
        return _QueueLane(_url(), name)

    def deep_lane(self, name: str, count: int, size: int, directory: Path) -> Lane:
        ring = 1 << (count * (size + _FRAME)).bit_length()  # a power of two
        _make(name, max(CAPACITY, 2 * ring))  # the other half is for large messages
        return _QueueLane(_url(), name)

    def async_lane(self, name: str, size: int, directory: Path) -> AsyncLane:
        return _AsyncLane(_url(), name)

    def acking_lane(self, name: str, directory: Path) -> AckingLane:
        return _AckingLane(_url(), name)

    def topic_lane(self, name: str, subscribers: int, size: int, directory: Path) -> Lane:
        return _TopicLane(_url(), name)

    def lending_lane(self, name: str, size: int, directory: Path) -> LendingLane:
        return _LendingLane(_url(), name, size)

    def record_lane(self, name: str, dtype: Any, directory: Path) -> RecordLane:
        return _RecordLane(_url(), name)


def _make(name: str, capacity: int) -> None:
    import ringpost

    with ringpost.connect(_url()) as broker:
        broker.queue(name, capacity=capacity)


def _url() -> str:
    return f"ring:bench-{os.getpid()}"
