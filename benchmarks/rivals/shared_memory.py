"""multiprocessing.shared_memory by hand: two buffers and two semaphores, as one would write it."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

from benchmarks.rivals.lending import (
    Lender,
    LendingLane,
    LendingRival,
    Looker,
    RecordLane,
    RecordReceiver,
    RecordRival,
    RecordSender,
)

_BUFFERS = 2
_AT_ONCE = 1 << 13  # records


@dataclass(frozen=True)
class _Lane(LendingLane, RecordLane):
    names: tuple[str, ...]
    size: int
    dtype: Any
    free: Any
    full: Any

    def lender(self) -> Lender:
        buffers, memory = self._open("<i8")

        def send(stamp: int) -> None:
            self.free.acquire()
            array = next(buffers)
            array[0] = array[-1] = stamp
            self.full.release()

        return Lender(send, lambda: _close(memory))

    def looker(self) -> Looker:
        buffers, memory = self._open("<i8")

        def look() -> tuple[int, int]:
            self.full.acquire()
            array = next(buffers)
            seen = int(array[0]), int(array[-1])
            self.free.release()
            return seen

        return Looker(look, lambda: _close(memory))

    def record_sender(self) -> RecordSender:
        buffers, memory = self._open(self.dtype)

        def put(records: Any) -> None:
            for at in range(0, len(records), _AT_ONCE):
                self.free.acquire()
                next(buffers)[:] = records[at : at + _AT_ONCE]
                self.full.release()

        return RecordSender(put, lambda: _close(memory))

    def record_receiver(self) -> RecordReceiver:
        buffers, memory = self._open(self.dtype)

        def get() -> Any:
            self.full.acquire()
            records = next(buffers).copy()
            self.free.release()
            return records

        return RecordReceiver(get, lambda: _close(memory))

    def _open(self, dtype: Any) -> tuple[Any, list[SharedMemory]]:
        import numpy

        memory = [SharedMemory(name) for name in self.names]
        count = self.size // numpy.dtype(dtype).itemsize
        return cycle([numpy.ndarray(count, dtype, buffer=each.buf) for each in memory]), memory

    def remove(self) -> None:
        for name in self.names:
            memory = SharedMemory(name)
            memory.close()
            memory.unlink()


def _close(memory: list[SharedMemory]) -> None:
    """The arrays still refer to it: it goes with the process."""


class SharedMemoryByHand(LendingRival, RecordRival):
    """No queue: two buffers in turn."""

    name = "shared_memory by hand"
    module = "multiprocessing.shared_memory"
    note = "two buffers in turn and two semaphores: no messages, no death of a process in between"

    def lending_lane(self, name: str, size: int, directory: Path) -> LendingLane:
        return self._lane(name, size, None)

    def record_lane(self, name: str, dtype: Any, directory: Path) -> RecordLane:
        import numpy

        return self._lane(name, _AT_ONCE * numpy.dtype(dtype).itemsize, dtype)

    def _lane(self, name: str, size: int, dtype: Any) -> _Lane:
        names = tuple(f"ringpost-bench-{os.getpid()}-{name}-{number}" for number in range(_BUFFERS))
        for each in names:
            SharedMemory(each, create=True, size=size).close()
        context = multiprocessing.get_context("spawn")
        return _Lane(names, size, dtype, context.Semaphore(_BUFFERS), context.Semaphore(0))
