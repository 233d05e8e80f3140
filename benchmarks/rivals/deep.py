"""What can hold many messages that nobody has taken yet."""

from __future__ import annotations

from pathlib import Path

from benchmarks.rivals.base import Lane, QueueRival


class DeepRival(QueueRival):
    """One that is unbounded, or can be made as large as needed."""

    def deep_lane(self, name: str, count: int, size: int, directory: Path) -> Lane:
        """A lane with one sender that holds `count` messages of `size`."""
        return self.lane(name, 1, size, directory)
