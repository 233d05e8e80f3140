"""Hundreds of kill -9 of consumers that hold leases, and of producers: everything confirmed is handled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

import ringpost
from crash.cargo import Cargo
from crash.children import Child, Nursery
from crash.deliveries import ACKED, RECEIVED, Account, Deliveries, Diary
from crash.storm import LEAST, ROUNDS, random_seed
from crash.workers import PATIENCE

SECONDS = 1.5
CAPACITY = 256 << 10
LEASE = 0.02  # seconds

Queue = ringpost.Queue[Any]
Handle = Callable[[ringpost.Consumer, Cargo, Diary], None]

pytestmark = pytest.mark.timeout(60 + 10 * SECONDS * ROUNDS)


def produce(queue: Queue, cargo: Cargo, deliveries: Deliveries, life: int) -> None:
    producer, number = queue.producer(), 0
    while True:
        producer.send(cargo.make(life, number), headers={"number": number}, timeout=PATIENCE)
        number += 1
        deliveries.confirm(life, number)


def one_by_one(consumer: ringpost.Consumer, cargo: Cargo, diary: Diary) -> None:
    message = consumer.receive(timeout=PATIENCE)
    life, number = cargo.read(message.body)
    diary.note(RECEIVED, life, number)
    message.ack()
    diary.note(ACKED, life, number)


def in_batches(consumer: ringpost.Consumer, cargo: Cargo, diary: Diary) -> None:
    messages = consumer.receive_many(40, timeout=PATIENCE)
    known = [cargo.read(each.body) for each in messages]
    for each in known:
        diary.note(RECEIVED, *each)
    consumer.ack_many(messages)
    for each in known:
        diary.note(ACKED, *each)


def out_of_order(consumer: ringpost.Consumer, cargo: Cargo, diary: Diary) -> None:
    """Some are given back first, at once or later; the others acked in any order."""
    messages = consumer.receive_many(20, timeout=PATIENCE)
    random.shuffle(messages)
    for message in messages:
        life, number = cargo.read(message.body)
        diary.note(RECEIVED, life, number)
        if random.random() < 0.3:
            message.nack(delay=random.choice([None, 0.001]))
        else:
            message.ack()
            diary.note(ACKED, life, number)


def coming_and_going(consumer: ringpost.Consumer, cargo: Cargo, diary: Diary) -> None:
    """Closes with messages in its hands, and opens another consumer."""
    one_by_one(consumer, cargo, diary)
    consumer.receive(timeout=PATIENCE)
    consumer.close()


def too_late_at_times(consumer: ringpost.Consumer, cargo: Cargo, diary: Diary) -> None:
    """The lease ends before the ack, or is extended before it ends: who acks late is told."""
    message = consumer.receive(timeout=PATIENCE)
    life, number = cargo.read(message.body)
    diary.note(RECEIVED, life, number)
    try:
        if random.random() < 0.1:
            message.extend(0.02)
        if random.random() < 0.02:
            time.sleep(random.uniform(0, 2 * LEASE))
        message.ack()
    except ringpost.LeaseLost:
        return
    diary.note(ACKED, life, number)


@dataclass(frozen=True)
class Way:
    handle: Handle
    prefetch: int = 32
    lease: float | None = None
    cargo: Cargo = field(default_factory=Cargo)
    priorities: bool | None = None


WAYS = {
    "one by one": Way(one_by_one),
    "without prefetching": Way(one_by_one, prefetch=1),
    "in batches": Way(in_batches),
    "in batches of large ones": Way(in_batches, cargo=Cargo((8, 200, 20_000))),
    "out of order": Way(out_of_order),
    "coming and going": Way(coming_and_going, prefetch=4),
    "with leases that end": Way(too_late_at_times, prefetch=4, lease=LEASE),
    "with priorities": Way(out_of_order, priorities=True),
}


def consume(queue: Queue, way: Way, diary: Diary) -> None:
    while True:
        with queue.consumer(prefetch=way.prefetch, lease=way.lease) as consumer:
            while not consumer.closed:
                way.handle(consumer, way.cargo, diary)


def drain(queue: Queue, cargo: Cargo, diary: Diary) -> None:
    """Handles what is left, and what the dead hold."""
    with queue.consumer(prefetch=1) as consumer:
        while True:
            stats = queue.stats()
            if not stats.ready and not stats.consumers.in_flight:
                return
            one_by_one(consumer, cargo, diary)


def storm(queue: Queue, way: Way, fork: Nursery, deliveries: Deliveries) -> int:
    """Two producers and three consumers. Returns how many were killed."""
    rng = random.Random(random_seed())

    def start(diary: Diary | None) -> tuple[Child, Diary | None]:
        if diary is None:
            return fork(produce, queue, way.cargo, deliveries, deliveries.new_life()), None
        return fork(consume, queue, way, diary), diary

    posts = [start(None) for _ in range(2)] + [start(deliveries.new_diary()) for _ in range(3)]
    kills, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end or kills < LEAST * SECONDS:
        time.sleep(rng.uniform(0.0001, 0.02))
        at = rng.randrange(len(posts))
        child, diary = posts[at]
        assert not child.ended(), "a survivor had to wait too long, or failed"
        child.kill()
        posts[at] = start(diary)
        kills += 1
    for child, _ in posts:
        child.kill()
    drain(queue, way.cargo, deliveries.new_diary())
    return kills + len(posts)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_storm_over_consumers(broker: ringpost.Broker, fork: Nursery, way: Way) -> None:
    queue = broker.queue("q", capacity=CAPACITY, priorities=way.priorities)
    for _ in range(ROUNDS):
        deliveries = Deliveries()
        kills = storm(queue, way, fork, deliveries)
        account = deliveries.audit(leases_end=way.lease is not None)
        print(f"{kills} kills; {account}")
        assert account.received >= kills
        check_whole(queue)


def check_whole(queue: Queue) -> None:
    """Nothing is held, nothing is left, all room is there again."""
    everything = bytes(CAPACITY // 2)
    queue.put(everything, timeout=PATIENCE)  # finds what the dead left in the pool
    assert queue.get(timeout=PATIENCE) == everything
    stats = queue.stats()
    assert (stats.ready, stats.consumers.in_flight, stats.used_bytes, stats.pool_used) == (0, 0, 0, 0)


def test_where_nobody_dies_everything_is_handled_once(broker: ringpost.Broker, fork: Nursery) -> None:
    queue, cargo, deliveries = broker.queue("q", capacity=CAPACITY), Cargo(), Deliveries()
    count = 3000

    def send_all(life: int) -> None:
        for number in range(count):
            queue.producer().send(cargo.make(life, number), timeout=PATIENCE)
            deliveries.confirm(life, number + 1)

    def handle_all(diary: Diary) -> None:
        for message in queue.consumer():
            with message:
                known = cargo.read(message.body)
                diary.note(RECEIVED, *known)
            diary.note(ACKED, *known)

    producers = [fork(send_all, deliveries.new_life()) for _ in range(2)]
    consumers = [fork(handle_all, deliveries.new_diary()) for _ in range(3)]
    assert [child.wait() for child in producers] == [0, 0]
    queue.shutdown()
    assert [child.wait() for child in consumers] == [0, 0, 0]
    assert deliveries.audit() == Account(confirmed=2 * count, received=2 * count, again=0, acked=2 * count)
