"""SIGSTOP at random moments: the others' calls end at their timeouts; after SIGCONT nothing is lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest

import ringpost
from crash.cargo import Cargo
from crash.children import Child, Flag, Nursery
from crash.ledger import Journal
from crash.storm import ROUNDS, random_seed
from crash.workers import PATIENCE, Site, Work, consume, produce

SECONDS = 1.5
SHORT = 0.02  # seconds: the timeout of the calls made meanwhile
LATE = 1.0  # seconds: how much later than that they may end on a busy machine
pytestmark = pytest.mark.timeout(60 + 10 * SECONDS * ROUNDS)


class Bystander:
    """Puts and takes a little of its own while others are stopped."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.life = site.ledger.new_life()
        self.journal: Journal = site.ledger.new_journal()
        self.put_so_far = 0
        self.outcomes: Counter[str] = Counter()

    def put(self) -> None:
        message = self.site.work.cargo.make(self.life, self.put_so_far)
        self.site.queue.put(message, timeout=SHORT)
        self.put_so_far += 1
        self.site.ledger.confirm(self.life, self.put_so_far)

    def get(self) -> None:
        message = self.site.queue.get(timeout=SHORT)
        self.journal.note(*self.site.work.cargo.read(message))

    def attempt(self, call: Callable[[], None], others: list[Child]) -> None:
        start = time.monotonic()
        outcome = reason = "done"
        try:
            call()
        except (ringpost.Empty, ringpost.Full) as error:
            outcome, reason = type(error).__name__, str(error)
        assert time.monotonic() - start < SHORT + LATE
        self.outcomes[f"{call.__name__}: {outcome}"] += 1
        assert outcome != "Stalled" or any(str(other.pid) in reason for other in others)


@pytest.mark.parametrize(
    "work",
    [
        Work(),
        Work(Cargo((60_000, 8))),  # copied under the consumers' lock
        Work(put_batches=(50,), get_limits=(50,)),
    ],
    ids=["small", "large", "batches"],
)
def test_nothing_hangs_and_nothing_is_lost(broker: ringpost.Broker, fork: Nursery, work: Work) -> None:
    for number in range(ROUNDS):
        queue = broker.queue(f"q{number}", capacity=work.capacity, maxsize=work.maxsize)
        _stop_and_go(Site(queue, work), fork)


def _stop_and_go(site: Site, fork: Nursery) -> None:
    rng = random.Random(random_seed())
    end = Flag()
    producers = [fork(produce, site, site.ledger.new_life(), end) for _ in range(2)]
    consumers = [fork(consume, site, site.ledger.new_journal()) for _ in range(2)]
    workers = producers + consumers
    bystander = Bystander(site)
    stops = 0
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        time.sleep(rng.uniform(0, 0.003))
        child = rng.choice(workers)
        assert not child.ended(), "it had to wait too long, or failed"
        child.stop()
        stops += 1
        bystander.attempt(bystander.put, workers)
        bystander.attempt(bystander.get, workers)
        child.proceed()
    end.set()
    assert [child.wait(PATIENCE) for child in producers] == [0, 0]
    site.queue.shutdown()
    assert [child.wait(PATIENCE) for child in consumers] == [0, 0]
    assert site.queue.qsize() == 0
    audit = site.ledger.audit()
    print(f"{stops} stops; {dict(bystander.outcomes)}; {audit}")
    assert audit.taken == audit.confirmed > stops
    assert bystander.outcomes["put: done"]
