"""The putting parts of the throughput works."""

from __future__ import annotations

import time
from itertools import cycle, islice

from benchmarks.messages import BATCH, cycle_of
from benchmarks.peer import wait_until
from benchmarks.rivals.base import SendingLane


class PutEach:
    """Puts one message a call. Reports when it began."""

    def __init__(self, lane: SendingLane, index: int, size: int) -> None:
        self._sender = lane.sender(index)
        self._messages = cycle_of(index, size)
        self.close = self._sender.close

    def run(self, count: int, start_at: int) -> int:
        """Put `count` messages."""
        put = self._sender.put
        messages = islice(cycle(self._messages), count)
        wait_until(start_at)
        began = time.monotonic_ns()
        for message in messages:
            put(message)
        return began


class PutBatches:
    """Puts a batch a call; message after message with a rival that has batches for receivers only."""

    def __init__(self, lane: SendingLane, index: int, size: int) -> None:
        self._sender = lane.sender(index)
        messages = cycle_of(index, size)
        self._batches = [messages[at : at + BATCH] for at in range(0, len(messages), BATCH)]
        self.close = self._sender.close

    def run(self, count: int, start_at: int) -> int:
        """Put `count` messages, a multiple of BATCH."""
        put_many = self._sender.put_many or self._put_each
        batches = islice(cycle(self._batches), count // BATCH)
        wait_until(start_at)
        began = time.monotonic_ns()
        for batch in batches:
            put_many(batch)
        return began

    def _put_each(self, batch: list[bytes]) -> None:
        for message in batch:
            self._sender.put(message)
