"""A consumer is killed with what it holds: how long until another one, which waits, has it?"""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.messages import SMALL, Corrupt, cycle_of
from benchmarks.peer import wait_until
from benchmarks.rivals.acking import AckingLane, AckingRival
from benchmarks.rivals.base import Rival, SendingLane
from benchmarks.works.base import Metric, Run, Work

_HELD = 32  # what ringpost's consumers fetch ahead
_KILLS = 10
_LET_HOLD, _KILL = 0, 1  # the two steps of a round
_LEAST_WAIT, _MOST_WAIT = (
    0.05,
    0.25,
)  # s, before a kill: at random, never the same, for who waits looks at a beat


class _Wait:
    """Waits in receive() while the other one is killed. Reports when it had the first and the last."""

    def __init__(self, lane: AckingLane, size: int) -> None:
        self._consumer = lane.consumer()
        self._expected = sorted(cycle_of(0, size)[:_HELD])
        self.close = self._consumer.close

    def run(self, step: int, start_at: int) -> tuple[int, int] | None:
        if step == _LET_HOLD:
            return None
        wait_until(start_at)
        deliveries = [self._consumer.receive()]
        first = time.monotonic_ns()
        deliveries += [self._consumer.receive() for _ in range(_HELD - 1)]
        last = time.monotonic_ns()
        if sorted(self._consumer.body(each) for each in deliveries) != self._expected:
            raise Corrupt("what came again is not what was held")
        for each in deliveries:
            self._consumer.ack(each)
        return first, last


class _Kill:
    """Puts, starts a process that receives, kills it. Reports when."""

    def __init__(self, lane: AckingLane, size: int) -> None:
        self._messages = cycle_of(0, size)[:_HELD]
        self._task = pickle.dumps((lane, _HELD))
        self._sender = lane.sender(0)
        self._holder: subprocess.Popen[bytes] | None = None

    def run(self, step: int, start_at: int) -> int | None:
        if step == _LET_HOLD:
            self._start()
            return None
        assert self._holder is not None
        wait_until(start_at)
        time.sleep(random.uniform(_LEAST_WAIT, _MOST_WAIT))
        killed = time.monotonic_ns()
        self._holder.kill()
        self._end()
        return killed

    def _start(self) -> None:
        for message in self._messages:
            self._sender.put(message)
        command = [sys.executable, "-m", "benchmarks.works.holder"]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.write(self._task)
        self._holder.stdin.flush()
        if not self._holder.stdout.readline():
            raise RuntimeError("the process that was to hold them ended")

    def _end(self) -> None:
        assert self._holder is not None
        self._holder.wait()
        for pipe in (self._holder.stdin, self._holder.stdout):
            assert pipe is not None
            pipe.close()

    def close(self) -> None:
        self._sender.close()


class Redelivery(Work):
    """From `kill -9` until the other one has the first, and all, of what the dead one held."""

    name = "redelivery"
    title = (
        f"from kill -9 of a consumer that holds {_HELD} messages to their receipt in another, {_KILLS} kills"
    )
    metrics = (
        Metric("median", "ms", higher_is_better=False),
        Metric("longest", "ms", higher_is_better=False),
        Metric("median of all", "ms", higher_is_better=False),
    )
    needs = AckingRival
    most_repetitions = 2

    def fits(self, rival: Rival) -> bool:
        return isinstance(rival, AckingRival) and rival.redelivers

    @property
    def processes(self) -> int:
        return 2

    def lane(self, rival: Any, name: str, directory: Path) -> SendingLane:
        lane: SendingLane = rival.acking_lane(name, directory)
        return lane

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        arguments = (lanes[0], SMALL)
        return [(_Wait, arguments), (_Kill, arguments)]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        to_first, to_last = [], []
        for _ in range(_KILLS):
            run(_LET_HOLD)
            (first, last), killed = run(_KILL)
            if first < killed:
                raise Corrupt("a message came before its holder was killed")
            to_first.append((first - killed) / 1e6)
            to_last.append((last - killed) / 1e6)
        return {"median": median(to_first), "longest": max(to_first), "median of all": median(to_last)}
