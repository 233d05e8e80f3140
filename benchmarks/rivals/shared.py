"""What lets several receivers share a lane: each message goes to one of them."""

from __future__ import annotations

from benchmarks.rivals.base import QueueRival


class SharedRival(QueueRival):
    """One whose lane() may have any number of receivers."""
