"""multiprocessing.SimpleQueue: pickles in the calling thread, writes into a pipe under a lock."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Lane, Receiver, Sender
from benchmarks.rivals.shared import SharedRival


@dataclass(frozen=True)
class _SimpleQueueLane(Lane):
    queue: Any

    def sender(self, index: int) -> Sender:
        return Sender(self.queue.put)

    def receiver(self) -> Receiver:
        return Receiver(self.queue.get)

    def remove(self) -> None:
        self.queue.close()


class MultiprocessingSimpleQueue(SharedRival):
    """Queue without the feeder thread and the timeouts."""

    name = "multiprocessing.SimpleQueue"
    module = "multiprocessing"

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        return _SimpleQueueLane(multiprocessing.get_context("spawn").SimpleQueue())
