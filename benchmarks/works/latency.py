"""Round trips: one process asks, another one answers, one message under way at a time."""

from __future__ import annotations

import time
from array import array
from itertools import cycle, islice
from typing import Any

from benchmarks.messages import SMALL, corrupt, cycle_of
from benchmarks.peer import wait_until
from benchmarks.rivals.base import Lane
from benchmarks.works.base import Metric, Run, Work
from benchmarks.works.pace import paced

_STEP = 64


class _Ask:
    """Sends a message, waits for it to come back. Reports how long each took, in ns."""

    def __init__(self, there: Lane, back: Lane, size: int) -> None:
        self._messages = cycle_of(0, size)
        self._receiver = back.receiver()
        self._sender = there.sender(0)

    def run(self, count: int, start_at: int) -> array[int]:
        put, get, now = self._sender.put, self._receiver.get, time.perf_counter_ns
        took = array("q", bytes(8 * count))
        wait_until(start_at)
        for at, message in enumerate(islice(cycle(self._messages), count)):
            asked = now()
            put(message)
            got = get()
            took[at] = now() - asked
            if got != message:
                raise corrupt(got, message)
        return took

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()


class _Answer:
    """Sends back what comes."""

    def __init__(self, there: Lane, back: Lane, size: int) -> None:
        self._messages = cycle_of(0, size)
        self._receiver = there.receiver()
        self._sender = back.sender(0)

    def run(self, count: int, start_at: int) -> None:
        put, get = self._sender.put, self._receiver.get
        for expected in islice(cycle(self._messages), count):
            got = get()
            put(got)
            if got != expected:
                raise corrupt(got, expected)

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()


class RoundTrip(Work):
    """Two queues, a process on each side."""

    name = "latency"
    title = f"round trip between two processes through two queues, {SMALL}-byte messages"
    lanes = 2
    metrics = (
        Metric("median", "us", higher_is_better=False),
        Metric("p90", "us", higher_is_better=False),
        Metric("p99", "us", higher_is_better=False),
        Metric("p99.9", "us", higher_is_better=False),
    )

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        arguments = (*lanes, self.size)
        return [(_Answer, arguments), (_Ask, arguments)]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        def elapsed(count: int) -> float:
            _, took = run(count)
            return float(sum(took)) / 1e9

        _, took = run(paced(elapsed, seconds, _STEP))
        return _quantiles(sorted(took))


def _quantiles(took: list[int]) -> dict[str, float]:
    def at(share: float) -> float:
        return took[min(len(took) - 1, int(len(took) * share))] / 1e3

    return {"median": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999)}
