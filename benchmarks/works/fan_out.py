"""Throughput of a topic: from the first publish to the last message of the last subscriber."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.messages import BATCH, SMALL
from benchmarks.rivals.base import Rival, SendingLane
from benchmarks.rivals.topic import TopicRival
from benchmarks.works.base import Metric, Run, Work
from benchmarks.works.pace import paced
from benchmarks.works.receivers import GetFastest
from benchmarks.works.senders import PutBatches, PutEach


class FanOut(Work):
    """One publisher; every subscriber checks that it gets every message."""

    metrics = (Metric("rate", "msg/s", higher_is_better=True),)
    needs = TopicRival
    sending: type = PutEach

    def __init__(self, subscribers: int) -> None:
        self.subscribers = subscribers
        self.name = f"fan-out-{subscribers}"
        self.title = f"1 publisher to {self._audience}, {SMALL}-byte messages, one a call"

    @property
    def _audience(self) -> str:
        return f"{self.subscribers} subscriber" + ("s" if self.subscribers > 1 else "")

    @property
    def processes(self) -> int:
        return self.subscribers + 1

    def lane(self, rival: Any, name: str, directory: Path) -> SendingLane:
        lane: SendingLane = rival.topic_lane(name, self.subscribers, self.size, directory)
        return lane

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        subscriber = (GetFastest, (lanes[0], 1, self.size))
        return [subscriber] * self.subscribers + [(self.sending, (lanes[0], 0, self.size))]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        def elapsed(count: int) -> float:
            *ended, began = run(count)
            return float(max(ended) - began) / 1e9

        count = paced(elapsed, seconds, BATCH)
        return {"rate": count / elapsed(count)}


class FanOutBatches(FanOut):
    """Many messages a call of the publisher, where the rival can."""

    sending = PutBatches

    def __init__(self, subscribers: int) -> None:
        super().__init__(subscribers)
        self.name = f"fan-out-{subscribers}-batches"
        self.title = f"1 publisher to {self._audience}, {SMALL}-byte messages, {BATCH} a call"

    def fits(self, rival: Rival) -> bool:
        return rival.batches
