"""kill -9 of who sends with a delay and of who moves what is due: what was confirmed comes, not too early."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

import ringpost
from crash.cargo import Cargo
from crash.children import Child, Nursery
from crash.deliveries import ACKED, RECEIVED, Account, Deliveries, Diary
from crash.storm import ROUNDS, random_seed
from crash.workers import PATIENCE
from ringpost.scheduled import Schedule

SECONDS = 3.0
CAPACITY = 256 << 10
LONGEST = 0.03  # seconds of delay

Queue = ringpost.Queue[Any]
pytestmark = pytest.mark.timeout(60 + 10 * SECONDS * ROUNDS)


def send_with_delays(
    queue: Queue, cargo: Cargo, deliveries: Deliveries, life: int, most: int = 1 << 30
) -> None:
    producer = queue.producer()
    for number in range(most):
        delay = random.choice([0, LONGEST * random.random()])
        due = time.time_ns() + int(delay * 1e9)
        producer.send(cargo.make(life, number), headers={"due": due}, delay=delay)
        deliveries.confirm(life, number + 1)


def receive_one(consumer: ringpost.Consumer, cargo: Cargo, diary: Diary) -> None:
    message = consumer.receive(timeout=PATIENCE)
    assert time.time_ns() >= message.headers["due"], "it came too early"
    life, number = cargo.read(message.body)
    diary.note(RECEIVED, life, number)
    message.ack()
    diary.note(ACKED, life, number)


def consume(queue: Queue, cargo: Cargo, diary: Diary) -> None:
    with queue.consumer(prefetch=4) as consumer:
        while True:
            receive_one(consumer, cargo, diary)


def waiting(broker: ringpost.Broker, queue: Queue) -> int:
    """Messages that are not in the queue yet."""
    return Schedule(queue._log, broker._engine.side_store).count()


def drain(broker: ringpost.Broker, queue: Queue, cargo: Cargo, diary: Diary) -> None:
    with queue.consumer(prefetch=1) as consumer:
        while (stats := queue.stats()).ready or stats.consumers.in_flight or waiting(broker, queue):
            receive_one(consumer, cargo, diary)


@pytest.mark.parametrize("priorities", [None, True], ids=["one level", "priorities"])
def test_what_was_confirmed_comes_when_it_is_due(
    broker: ringpost.Broker, fork: Nursery, priorities: bool | None
) -> None:
    queue, cargo = broker.queue("q", capacity=CAPACITY, priorities=priorities), Cargo((8, 300))
    rng = random.Random(random_seed())
    for _ in range(ROUNDS):
        deliveries = Deliveries()

        def start(diary: Diary | None, deliveries: Deliveries = deliveries) -> tuple[Child, Diary | None]:
            if diary is None:
                return fork(send_with_delays, queue, cargo, deliveries, deliveries.new_life()), None
            return fork(consume, queue, cargo, diary), diary

        posts = [start(None) for _ in range(2)] + [start(deliveries.new_diary()) for _ in range(2)]
        kills, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.001, 0.03))
            at = rng.randrange(len(posts))
            child, diary = posts[at]
            assert not child.ended(), "a survivor had to wait too long, or failed"
            child.kill()
            posts[at] = start(diary)
            kills += 1
        for child, _ in posts:
            child.kill()
        drain(broker, queue, cargo, deliveries.new_diary())
        account = deliveries.audit(copies=True)
        print(f"{kills} kills; {account}")
        assert account.received >= kills
        assert queue.qsize() == waiting(broker, queue) == 0


def test_where_nobody_dies_each_comes_once(broker: ringpost.Broker, fork: Nursery) -> None:
    queue, cargo, deliveries, count = broker.queue("q"), Cargo(), Deliveries(), 500
    senders = [
        fork(send_with_delays, queue, cargo, deliveries, deliveries.new_life(), count) for _ in range(2)
    ]
    diaries = [deliveries.new_diary() for _ in range(2)]
    consumers = [fork(consume, queue, cargo, diary) for diary in diaries]
    assert [child.wait() for child in senders] == [0, 0]
    deadline = time.monotonic() + PATIENCE
    while queue.stats().consumers.acked < 2 * count:
        assert time.monotonic() < deadline, "not all of them came"
        time.sleep(0.01)
    for child in consumers:
        child.wait_until_asleep()
        child.kill()
    assert deliveries.audit() == Account(confirmed=2 * count, received=2 * count, again=0, acked=2 * count)
