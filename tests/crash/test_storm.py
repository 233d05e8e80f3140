"""Hundreds of kill -9 at random moments: nobody hangs, nothing confirmed is lost, nothing comes twice."""

from __future__ import annotations

import pytest

import ringpost
from crash.cargo import Cargo
from crash.children import Nursery
from crash.storm import ROUNDS, Weather, storm
from crash.workers import PATIENCE, Site, Work

SECONDS = 1.2
LARGE = (20_000, 17_000, 30_000)
MIXED = (8, 20_000, 200, 16_384, 40_000, 16_385)

WORKS = {
    "single": Work(),
    "batches": Work(put_batches=(50, 3), get_limits=(64, 5)),
    "batches and singles": Work(put_batches=(1, 40, 1), get_limits=(1, 30)),
    "batches that fill the ring": Work(Cargo((1000,)), put_batches=(100,), get_limits=(63,)),
    "maxsize 1": Work(maxsize=1),
    "maxsize 3, batches": Work(maxsize=3, put_batches=(2, 5), get_limits=(2,)),
    "large": Work(Cargo(LARGE)),
    "large, maxsize 1": Work(Cargo(LARGE), maxsize=1),
    "mixed sizes": Work(Cargo(MIXED)),
    "mixed sizes in batches": Work(Cargo(MIXED), put_batches=(1, 12), get_limits=(10, 1)),
}
each_work = pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
pytestmark = pytest.mark.timeout(60 + 10 * SECONDS * ROUNDS)


def check_after(site: Site, weather: Weather) -> None:
    """Survivors work as if nothing had happened, and all room is there again."""
    queue = site.queue
    assert weather.audit.taken >= weather.kills, "they were killed before they could work"
    assert queue.qsize() == 0
    everything = bytes(site.work.capacity // 2)
    queue.put(everything, timeout=PATIENCE)
    assert queue.get(timeout=PATIENCE) == everything
    info = queue._log.info()
    assert (info["pool_used"], info["used_bytes"], info["participants"]) == (0, 0, 1)


@each_work
def test_storm_over_a_named_queue(broker: ringpost.Broker, fork: Nursery, work: Work) -> None:
    queue = broker.queue("q", capacity=work.capacity, maxsize=work.maxsize)
    for _ in range(ROUNDS):
        site = Site(queue, work)
        check_after(site, storm(site, fork, SECONDS))


def test_storm_over_an_anonymous_queue(fork: Nursery) -> None:
    work = Work(Cargo((8, 5000, 20_000)))
    with ringpost.Queue(capacity=work.capacity) as queue:
        for _ in range(ROUNDS):
            weather = storm(Site(queue, work), fork, SECONDS)
            assert weather.audit.confirmed > weather.kills
            assert queue.qsize() == 0


@pytest.mark.parametrize(("producers", "consumers"), [(1, 4), (4, 1)])
def test_storm_while_most_are_asleep(
    broker: ringpost.Broker, fork: Nursery, producers: int, consumers: int
) -> None:
    """Too many consumers: they wait for messages. Too many producers: they wait for room."""
    work = Work(Cargo((4000,)))
    queue = broker.queue("q", capacity=work.capacity)
    for _ in range(ROUNDS):
        site = Site(queue, work)
        check_after(site, storm(site, fork, SECONDS, producers, consumers))
