"""multiprocessing.Pipe: no pickling, no lock. One pipe a sender, since two may not write into the same."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Lane, QueueRival, Receiver, Sender


@dataclass(frozen=True)
class _PipesLane(Lane):
    readers: list[Any]
    writers: list[Any]

    def sender(self, index: int) -> Sender:
        return Sender(self.writers[index].send_bytes)

    def receiver(self) -> Receiver:
        if len(self.readers) == 1:
            return Receiver(self.readers[0].recv_bytes)
        return Receiver(_get_from_any(self.readers))

    def remove(self) -> None:
        for end in (*self.readers, *self.writers):
            end.close()


def _get_from_any(readers: list[Any]) -> Callable[[], bytes]:
    ready: deque[Any] = deque()

    def get() -> bytes:
        if not ready:
            ready.extend(wait(readers))
        message: bytes = ready.popleft().recv_bytes()
        return message

    return get


class MultiprocessingPipe(QueueRival):
    """The fastest that the standard library has for bytes."""

    name = "multiprocessing.Pipe"
    module = "multiprocessing"
    note = "send_bytes and recv_bytes; one pipe a sender and connection.wait with several"

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        pairs = [multiprocessing.get_context("spawn").Pipe(duplex=False) for _ in range(senders)]
        return _PipesLane([reader for reader, _ in pairs], [writer for _, writer in pairs])
