"""multiprocessing.Queue: pickles in a feeder thread, writes into a pipe."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Lane, Receiver, Sender
from benchmarks.rivals.deep import DeepRival
from benchmarks.rivals.shared import SharedRival


@dataclass(frozen=True)
class _QueueLane(Lane):
    queue: Any

    def sender(self, index: int) -> Sender:
        return Sender(self.queue.put)

    def receiver(self) -> Receiver:
        return Receiver(self.queue.get)

    def remove(self) -> None:
        self.queue.close()


class MultiprocessingQueue(SharedRival, DeepRival):
    """What everybody has."""

    name = "multiprocessing.Queue"
    module = "multiprocessing"
    note = "unbounded"

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        return _QueueLane(multiprocessing.get_context("spawn").Queue())
