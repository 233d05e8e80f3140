"""kill -9 of publishers and subscribers: what was confirmed reaches every named one, nobody is held back."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from typing import Any

import pytest

import ringpost
from crash.cargo import Cargo
from crash.children import Child, Nursery
from crash.deliveries import ACKED, RECEIVED, Deliveries, Diary
from crash.storm import LEAST, ROUNDS, random_seed
from crash.workers import PATIENCE

SECONDS = 2.0
CAPACITY = 256 << 10
NAMES = ("alpha", "beta")

Topic = ringpost.Topic
pytestmark = pytest.mark.timeout(60 + 10 * SECONDS * ROUNDS)


def publish(topic: Topic, cargo: Cargo, accounts: list[Deliveries], life: int) -> None:
    number = 0
    while True:
        topic.publish(cargo.make(life, number), subject=f"life.{life}", timeout=PATIENCE)
        number += 1
        for account in accounts:
            account.confirm(life, number)


def listen_by_name(topic: Topic, name: str, cargo: Cargo, diary: Diary) -> None:
    with topic.subscribe(name=name, start="earliest") as subscriber:
        while True:
            receive_one(subscriber, cargo, diary)


def receive_one(subscriber: ringpost.Subscriber, cargo: Cargo, diary: Diary) -> None:
    message = subscriber.receive(timeout=PATIENCE)
    life, number = cargo.read(message.body)
    assert message.subject == f"life.{life}"
    diary.note(RECEIVED, life, number)
    message.ack()
    diary.note(ACKED, life, number)


def listen_for_a_while(topic: Topic, cargo: Cargo) -> None:
    """Without a name: it gets all that comes while it is there, in order; its death sets it free."""
    last: dict[int, int] = {}
    with topic.subscribe("life.#") as subscriber:
        while True:
            life, number = cargo.read(subscriber.receive(timeout=PATIENCE).body)
            assert number == last.get(life, number - 1) + 1, "one of those in between was lost"
            last[life] = number


def listen_if_there_is_time(topic: Topic, cargo: Cargo) -> None:
    """Overrun at times, and told by how many: the sequences it got and those it lost are all there were."""
    lost, sequence = 0, None
    with topic.subscribe(on_lag="drop-oldest") as subscriber:
        while True:
            message = subscriber.receive(timeout=PATIENCE)
            cargo.read(message.body)
            if sequence is not None:
                assert message.sequence == sequence + 1 + message.lost
            sequence = message.sequence
            lost += message.lost
            assert subscriber.lost == lost
            if random.random() < 0.001:
                time.sleep(0.02)


def test_storm_over_subscribers(broker: ringpost.Broker, fork: Nursery) -> None:
    topic, cargo = broker.topic("t", capacity=CAPACITY), Cargo((8, 100, 17_000))
    rng = random.Random(random_seed())
    for name in NAMES:
        topic.subscribe(name=name, start="earliest").close()
    for _ in range(ROUNDS):
        accounts = {name: Deliveries() for name in NAMES}

        def start_publisher(accounts: dict[str, Deliveries] = accounts) -> Child:
            life = {each.new_life() for each in accounts.values()}.pop()
            return fork(publish, topic, cargo, list(accounts.values()), life)

        starters = [start_publisher, start_publisher]
        for name in NAMES:
            for diary in (accounts[name].new_diary(), accounts[name].new_diary()):
                starters.append(lambda n=name, d=diary: fork(listen_by_name, topic, n, cargo, d))
        starters.append(lambda: fork(listen_for_a_while, topic, cargo))
        starters.append(lambda: fork(listen_if_there_is_time, topic, cargo))
        children = [start() for start in starters]
        kills, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end or kills < LEAST * SECONDS:
            time.sleep(rng.uniform(0.0001, 0.02))
            victim = rng.randrange(len(children))
            assert not children[victim].ended(), "a survivor had to wait too long, or failed"
            children[victim].kill()
            children[victim] = starters[victim]()
            kills += 1
        for child in children:
            child.kill()
        for name in NAMES:
            take_the_rest(topic, name, cargo, accounts[name].new_diary())
            account = accounts[name].audit()
            print(f"{kills} kills; {name}: {account}")
            assert account.received >= kills
        topic.publish(b"after the storm", timeout=PATIENCE)
        for name in NAMES:
            with topic.subscribe(name=name) as subscriber:
                message = subscriber.receive(timeout=PATIENCE)
                assert message.body == b"after the storm"
                message.ack()
        assert {each.name for each in topic.stats().subscribers} == set(NAMES)


def take_the_rest(topic: Topic, name: str, cargo: Cargo, diary: Diary) -> None:
    with topic.subscribe(name=name, prefetch=1) as subscriber:
        while True:
            mine = next(each for each in topic.stats().subscribers if each.name == name)
            if not mine.ready and not mine.in_flight:
                return
            receive_one(subscriber, cargo, diary)


def fill(topic: Topic) -> None:
    try:
        while True:
            topic.publish(bytes(1000), timeout=0)
    except ringpost.Full:
        return


def test_a_dead_subscriber_without_a_name_holds_nobody_back(broker: ringpost.Broker, fork: Nursery) -> None:
    topic = broker.topic("t", capacity=CAPACITY)

    def subscribe_and_wait() -> None:
        subscriber = topic.subscribe()
        time.sleep(60)
        subscriber.close()

    children = [fork(subscribe_and_wait) for _ in range(3)]
    topic.wait_for_subscribers(3, timeout=PATIENCE)
    fill(topic)
    for child in children:
        child.kill()
    for _ in range(1000):
        topic.publish(bytes(1000), timeout=PATIENCE)
    assert topic.subscribers() == ()


def test_each_publisher_comes_in_order_where_nobody_dies(broker: ringpost.Broker, fork: Nursery) -> None:
    topic, cargo, count = broker.topic("t", capacity=CAPACITY), Cargo((8, 3000)), 1500

    def publish_all(life: int) -> None:
        topic.wait_for_subscribers(5, timeout=PATIENCE)
        for number in range(count):
            topic.publish(cargo.make(life, number), timeout=PATIENCE)

    def receive_all(name: str | None) -> None:
        numbers: defaultdict[int, list[int]] = defaultdict(list)
        with topic.subscribe(name=name) as subscriber:
            for _ in range(2 * count):
                with subscriber.receive(timeout=PATIENCE) as message:
                    life, number = cargo.read(message.body)
                    numbers[life].append(number)
        assert numbers == {0: list(range(count)), 1: list(range(count))}

    names: list[Any] = [None, None, None, "a", "b"]
    children = [fork(receive_all, name) for name in names] + [fork(publish_all, life) for life in range(2)]
    assert [child.wait() for child in children] == [0] * 7
