"""What it takes to have messages on disk. Putters only: reading is a work of its own."""

from __future__ import annotations

import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.messages import SMALL, cycle_of
from benchmarks.peer import wait_until
from benchmarks.rivals.base import Rival, SendingLane
from benchmarks.rivals.storing import Level, StoringLane, StoringRival, directory_on_disk
from benchmarks.works.base import Metric, Run, Work
from benchmarks.works.pace import paced

BATCH = 1000


class _Putting:
    """Reports when it began, and when everything was on disk."""

    def __init__(self, lane: StoringLane, index: int, size: int) -> None:
        self._storer = lane.storer()
        self._messages = cycle_of(index, size)
        self.close = self._storer.close

    def run(self, count: int, start_at: int) -> tuple[int, int]:
        work = self._prepare(count)
        wait_until(start_at)
        began = time.monotonic_ns()
        work()
        self._storer.sync()
        return began, time.monotonic_ns()

    def _prepare(self, count: int) -> Any:
        raise NotImplementedError


class StoreEach(_Putting):
    """One message a call."""

    def _prepare(self, count: int) -> Any:
        messages, put = list(islice(cycle(self._messages), count)), self._storer.put

        def work() -> None:
            for message in messages:
                put(message)

        return work


class StoreBatches(_Putting):
    """Many messages a call."""

    def _prepare(self, count: int) -> Any:
        batch, put_many = list(islice(cycle(self._messages), BATCH)), self._storer.put_many
        assert put_many is not None

        def work() -> None:
            for _ in range(count // BATCH):
                put_many(batch)

        return work


class ReadBacklog:
    """Puts a backlog, then takes it: only that is timed."""

    def __init__(self, lane: StoringLane, index: int, size: int) -> None:
        self._storer = lane.storer()
        self._read = lane.reader()
        self._batch = cycle_of(index, size)[:BATCH]
        self.close = self._storer.close

    def run(self, count: int, start_at: int) -> tuple[int, int]:
        assert self._storer.put_many is not None
        assert self._read is not None
        for _ in range(count // BATCH):
            self._storer.put_many(self._batch)
        self._storer.sync()
        began, left = time.monotonic_ns(), count
        while left:
            left -= self._read(BATCH)
        return began, time.monotonic_ns()


class Durable(Work):
    """One process, one message a call, each of them on disk when the call returns."""

    name = "durable"
    title = f"1 producer, {SMALL}-byte messages, one a call, each on disk when it returns"
    metrics = (Metric("rate", "msg/s", higher_is_better=True),)
    needs = StoringRival
    level: Level = "confirmed"
    putting: type = StoreEach
    step = 1

    @property
    def processes(self) -> int:
        return self.senders

    def fits(self, rival: Rival) -> bool:
        assert isinstance(rival, StoringRival)
        return self.level in rival.levels and (self.putting is StoreEach or rival.store_batches)

    def lane(self, rival: Any, name: str, directory: Path) -> SendingLane:
        lane: SendingLane = rival.storing_lane(directory_on_disk(), self.level)
        return lane

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        return [(self.putting, (lanes[0], index, self.size)) for index in range(self.senders)]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        def elapsed(count: int) -> float:
            times = run(count)
            return float(max(ended for _, ended in times) - min(began for began, _ in times)) / 1e9

        count = paced(elapsed, seconds, self.step)
        return {"rate": count * self.senders / elapsed(count)}


class DurableEight(Durable):
    """Who waits for the disk can wait together."""

    name = "durable-8"
    title = f"8 producers, {SMALL}-byte messages, one a call, each on disk when it returns"
    senders = 8

    def fits(self, rival: Rival) -> bool:
        assert isinstance(rival, StoringRival)
        return rival.shared and super().fits(rival)


class DurableBatches(Durable):
    """One wait for many."""

    name = "durable-batches"
    title = f"1 producer, {SMALL}-byte messages, {BATCH} a call, on disk when it returns"
    putting = StoreBatches
    step = BATCH


class DurableLater(DurableBatches):
    """Whatever puts off the disk; the clock stops when all is there."""

    name = "durable-later"
    title = f"1 producer, {SMALL}-byte messages, {BATCH} a call, all on disk at the end"
    level = "later"


class DurableBacklog(DurableLater):
    """What a consumer that comes back finds."""

    name = "durable-backlog"
    title = f"1 consumer takes a backlog from disk, {SMALL}-byte messages, up to {BATCH} a call"
    putting = ReadBacklog

    def fits(self, rival: Rival) -> bool:
        assert isinstance(rival, StoringRival)
        return rival.reads
