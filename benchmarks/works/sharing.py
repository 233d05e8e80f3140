"""Consumers that share a queue. Who gets how many nobody knows, so an end mark for each follows."""

from __future__ import annotations

import time
from itertools import cycle, islice

from benchmarks.messages import Corrupt, corrupt, cycle_of
from benchmarks.peer import wait_until
from benchmarks.rivals.base import Lane, SendingLane

Share = tuple[int, list[int]]
"""When a consumer was done, and how often it got each message of the cycle."""


def _end_mark(size: int) -> bytes:
    return b"\xff" * size  # a sender that there is not


class PutWithEnds:
    """Puts one message a call, then the end marks. Reports when it began."""

    def __init__(self, lane: SendingLane, size: int, receivers: int) -> None:
        self._sender = lane.sender(0)
        self._messages = cycle_of(0, size)
        self._ends = [_end_mark(size)] * receivers
        self.close = self._sender.close

    def run(self, count: int, start_at: int) -> int:
        """Put `count` messages."""
        put = self._sender.put
        wait_until(start_at)
        began = time.monotonic_ns()
        for message in islice(cycle(self._messages), count):
            put(message)
        for end in self._ends:
            put(end)
        return began


class GetShare:
    """Takes one message a call until it gets an end mark. Reports its share."""

    def __init__(self, lane: Lane, size: int) -> None:
        self._receiver = lane.receiver()
        self._messages = cycle_of(0, size)
        self._end = _end_mark(size)
        self.close = self._receiver.close

    def run(self, count: int, start_at: int) -> Share:
        """Take what comes; `count` is for all consumers together."""
        get, end = self._receiver.get, self._end
        seen = dict.fromkeys(self._messages, 0)
        try:
            while (got := get()) != end:
                seen[got] += 1
        except KeyError:
            raise corrupt(got, self._messages[0]) from None
        return time.monotonic_ns(), list(seen.values())


def check_shares(shares: list[Share], count: int) -> None:
    """All consumers together must have got every message as often as it was put. Raises Corrupt."""
    length = len(shares[0][1])
    got = [sum(seen[number] for _, seen in shares) for number in range(length)]
    put = [count // length + (number < count % length) for number in range(length)]
    wrong = sum(one != other for one, other in zip(got, put, strict=True))
    if wrong:
        raise Corrupt(f"{wrong} of {length} messages came more or less often than they were put")
