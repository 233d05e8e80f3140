"""Making a segment, where there is memory for it."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from ringpost._binding import binding
from ringpost._binding.contract import Codec, NativeLog
from ringpost.engines.cgroup import Room, memory_left
from ringpost.errors import SegmentFull
from ringpost.mounts import file_system_of

_CAPACITY = 16 << 20  # RP_DEFAULT_CAPACITY
_BESIDES = 1 << 20  # what a segment has beside its capacity, and what its maker needs meanwhile
_IN_MEMORY = ("tmpfs", "ramfs")


def create(path: Path, label: str, codec: Codec, *, capacity: int = 0, **settings: Any) -> NativeLog:
    """Raises SegmentFull, FileExistsError, QueueNotFound (its directory is gone), NotOurs, ValueError."""
    room = memory_left()
    if room is not None:
        _check_room(room, (capacity or _CAPACITY) + _BESIDES, label, path)
    return binding.create(str(path), label, codec, capacity=capacity, **settings)


def _check_room(room: Room, size: int, label: str, path: Path) -> None:
    if size <= room.bytes or file_system_of(path.parent) not in _IN_MEMORY:
        return
    raise SegmentFull(
        errno.ENOMEM,
        f"no memory for {label}: it needs {size / 2**20:.1f} MiB, and the limit of this process's control group "
        f"({room.limit / 2**20:.0f} MiB, {room.group}) leaves {max(room.bytes, 0) / 2**20:.1f} MiB: beyond it the "
        "kernel would kill somebody. Ask for less capacity=, delete queues that nobody needs, or raise the limit "
        "(docker run --memory=; systemd: MemoryMax=; Kubernetes: resources.limits.memory)",
        str(path),
    )
