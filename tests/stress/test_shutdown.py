"""shutdown() in the middle of everything: all calls end, and what was put before is not lost."""

from __future__ import annotations

import random
import time

import pytest
from crash.cargo import Cargo
from crash.children import Nursery
from crash.storm import random_seed
from crash.workers import Site, Work

import ringpost
from stress.crowd import Crowd, all_well, exact

WORKS = {
    "single": Work(),
    "batches": Work(put_batches=(30, 1), get_limits=(20, 1)),
    "mixed sizes": Work(Cargo((8, 20_000, 50_000))),
    "maxsize 2": Work(maxsize=2),
}
WITHOUT_END = 1 << 30
REPETITIONS = 4


@pytest.mark.parametrize("crowd", [Crowd(2, 1), Crowd(1, 2)], ids=str)
@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_what_was_put_before_is_taken(
    broker: ringpost.Broker, fork: Nursery, crowd: Crowd, work: Work
) -> None:
    rng = random.Random(random_seed())
    for number in range(REPETITIONS):
        queue = broker.queue(str(number), capacity=work.capacity, maxsize=work.maxsize)
        site = Site(queue, work)
        everybody = crowd.consumers(fork, site) + crowd.producers(fork, site, WITHOUT_END)
        time.sleep(rng.uniform(0.01, 0.1))
        queue.shutdown()
        all_well(everybody)
        assert exact(site.ledger.audit()).taken == queue._log.info()["next_sequence"]


@pytest.mark.parametrize("crowd", [Crowd(2, 1), Crowd(1, 2)], ids=str)
@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_immediate_shutdown_discards_the_rest(
    broker: ringpost.Broker, fork: Nursery, crowd: Crowd, work: Work
) -> None:
    rng = random.Random(random_seed())
    for number in range(REPETITIONS):
        queue = broker.queue(str(number), capacity=work.capacity, maxsize=work.maxsize)
        site = Site(queue, work)
        everybody = crowd.consumers(fork, site) + crowd.producers(fork, site, WITHOUT_END)
        time.sleep(rng.uniform(0.01, 0.1))
        queue.shutdown(immediate=True)
        info = queue._log.info()  # nothing may change after that
        all_well(everybody)
        discarded = info["next_sequence"] - info["unfinished"]
        audit = site.ledger.audit(discarded)
        assert (audit.confirmed, audit.taken) == (info["next_sequence"], info["unfinished"])
        later = queue._log.info()
        for what in ("next_sequence", "unfinished", "used_bytes"):
            assert later[what] == info[what], what
        assert later["ready"] == queue.qsize() == 0
