"""kill -9 of a named subscriber's only process, and of publishers: each publisher comes in order."""

from __future__ import annotations

import random
import time

import pytest

import ringpost
from crash.cargo import Cargo
from crash.children import Child, Nursery
from crash.deliveries import RECEIVED, Deliveries, Diary
from crash.storm import ROUNDS, random_seed
from crash.test_storm_topics import listen_by_name, publish, take_the_rest

SECONDS = 2.0
NAME = "audit"

pytestmark = pytest.mark.timeout(60 + 10 * SECONDS * ROUNDS)


def check_order(deliveries: Deliveries) -> None:
    """What comes again was there before; what comes for the first time is the next of its publisher."""
    following: dict[int, int] = {}
    entries = [entry for diary in deliveries.diaries for entry in diary.entries()]
    for message, what, _ in sorted(entries, key=lambda entry: entry[2]):
        if what == RECEIVED:
            life, number = message >> 32, message & 0xFFFFFFFF
            expected = following.get(life, 0)
            assert number <= expected, f"{number} of publisher {life} came before {expected}"
            following[life] = max(expected, number + 1)


def test_each_publisher_comes_in_order(broker: ringpost.Broker, fork: Nursery) -> None:
    topic, cargo = broker.topic("t", capacity=256 << 10), Cargo((8, 100, 17_000))
    topic.subscribe(name=NAME, start="earliest").close()
    rng = random.Random(random_seed())
    for _ in range(ROUNDS):
        deliveries = Deliveries()
        diary = deliveries.new_diary()

        def start_publisher(deliveries: Deliveries = deliveries) -> Child:
            return fork(publish, topic, cargo, [deliveries], deliveries.new_life())

        def start_subscriber(diary: Diary = diary) -> Child:
            return fork(listen_by_name, topic, NAME, cargo, diary)

        starters = [start_publisher, start_publisher, start_subscriber]
        children = [start() for start in starters]
        kills, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.0001, 0.02))
            victim = rng.randrange(len(children))
            assert not children[victim].ended(), "a survivor had to wait too long, or failed"
            children[victim].kill()
            children[victim] = starters[victim]()
            kills += 1
        for child in children:
            child.kill()
        take_the_rest(topic, NAME, cargo, deliveries.new_diary())
        account = deliveries.audit()
        print(f"{kills} kills; {account}")
        assert account.received >= kills
        check_order(deliveries)
