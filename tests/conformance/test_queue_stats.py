"""Numbers of a queue: the same for every process that asks."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, eventually


@pytest.fixture
def queue(binding: Any, broker: ringpost.Broker) -> ringpost.Queue[Any]:
    return broker.queue("jobs")


def test_a_new_queue_is_all_zeros(queue: ringpost.Queue[Any]) -> None:
    stats = queue.stats()
    assert (stats.name, stats.sent, stats.ready, stats.unfinished, stats.used_bytes) == ("jobs", 0, 0, 0, 0)
    assert (stats.capacity, stats.participants, stats.dead_lettered) == (16 << 20, 1, 0)
    assert (stats.holdings, stats.groups) == ((), ())
    own = stats.consumers
    assert own.oldest_age is None
    assert (own.ready, own.in_flight, own.delivered, own.acked, own.redelivered, own.returned) == (0,) * 6


def test_every_number_counts_what_it_says(queue: ringpost.Queue[Any]) -> None:
    producer = queue.producer()
    producer.send_many(range(10))
    producer.send("expired", ttl=0.001)
    time.sleep(0.03)
    with queue.consumer(prefetch=1, dead_letters=True) as consumer:
        consumer.receive(0).ack()
        consumer.receive(0).nack()
        consumer.receive(0).reject("no")
        messages = [consumer.receive(0) for _ in range(3)]
        stats = queue.stats()
        own = stats.consumers
        assert (stats.sent, stats.ready, stats.dead_lettered) == (11, 6, 1)
        assert (own.delivered, own.acked, own.returned, own.redelivered) == (6, 2, 1, 1)
        assert (own.rejected, own.in_flight, own.expired) == (1, 3, 0)
        assert own.lag_bytes > 0
        assert own.oldest_age is not None
        assert 0 <= own.oldest_age < BOUND
        consumer.ack_many(messages)
        for _ in range(5):
            consumer.receive(0).ack()
        with pytest.raises(ringpost.Empty):
            consumer.receive(0)
    own = queue.stats().consumers
    assert (own.acked, own.expired, own.in_flight, own.ready) == (11, 1, 0, 0)


def test_who_holds_what(queue: ringpost.Queue[Any]) -> None:
    queue.put_many(range(5))
    child = os.fork()
    if child == 0:
        consumer = queue.consumer(prefetch=2, lease=60)
        consumer.receive(BOUND)
        time.sleep(60)
    try:
        eventually(lambda: queue.stats().consumers.in_flight == 2)
        with queue.consumer(prefetch=1) as consumer:
            mine = consumer.receive(0)
            by_pid = {each.pid: each for each in queue.stats().holdings}
            assert (by_pid[child].messages, by_pid[child].deliveries, by_pid[child].first) == (2, 1, 0)
            assert by_pid[child].remaining is not None
            assert 50 < by_pid[child].remaining <= 60
            assert (by_pid[os.getpid()].messages, by_pid[os.getpid()].first) == (1, 2)
            assert by_pid[os.getpid()].remaining is None
            mine.ack()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_other_processes_see_the_same(queue: ringpost.Queue[Any], broker: ringpost.Broker) -> None:
    queue.put_many(range(7))
    with queue.consumer(prefetch=3) as consumer:
        consumer.receive(0)
        report = broker.queue("report")
        child = os.fork()
        if child == 0:
            try:
                stats = ringpost.connect(broker.url).queue("jobs").stats()
                report.put([stats.sent, stats.ready, stats.consumers.in_flight])
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert report.get(timeout=BOUND) == [7, 4, 3]


def test_the_broker_has_all_of_them(queue: ringpost.Queue[Any], broker: ringpost.Broker) -> None:
    broker.topic("news").publish("x")
    queue.put("y")
    stats = broker.stats()
    assert stats.url == broker.url
    assert [(each.name, each.ready) for each in stats.queues] == [("jobs", 1)]
    assert [(each.name, each.published) for each in stats.topics] == [("news", 1)]
