"""kill -9 while processes open, create, close and delete queues."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

import ringpost
from crash.cargo import Cargo
from crash.children import Nursery
from crash.ledger import Journal
from crash.segment_file import path_of
from crash.storm import ROUNDS, kill_at_random
from crash.workers import PATIENCE, Site, Work, drain

SECONDS = 1.2 * ROUNDS
CAPACITY = 128 << 10
NAMES = ("a", "b")
pytestmark = pytest.mark.timeout(60 + 5 * SECONDS)


def come_and_go(site: Site, url: str, life: int, journal: Journal) -> None:
    """Put one message as one participant, take one as another, and so on."""
    number = 0
    while True:
        with ringpost.connect(url) as broker:
            message = site.work.cargo.make(life, number)
            broker.queue("q", create=False).put(message, timeout=PATIENCE)
            number += 1
            site.ledger.confirm(life, number)
        with ringpost.connect(url) as broker:
            journal.reach()
            message = broker.queue("q", create=False).get(timeout=PATIENCE)
            journal.note(*site.work.cargo.read(message))
            journal.rest()


def test_attaching_and_detaching(broker: ringpost.Broker, fork: Nursery) -> None:
    """This process has the queue closed meanwhile: children must not inherit an open handle."""
    queue = broker.queue("q", capacity=CAPACITY)
    site = Site(queue, Work(Cargo((8, 17_000))))
    queue.close()

    def start() -> object:
        ledger = site.ledger
        return fork(come_and_go, site, broker.url, ledger.new_life(), ledger.new_journal(1 << 16))

    kills = kill_at_random(start, SECONDS)
    site.queue = broker.queue("q")
    drain(site)
    audit = site.ledger.audit()
    print(f"{kills} kills; {audit}")
    assert audit.taken > kills
    largest = bytes(CAPACITY // 2)
    site.queue.put(largest, timeout=PATIENCE)
    assert site.queue.get(timeout=PATIENCE) == largest
    assert site.queue._log.info()["participants"] == 1


def create_and_delete(url: str) -> None:
    """What others do meanwhile may delete the queue under its hands, and nothing else."""
    number = 0
    while True:
        name = NAMES[number % len(NAMES)]
        number += 1
        with ringpost.connect(url) as broker, contextlib.suppress(ringpost.QueueDeleted):
            queue = broker.queue(name, capacity=CAPACITY)
            queue.put(b"x" * 17_000)
            with contextlib.suppress(ringpost.Empty):
                queue.get_nowait()
            broker.delete(name)


def test_creating_and_deleting(broker: ringpost.Broker, fork: Nursery) -> None:
    directory = Path(path_of(broker.queue("other", capacity=CAPACITY))).parent
    kills = kill_at_random(lambda: fork(create_and_delete, broker.url), SECONDS)
    print(f"{kills} kills")
    assert sorted(os.listdir(directory)) == [name + ".queue" for name in broker.list()]
    assert set(broker.list()) <= {*NAMES, "other"}
    for name in NAMES:
        broker.delete(name)
        queue = broker.queue(name, capacity=CAPACITY)
        queue.put(b"message", timeout=PATIENCE)
        assert queue.get(timeout=PATIENCE) == b"message"
        assert queue.qsize() == 0


def make_anonymous_queues() -> None:
    while True:
        with ringpost.Queue(capacity=CAPACITY) as queue:
            queue.put("item")
            assert queue.get(timeout=PATIENCE) == "item"


def test_anonymous_queues_of_the_killed_are_removed(fork: Nursery) -> None:
    kills = kill_at_random(lambda: fork(make_anonymous_queues), SECONDS)
    print(f"{kills} kills")
    with ringpost.Queue(capacity=CAPACITY) as queue:
        path = Path(path_of(queue))
        assert os.listdir(path.parent) == [path.name]
        queue.put("item")
        assert queue.get(timeout=PATIENCE) == "item"
    del queue
    assert not path.exists()
