"""Messages that stay until they are acked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.micro.samples import SMALL
from benchmarks.micro.timing import rounds

COUNT = 1024
BATCH = 256


@pytest.fixture
def consumer(queue: Any) -> Iterator[Any]:
    """With default settings."""
    with queue.consumer() as consumer:
        yield consumer


def filled(queue: Any) -> Any:
    """What puts COUNT messages."""
    return lambda: queue.put_many([SMALL.item] * COUNT)


@pytest.mark.benchmark(group="receive and ack: 1024 messages")
def test_receive_ack(benchmark: Any, queue: Any, consumer: Any) -> None:
    """One a call."""

    def work() -> None:
        for _ in range(COUNT):
            consumer.receive().ack()

    rounds(benchmark, work, before=filled(queue))
    assert queue.empty()


@pytest.mark.benchmark(group="receive and ack: 1024 messages")
def test_with_message(benchmark: Any, queue: Any, consumer: Any) -> None:
    """One a call, acked by the end of its block, and looked at."""

    def work() -> None:
        for _ in range(COUNT):
            with consumer.receive() as message:
                assert message.body

    rounds(benchmark, work, before=filled(queue))
    assert queue.empty()


@pytest.mark.benchmark(group="receive and ack: 1024 messages")
def test_receive_many_ack_many(benchmark: Any, queue: Any, consumer: Any) -> None:
    """256 a call."""

    def work() -> None:
        for _ in range(COUNT // BATCH):
            consumer.ack_many(consumer.receive_many(BATCH))

    rounds(benchmark, work, before=filled(queue))
    assert queue.empty()


@pytest.mark.benchmark(group="receive and give back: 256 messages")
def test_receive_nack(benchmark: Any, queue: Any, consumer: Any) -> None:
    """One a call, each comes again at once."""
    queue.put_many([SMALL.item] * BATCH)

    def work() -> None:
        for _ in range(BATCH):
            consumer.receive().nack()

    rounds(benchmark, work, before=lambda: None)
