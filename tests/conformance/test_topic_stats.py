"""The numbers of a topic: any process sees all of them."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

import ringpost
from conformance.topics import bodies, in_child, publish_numbers


@pytest.fixture
def topic(binding: Any, broker: ringpost.Broker) -> ringpost.Topic:
    return broker.topic("t", capacity=256 << 10)


def of(topic: ringpost.Topic, name: str) -> ringpost.GroupStats:
    return next(each for each in topic.stats().subscribers if each.name == name)


def test_of_a_new_topic(topic: ringpost.Topic) -> None:
    stats = topic.stats()
    assert (stats.name, stats.published, stats.used_bytes, stats.pool_used) == ("t", 0, 0, 0)
    assert (stats.capacity, stats.participants, stats.subscribers) == (256 << 10, 1, ())


def test_what_one_has_before_it_and_behind_it(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(name="n", prefetch=2)
    publish_numbers(topic, 10)
    assert (of(topic, "n").ready, of(topic, "n").in_flight) == (10, 0)
    first, second = (subscriber.receive(0) for _ in range(2))
    assert (of(topic, "n").ready, of(topic, "n").in_flight, of(topic, "n").delivered) == (8, 2, 2)
    first.ack()
    second.nack()
    assert subscriber.receive(0).redelivered
    stats = of(topic, "n")
    assert (stats.acked, stats.returned, stats.redelivered) == (1, 1, 1)
    assert stats.ready + stats.in_flight == 9
    assert topic.stats().published == 10


def test_each_subscriber_has_its_own(topic: ringpost.Topic) -> None:
    one, other = topic.subscribe(name="one"), topic.subscribe("a.*", name="other")
    publish_numbers(topic, 3, "b")
    assert bodies(one) == [0, 1, 2]
    assert bodies(other) == []
    assert (of(topic, "one").acked, of(topic, "other").delivered) == (3, 0)
    assert (of(topic, "one").pattern, of(topic, "other").pattern) == ("", "a.*")
    assert one.lag == other.lag == 0


def test_pid_and_name_say_whose_it_is(topic: ringpost.Topic) -> None:
    subscribers = [topic.subscribe(), topic.subscribe(name="n")]
    unnamed, named = topic.stats().subscribers
    assert (unnamed.pid, named.pid) == (os.getpid(), None)
    assert unnamed.name.startswith(f"{os.getpid()}-")
    assert topic.subscribers() == (unnamed.name, "n")
    assert len(subscribers) == 2


def test_lag_is_told_in_messages_bytes_and_seconds(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(name="n")
    assert (of(topic, "n").oldest_age, of(topic, "n").lag_bytes) == (None, 0)
    for _ in range(10):
        topic.publish(bytes(1000))
    time.sleep(0.02)
    stats = of(topic, "n")
    assert stats.oldest_age is not None
    assert stats.oldest_age >= 0.01
    assert 10_000 <= stats.lag_bytes < 12_000
    assert subscriber.lag == 10
    bodies(subscriber)
    assert (of(topic, "n").oldest_age, of(topic, "n").lag_bytes, subscriber.lag) == (None, 0, 0)


def test_what_was_lost_is_counted(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(name="n", on_lag="drop-oldest")
    for _ in range(1000):
        topic.publish(bytes(1000), timeout=0)
    received = len(subscriber.receive_many(1024, 0))
    while subscriber.lag:
        received += len(subscriber.receive_many(1024, 0))
    assert of(topic, "n").lost == subscriber.lost == 1000 - received
    assert of(topic, "n").delivered == received


def test_expired_and_rejected_ones_are_counted(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(name="n")
    topic.publish("gone", ttl=0.001)
    topic.publish("bad")
    time.sleep(0.02)
    subscriber.receive(0).reject()
    assert (of(topic, "n").expired, of(topic, "n").rejected) == (1, 1)


def test_other_processes_see_the_same(topic: ringpost.Topic, broker: ringpost.Broker) -> None:
    subscriber = topic.subscribe(name="n")
    publish_numbers(topic, 5)
    subscriber.receive(0).ack()

    def look() -> None:
        there = ringpost.connect(broker.url).topic("t").stats()
        assert (there.published, there.subscribers[0].acked, there.participants) == (5, 1, 2)

    in_child(look)


def test_a_broker_tells_of_all_its_topics(topic: ringpost.Topic, broker: ringpost.Broker) -> None:
    broker.topic("a").publish(1)
    stats = broker.stats()
    assert [(each.name, each.published) for each in stats.topics] == [("a", 1), ("t", 0)]
    assert broker.topics() == ["a", "t"]


def test_large_messages_are_counted_in_the_pool(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe()
    topic.publish(bytes(40_000))
    assert topic.stats().pool_used >= 40_000
    assert len(subscriber.receive(0).body) == 40_000
