"""ringpost with a directory: "commit", and "interval" where others put off the disk too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.rivals.storing import Level, Storer, StoringLane, StoringRival


@dataclass(frozen=True)
class _Lane(StoringLane):
    def queue(self) -> Any:
        import ringpost

        level = "commit" if self.level == "confirmed" else "interval"
        return ringpost.connect(f"ring://{self.directory}/broker").queue("queue", durability=level)  # type: ignore[arg-type]

    def storer(self) -> Storer:
        queue = self.queue()
        return Storer(queue.put, queue.put_many, queue.flush, queue.close)

    def reader(self) -> Callable[[int], int]:
        queue = self.queue()
        return lambda limit: len(queue.get_many(limit))

    def remove(self) -> None:
        import ringpost

        with ringpost.connect(f"ring://{self.directory}/broker") as broker:
            broker.destroy()
        super().remove()


class StoredRingpost(StoringRival):
    """The library that this repository is about."""

    name = "ringpost"
    module = "ringpost"
    distribution = "ringpost"
    note = "durable broker, default settings"
    reads = True

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _Lane(directory, level)
