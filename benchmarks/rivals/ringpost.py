"""ringpost itself, with default settings: a named queue."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Lane, Receiver, Rival, Sender


@dataclass(frozen=True)
class _QueueLane(Lane):
    url: str
    name: str

    def sender(self, index: int) -> Sender:
        queue = self._queue()
        return Sender(queue.put, queue.put_many, queue.close)

    def receiver(self) -> Receiver:
        queue = self._queue()
        return Receiver(queue.get, queue.get_many, queue.close)

    def _queue(self) -> Any:
        import ringpost

        return ringpost.connect(self.url).queue(self.name)

    def remove(self) -> None:
        import ringpost

        with ringpost.connect(self.url) as broker:
            broker.destroy()


class Ringpost(Rival):
    """The queue that this repository is about."""

    name = "ringpost"
    module = "ringpost"
    distribution = "ringpost"
    note = "named queue, default settings"
    batches = True

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        return _QueueLane(f"ring:bench-{os.getpid()}", name)
