"""Many producers and consumers on one queue, in processes and threads, all of them accounted for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from crash.children import Child, Flag, Nursery
from crash.ledger import Audit
from crash.workers import PATIENCE, Site, consume, produce

import ringpost

ENOUGH = Flag()  # never set: producers go on until they have put what they are to put


@dataclass(frozen=True)
class Crowd:
    """On each of the two sides."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes}x{self.threads}"

    def start(
        self, fork: Nursery, function: Callable[..., object], arguments: list[tuple[Any, ...]]
    ) -> list[Child]:
        """Run the function for each of the arguments, one for each thread of each process."""
        share = self.threads
        return [
            fork(_in_threads, function, arguments[i * share : (i + 1) * share]) for i in range(self.processes)
        ]

    def producers(self, fork: Nursery, site: Site, each: int) -> list[Child]:
        lives = [site.ledger.new_life() for _ in range(self.processes * self.threads)]
        return self.start(fork, _produce, [(site, life, each) for life in lives])

    def consumers(self, fork: Nursery, site: Site) -> list[Child]:
        journals = [site.ledger.new_journal() for _ in range(self.processes * self.threads)]
        return self.start(fork, consume, [(site, journal) for journal in journals])


def _in_threads(function: Callable[..., object], arguments: list[tuple[Any, ...]]) -> None:
    with ThreadPoolExecutor(len(arguments)) as pool:
        for future in [pool.submit(function, *each) for each in arguments]:
            future.result()


def _produce(site: Site, life: int, each: int) -> None:
    try:
        produce(site, life, ENOUGH, each)
    except ringpost.ShutDown:
        pass


def all_well(children: list[Child]) -> None:
    """They end by themselves, soon, and without an error."""
    assert [child.wait(4 * PATIENCE) for child in children] == [0] * len(children)


def exact(audit: Audit) -> Audit:
    """Nobody died: each message put was taken, and nothing else."""
    assert (audit.missing, audit.tolerated) == (0, 0)
    assert audit.taken == audit.confirmed
    return audit
