"""Messages that are looked at, and stay where they are."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from typing import Any

import ringpost
from ringpost.levels import Levels

BATCH = 256
_DROP_OLDEST = 1  # a reader that nobody waits for


def look_at(queue: ringpost.Queue[Any], count: int) -> Generator[ringpost.Message[Any]]:
    """Messages that are there as before when this has ended: they do not count as delivered.

    They are leased as long as this lasts. What is behind as many as can be leased at once is read beside the
    consumers.
    """
    group, left = queue._log.group(), count
    held: list[ringpost.Message[Any]] = []
    try:
        while left > 0:
            try:
                found = group.receive(min(left, BATCH), 0, False, None, ringpost.Message, held)
            except (ringpost.Empty, ringpost.ShutDown):
                break
            left -= len(found)
            yield from found
        left = min(left, int(group.info()["ready"]))
        if left and held:
            yield from _look_behind(queue, held[-1].sequence + 1, left)
    finally:
        group.give_back(held, 0, True)


def _look_behind(queue: ringpost.Queue[Any], sequence: int, count: int) -> Generator[ringpost.Message[Any]]:
    """From `sequence` on."""
    if isinstance(queue._log, Levels):
        raise ringpost.Unsupported(
            f"{queue._log.label} has priorities, and {count} messages more than can be looked at at once"
        )
    name = f"look-{uuid.uuid4().hex[:12]}"
    group, _ = queue._log.open_group(
        name, policy=_DROP_OLDEST, from_start=True, lossy=True, ends_with_us=True
    )
    try:
        while count > 0:
            try:
                found = group.take(BATCH, False, None, ringpost.Message)
            except (ringpost.Empty, ringpost.ShutDown):
                return
            fresh = [message for message in found if message.sequence >= sequence][:count]
            count -= len(fresh)
            yield from fresh
    finally:
        group.remove()
