"""The two parts of a backlog: one fills the queue while the other one rests, and the other way round.

Both get the same amounts: a positive one is to be put, a negative one to be taken.
"""

from __future__ import annotations

import time
from itertools import cycle, islice

from benchmarks.messages import corrupt, cycle_of
from benchmarks.peer import wait_until
from benchmarks.rivals.base import Lane, SendingLane


class FillEach:
    """Puts one message a call. Reports how many ns it took."""

    def __init__(self, lane: SendingLane, size: int) -> None:
        self._sender = lane.sender(0)
        self._messages = cycle_of(0, size)
        self.close = self._sender.close

    def run(self, count: int, start_at: int) -> int:
        """Put `count` messages, if it is positive."""
        if count < 0:
            return 0
        put = self._sender.put
        wait_until(start_at)
        began = time.monotonic_ns()
        for message in islice(cycle(self._messages), count):
            put(message)
        return time.monotonic_ns() - began


class DrainEach:
    """Takes one message a call. Reports how many ns it took."""

    def __init__(self, lane: Lane, size: int) -> None:
        self._receiver = lane.receiver()
        self._expected = cycle_of(0, size)
        self.close = self._receiver.close

    def run(self, count: int, start_at: int) -> int:
        """Take as many messages, if `count` is negative."""
        if count > 0:
            return 0
        get = self._receiver.get
        wait_until(start_at)
        began = time.monotonic_ns()
        for expected in islice(cycle(self._expected), -count):
            got = get()
            if got != expected:
                raise corrupt(got, expected)
        return time.monotonic_ns() - began
