"""Several producers, several consumers, a queue that is full or empty all the time: every message counts."""

from __future__ import annotations

import pytest
from crash.cargo import Cargo
from crash.children import Nursery
from crash.workers import Site, Work

import ringpost
from stress.crowd import Crowd, all_well, exact

CROWDS = [Crowd(3, 1), Crowd(1, 3), Crowd(2, 2)]
MIXED = (8, 20_000, 200, 16_384, 40_000, 16_385)

WORKS = {  # and messages of each producer
    "single": (Work(), 20_000),
    "batches": (Work(put_batches=(50, 3), get_limits=(64, 5)), 40_000),
    "batches and singles": (Work(put_batches=(1, 40, 1), get_limits=(1, 30)), 30_000),
    "bulky": (Work(Cargo((4000, 16_384))), 10_000),
    "large": (Work(Cargo((20_000, 60_000))), 3000),
    "mixed sizes in batches": (Work(Cargo(MIXED), put_batches=(1, 12), get_limits=(10, 1)), 5000),
    "maxsize 1": (Work(maxsize=1), 5000),
    "maxsize 2, batches": (Work(maxsize=2, put_batches=(5, 1), get_limits=(3,)), 8000),
    "maxsize 3, large": (Work(Cargo(MIXED), maxsize=3), 4000),
}


@pytest.mark.parametrize("crowd", CROWDS, ids=str)
@pytest.mark.parametrize(("work", "each"), WORKS.values(), ids=WORKS)
def test_nothing_lost_nothing_twice_all_in_order(
    broker: ringpost.Broker, fork: Nursery, crowd: Crowd, work: Work, each: int
) -> None:
    queue = broker.queue("q", capacity=work.capacity, maxsize=work.maxsize)
    site = Site(queue, work)
    consumers = crowd.consumers(fork, site)
    all_well(crowd.producers(fork, site, each))
    queue.shutdown()
    all_well(consumers)
    assert exact(site.ledger.audit()).taken == each * crowd.processes * crowd.threads
    info = queue._log.info()
    assert (info["ready"], info["used_bytes"]) == (0, 0)


@pytest.mark.parametrize("crowd", CROWDS, ids=str)
def test_an_anonymous_queue(fork: Nursery, crowd: Crowd) -> None:
    """Pickles, as multiprocessing.Queue does."""
    work = Work(Cargo((8, 20_000)))
    with ringpost.Queue(capacity=work.capacity) as queue:
        site = Site(queue, work)
        consumers = crowd.consumers(fork, site)
        all_well(crowd.producers(fork, site, 3000))
        queue.shutdown()
        all_well(consumers)
        exact(site.ledger.audit())
