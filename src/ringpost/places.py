"""Places of groups and named subscribers: one that was made, or given up, is so after a reboot, too."""

from __future__ import annotations

from typing import Any


def store_places(log: Any) -> None:
    """Of a log, or of one with priorities, if it is on disk; at level "commit" before this returns. Raises
    StorageFailed, Stalled: it is stored later."""
    levels = log.by_priority() if hasattr(log, "by_priority") else [(0, log)]
    for _, each in levels:
        storage = getattr(each, "storage", None)
        if storage is not None:
            storage.after_group()
