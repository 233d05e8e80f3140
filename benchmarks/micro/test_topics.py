"""Publishing to subscribers in the same process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import ringpost
from benchmarks.micro.samples import SMALL
from benchmarks.micro.timing import rounds

COUNT = 1024

each_audience = pytest.mark.parametrize("subscribers", [0, 1, 16])


@pytest.fixture
def topic() -> Iterator[Any]:
    """A topic with default settings, gone afterwards."""
    with ringpost.connect(f"ring:micro-{os.getpid()}") as broker:
        try:
            yield broker.topic("micro")
        finally:
            broker.destroy()


def drain(audience: list[Any]) -> None:
    """Every subscriber gets what there is."""
    for subscriber in audience:
        while subscriber.lag:
            subscriber.receive_many(COUNT)


@each_audience
@pytest.mark.benchmark(group="publish: 1024 messages")
def test_publish(benchmark: Any, topic: Any, subscribers: int) -> None:
    """One a call."""
    audience = [topic.subscribe() for _ in range(subscribers)]

    def publish() -> None:
        for _ in range(COUNT):
            topic.publish(SMALL.item)

    rounds(benchmark, publish, before=lambda: drain(audience))
    assert all(subscriber.lag == COUNT for subscriber in audience)


@each_audience
@pytest.mark.benchmark(group="publish: 1024 messages")
def test_publish_many(benchmark: Any, topic: Any, subscribers: int) -> None:
    """All in one call."""
    audience = [topic.subscribe() for _ in range(subscribers)]
    messages = [("", SMALL.item)] * COUNT
    rounds(benchmark, lambda: topic.publish_many(messages), before=lambda: drain(audience))
    assert all(subscriber.lag == COUNT for subscriber in audience)


@pytest.mark.benchmark(group="receive from a topic: 1024 messages")
@pytest.mark.parametrize("pattern", ["#", "eu.*"])
def test_receive_many(benchmark: Any, topic: Any, pattern: str) -> None:
    """What one subscriber does, 256 a call; with and without a pattern to compare."""
    subscriber = topic.subscribe(pattern)
    messages = [("eu.dax", SMALL.item)] * COUNT

    def receive() -> None:
        for _ in range(COUNT // 256):
            subscriber.receive_many(256)

    rounds(benchmark, receive, before=lambda: topic.publish_many(messages))
    assert subscriber.lag == 0
