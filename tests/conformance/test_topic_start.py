"""Where a new subscriber begins."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import ringpost
from conformance.topics import bodies, publish_numbers

POLICIES = pytest.mark.parametrize("on_lag", ["block", "error", "drop-oldest"])
NAMES = pytest.mark.parametrize("name", [None, "n"])


@pytest.fixture
def topic(binding: Any, broker: ringpost.Broker) -> ringpost.Topic:
    return broker.topic("t", capacity=1 << 20)


@POLICIES
@NAMES
@pytest.mark.parametrize("start", [0, 1, 7, 9])
def test_at_a_sequence(topic: ringpost.Topic, start: int, name: str | None, on_lag: Any) -> None:
    publish_numbers(topic, 10)
    subscriber = topic.subscribe(start=start, name=name, on_lag=on_lag)
    assert bodies(subscriber) == list(range(start, 10))
    topic.publish("new")
    assert bodies(subscriber) == ["new"]


@POLICIES
def test_at_a_sequence_with_a_pattern(topic: ringpost.Topic, on_lag: Any) -> None:
    for number in range(20):
        topic.publish(number, "ab"[number % 2])
    assert bodies(topic.subscribe("b", start=10, on_lag=on_lag)) == [11, 13, 15, 17, 19]


@POLICIES
def test_a_sequence_that_is_overwritten_is_the_earliest(topic: ringpost.Topic, on_lag: Any) -> None:
    for _ in range(3000):
        topic.publish(bytes(1000))
    first = topic.subscribe(start=5, on_lag=on_lag).receive(0)
    earliest = topic.subscribe(start="earliest", on_lag=on_lag).receive(0)
    assert first.sequence == earliest.sequence > 2000


@POLICIES
def test_at_a_time(topic: ringpost.Topic, on_lag: Any) -> None:
    topic.publish("old")
    time.sleep(0.03)
    when = datetime.now(timezone.utc)
    topic.publish("new")
    assert bodies(topic.subscribe(start=when, on_lag=on_lag)) == ["new"]


def test_at_a_local_time(topic: ringpost.Topic) -> None:
    topic.publish("old")
    time.sleep(0.03)
    when = datetime.now()
    topic.publish("new")
    assert bodies(topic.subscribe(start=when)) == ["new"]


def test_at_now_misses_nothing_that_is_published_afterwards(topic: ringpost.Topic) -> None:
    for number in range(50):
        now = datetime.now(timezone.utc)
        topic.publish(number)
        with topic.subscribe(start=now) as subscriber:
            assert number in bodies(subscriber)


def test_at_a_times_own_message(topic: ringpost.Topic) -> None:
    for number in range(5):
        topic.publish(number)
        time.sleep(0.015)
    third = topic.subscribe(start=2).receive(0)
    assert 2 in bodies(topic.subscribe(start=third.timestamp))


@pytest.mark.parametrize("start", [datetime.min, datetime(1960, 1, 1, tzinfo=timezone.utc)])
def test_at_a_time_long_ago_is_the_earliest(topic: ringpost.Topic, start: datetime) -> None:
    publish_numbers(topic, 3)
    assert bodies(topic.subscribe(start=start)) == [0, 1, 2]


def test_at_a_time_to_come_is_the_next(topic: ringpost.Topic) -> None:
    publish_numbers(topic, 3)
    subscriber = topic.subscribe(start=datetime.now(timezone.utc) + timedelta(days=1))
    assert bodies(subscriber) == []


def test_a_named_one_that_exists_goes_on_where_it_was(topic: ringpost.Topic) -> None:
    topic.subscribe(name="n").close()
    publish_numbers(topic, 5)
    for start in ("earliest", 3, datetime.now(timezone.utc)):
        with topic.subscribe(name="n", start=start, prefetch=1) as subscriber:
            first = subscriber.receive(0)
            assert first.body == 0


@NAMES
@pytest.mark.parametrize("start", ["yesterday", "", -1, 1 << 64, 1.5, None, b"earliest"])
def test_what_is_no_start_is_refused_and_leaves_no_place(
    topic: ringpost.Topic, start: Any, name: str | None
) -> None:
    with pytest.raises((ValueError, TypeError)):
        topic.subscribe(start=start, name=name)
    assert topic.subscribers() == ()
