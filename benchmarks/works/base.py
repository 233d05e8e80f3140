"""What all works have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.messages import SMALL
from benchmarks.rivals.base import QueueRival, Rival, SendingLane

Run = Callable[[float], list[Any]]
"""Lets all parts do an amount of the work; their reports, in the order of the parts."""


@dataclass(frozen=True)
class Metric:
    """One number that a work yields. The first one of a work has the spread and the ratio."""

    name: str
    unit: str
    higher_is_better: bool


class Work(ABC):
    """A task for two or more processes, and how to read its result."""

    name: str
    title: str
    metrics: tuple[Metric, ...]
    needs: type[Rival] = QueueRival
    """What a rival must be to appear at all."""
    senders: int = 1
    """On each lane."""
    lanes: int = 1
    size: int = SMALL
    most_repetitions: int = 1000
    family: str | None = None
    """Of works that differ in one number: what is counted, for the axis of a chart."""
    place: int = 0
    """That number."""
    patience: float = 0.0
    """Seconds that one measurement may take, where that is longer than usual."""

    @property
    def processes(self) -> int:
        """How many run at once, each of which wants a core."""
        return self.senders + 1

    def fits(self, rival: Rival) -> bool:
        """Whether one of those has what this work needs."""
        return True

    def lacking(self) -> str | None:
        """What this machine lacks for it; None: nothing."""
        return None

    def lane(self, rival: Any, name: str, directory: Path) -> SendingLane:
        """One of the lanes, of a rival that is what the work needs."""
        lane: SendingLane = rival.lane(name, self.senders, self.size, directory)
        return lane

    @abstractmethod
    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        """What each process constructs: class and arguments. Receivers first."""

    @abstractmethod
    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        """Warm up, then work for about `seconds`; the value of each metric by name."""
