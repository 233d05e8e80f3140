"""What gives each message to every subscriber: a lane with one sender and many receivers."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from benchmarks.rivals.base import Lane, Rival


class TopicRival(Rival):
    """One that publishes."""

    @abstractmethod
    def topic_lane(self, name: str, subscribers: int, size: int, directory: Path) -> Lane:
        """Made in the parent; `directory` is in memory, empty, and removed afterwards.

        All subscribers open their ends before the publisher opens its own, which waits for them where the
        rival needs that: nothing may be lost.
        """
