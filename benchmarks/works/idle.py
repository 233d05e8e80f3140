"""What a consumer costs while it waits for a message that does not come."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.messages import SMALL, corrupt, cycle_of
from benchmarks.peer import wait_until
from benchmarks.rivals.base import Lane
from benchmarks.works.base import Metric, Run, Work

_WARM_UP_SECONDS = 0.05


class _Wait:
    """Waits in get(). Reports the share of a core that its process, with all threads, used meanwhile."""

    def __init__(self, lane: Lane, size: int) -> None:
        self._expected = cycle_of(0, size)[0]
        self._receiver = lane.receiver()
        self.close = self._receiver.close

    def run(self, seconds: float, start_at: int) -> float:
        wait_until(start_at)
        began, used = time.monotonic(), time.process_time()
        got = self._receiver.get()
        share = (time.process_time() - used) / (time.monotonic() - began)
        if got != self._expected:
            raise corrupt(got, self._expected)
        return share


class _PutLate:
    """Puts one message, after the time is over."""

    def __init__(self, lane: Lane, size: int) -> None:
        self._message = cycle_of(0, size)[0]
        self._sender = lane.sender(0)
        self.close = self._sender.close

    def run(self, seconds: float, start_at: int) -> None:
        wait_until(start_at + int(seconds * 1e9))
        self._sender.put(self._message)


class Idle(Work):
    """CPU use of a blocked consumer."""

    name = "idle"
    title = "CPU use of a consumer that waits for a message"
    metrics = (Metric("cpu", "% of a core", higher_is_better=False),)
    most_repetitions = 2

    @property
    def processes(self) -> int:
        return 1

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        arguments = (lanes[0], SMALL)
        return [(_Wait, arguments), (_PutLate, arguments)]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        run(_WARM_UP_SECONDS)
        share, _ = run(3 * seconds)
        return {"cpu": 100 * share}
