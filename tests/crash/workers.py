"""Producers and consumers that work until they are killed (or told to end), and account for each message."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ringpost
from crash.cargo import Cargo
from crash.children import Flag
from crash.ledger import Journal, Ledger

PATIENCE = 10  # seconds: a wait that takes longer while others work is a hang, and fails


@dataclass(frozen=True)
class Work:
    """How a queue is used."""

    cargo: Cargo = field(default_factory=Cargo)
    put_batches: tuple[int, ...] = (1,)  # 1: put(), more: put_many(), one after another
    get_limits: tuple[int, ...] = (1,)
    maxsize: int = 0
    capacity: int = 128 << 10


@dataclass
class Site:
    """One queue, its work, its accounts."""

    queue: ringpost.Queue[Any]
    work: Work
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(max(self.work.put_batches))


def produce(site: Site, life: int, stop: Flag, most: int = 1 << 30) -> None:
    """Puts message after message, up to `most`; each put that returned is confirmed."""
    number = 0
    for batch in _in_turn(site.work.put_batches):
        if stop or number >= most:
            return
        batch = min(batch, most - number)
        items = [site.work.cargo.make(life, n) for n in range(number, number + batch)]
        try:
            if batch == 1:
                site.queue.put(items[0], timeout=PATIENCE)
            else:
                assert site.queue.put_many(items, timeout=PATIENCE) == batch
        except ringpost.ShutDown as shut_down:
            site.ledger.confirm(life, number + getattr(shut_down, "put", 0))
            raise
        number += batch
        site.ledger.confirm(life, number)


def consume(site: Site, journal: Journal, patience: float = PATIENCE) -> None:
    """Takes until the queue stays empty for so long (then Empty is raised) or is shut down."""
    for limit in _in_turn(site.work.get_limits):
        journal.reach(limit)
        try:
            if limit == 1:
                items = [site.queue.get(timeout=patience)]
            else:
                items = site.queue.get_many(limit, timeout=patience)
        except (ringpost.Empty, ringpost.ShutDown) as nothing:
            journal.rest()
            if isinstance(nothing, ringpost.ShutDown):
                return
            raise
        for item in items:
            journal.note(*site.work.cargo.read(item))
        journal.rest()


def drain(site: Site) -> None:
    """Take and note whatever is left."""
    journal = site.ledger.new_journal()
    while site.queue.qsize():
        journal.reach(1)
        journal.note(*site.work.cargo.read(site.queue.get(timeout=PATIENCE)))
        journal.rest()


def _in_turn(values: tuple[int, ...]) -> Iterator[int]:
    while True:
        yield from values
