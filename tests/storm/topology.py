"""What a round consists of."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

LEVELS = ("memory", "interval", "commit", "commit")


@dataclass(frozen=True)
class Topology:
    """Of one round; everything that chance decides before it begins."""

    seed: int
    level: str | None
    """None: a broker in memory."""
    queues: tuple[str, ...]
    capacity: int
    sizes: tuple[int, ...]
    producers: int
    consumers: int
    forwarders: int
    """They move messages from the first queue to the last, in transactions."""
    publishers: int
    subscribers: tuple[str, ...]
    disk: str
    """Its size, as mount calls it. Messages fill a small one by themselves."""

    @property
    def reboots(self) -> bool:
        """Only what was confirmed at level commit outlives the shared memory."""
        return self.level == "commit"

    def url(self, place: Path) -> str:
        """Of the broker, below `place`."""
        return "ring:storm" if self.level is None else f"ring://{place / 'broker'}"

    def __str__(self) -> str:
        kind = "in memory" if self.level is None else f"on a disk of {self.disk}, {self.level}"
        return (
            f"{kind}: {len(self.queues)} queues of {self.capacity >> 10} KiB, {self.producers} producers, "
            f"{self.consumers} consumers, {self.forwarders} forwarders, {self.publishers} publishers, "
            f"{len(self.subscribers)} subscribers"
        )


def at_random(seed: int) -> Topology:
    """The same one for the same seed."""
    chance = random.Random(seed)
    level = chance.choice((None, *LEVELS))
    queues = tuple(f"q{number}" for number in range(chance.randint(1, 3)))
    publishers = chance.choice((0, 1, 2))
    return Topology(
        seed=seed,
        level=level,
        queues=queues,
        capacity=chance.choice((256 << 10, 1 << 20, 4 << 20)),
        sizes=chance.choice(((10,), (10, 200, 3000), (10, 3000, 40_000))),
        producers=chance.randint(1, 3),
        consumers=chance.randint(1, 3),
        forwarders=chance.randint(0, 2) if level is not None and len(queues) > 1 else 0,
        publishers=publishers,
        subscribers=tuple(f"s{number}" for number in range(chance.randint(1, 2))) if publishers else (),
        disk=chance.choice(("1g", "100m")),
    )
