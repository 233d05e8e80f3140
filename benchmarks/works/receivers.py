"""The taking parts of the throughput works. Each checks every message, and reports when it had the last."""

from __future__ import annotations

import time
from itertools import cycle, islice

from benchmarks.messages import BATCH, corrupt, cycle_of, page_stamps
from benchmarks.rivals.base import Lane, Receiver


class GetEach:
    """Takes one message a call from one sender."""

    def __init__(self, lane: Lane, senders: int, size: int) -> None:
        self._receiver = lane.receiver()
        self._expected = cycle_of(0, size)
        self.close = self._receiver.close

    def run(self, count: int, start_at: int) -> int:
        """Take `count` messages."""
        _take_each(self._receiver, self._expected, count)
        return time.monotonic_ns()


def _take_each(receiver: Receiver, messages: list[bytes], count: int) -> None:
    get = receiver.get
    for expected in islice(cycle(messages), count):
        got = get()
        if got != expected:
            raise corrupt(got, expected)


class GetEachFromMany:
    """Takes one message a call from several senders, whose messages come in any mixture."""

    def __init__(self, lane: Lane, senders: int, size: int) -> None:
        self._receiver = lane.receiver()
        self._expected = [cycle_of(sender, size) for sender in range(senders)]
        self.close = self._receiver.close

    def run(self, count: int, start_at: int) -> int:
        """Take `count` messages of each sender."""
        get = self._receiver.get
        streams = [islice(cycle(messages), count) for messages in self._expected]
        for _ in range(count * len(streams)):
            got = get()
            expected = next(streams[got[0]], b"")
            if got != expected:
                raise corrupt(got, expected)
        return time.monotonic_ns()


class GetBatches:
    """Takes a batch a call; message after message with a rival that has batches for senders only."""

    def __init__(self, lane: Lane, senders: int, size: int) -> None:
        self._receiver = lane.receiver()
        self._cycle = cycle_of(0, size)
        self.close = self._receiver.close

    def run(self, count: int, start_at: int) -> int:
        """Take `count` messages."""
        get_many = self._receiver.get_many or self._get_one
        length, position = len(self._cycle), 0
        unrolled = self._cycle + self._cycle[:BATCH]
        while position < count:
            got = get_many(BATCH)
            at = position % length
            if got != unrolled[at : at + len(got)]:
                raise corrupt(got[0], unrolled[at])
            position += len(got)
        return time.monotonic_ns()

    def _get_one(self, limit: int) -> list[bytes]:
        return [self._receiver.get()]


class GetFastest(GetBatches):
    """Takes what is there a call, or one where the rival gives one at a time: whatever is faster."""

    def run(self, count: int, start_at: int) -> int:
        """Take `count` messages."""
        if self._receiver.get_many is not None:
            return super().run(count, start_at)
        _take_each(self._receiver, self._cycle, count)
        return time.monotonic_ns()


class GetLarge:
    """Takes one large message a call: looks at every page of it, not at every byte."""

    def __init__(self, lane: Lane, senders: int, size: int) -> None:
        self._receiver = lane.receiver()
        self._size = size
        self._expected = [(message[:64], page_stamps(message)) for message in cycle_of(0, size)]
        self.close = self._receiver.close

    def run(self, count: int, start_at: int) -> int:
        """Take `count` messages."""
        get = self._receiver.get
        for start, stamps in islice(cycle(self._expected), count):
            got = get()
            if len(got) != self._size or page_stamps(got) != stamps:
                raise corrupt(got, start)
        return time.monotonic_ns()
