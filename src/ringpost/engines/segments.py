"""Making a segment, where there is memory for it.

One at a time in a directory: a segment takes its memory before it gets its name, so several processes that
open a new queue at the same moment would need that memory several times, and find too little though there is
enough.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringpost._binding import binding
from ringpost._binding.contract import Codec, NativeLog
from ringpost.engines.cgroup import Room, memory_left
from ringpost.errors import SegmentFull
from ringpost.mounts import file_system_of

_CAPACITY = 16 << 20  # RP_DEFAULT_CAPACITY
_BESIDES = 1 << 20  # what a segment has beside its capacity, and what its maker needs meanwhile
_PATIENCE = 2.0  # seconds
_IN_MEMORY = ("tmpfs", "ramfs")


def create(path: Path, label: str, codec: Codec, *, capacity: int = 0, **settings: Any) -> NativeLog:
    """Raises SegmentFull, FileExistsError, QueueNotFound (its directory is gone), NotOurs, ValueError."""
    with _alone_in(path.parent):
        room = memory_left()
        if room is not None and not path.exists():
            _check_room(room, (capacity or _CAPACITY) + _BESIDES, label, path)
        return binding.create(str(path), label, codec, capacity=capacity, **settings)


_locked: set[int] = set()  # descriptors


@contextmanager
def _alone_in(place: Path) -> Iterator[None]:
    """Or after a while, if somebody was stopped meanwhile: it is only to save memory."""
    try:
        here = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield  # what is wrong with it will be said
        return
    _locked.add(here)
    try:
        _lock(here)
        yield
    finally:
        _locked.discard(here)
        os.close(here)


def _lock(here: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            return fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.002)


def _let_go() -> None:
    """In a forked child, which would keep its parent's lock."""
    while _locked:
        os.close(_locked.pop())


os.register_at_fork(after_in_child=_let_go)


def _check_room(room: Room, size: int, label: str, path: Path) -> None:
    if size <= room.bytes or file_system_of(path.parent) not in _IN_MEMORY:
        return
    raise SegmentFull(
        errno.ENOMEM,
        f"no memory for {label}: it needs {size / 2**20:.1f} MiB, and the limit of this process's control "
        "group "
        f"({room.limit / 2**20:.0f} MiB, {room.group}) leaves {max(room.bytes, 0) / 2**20:.1f} MiB: beyond "
        "it the "
        "kernel would kill somebody. Ask for less capacity=, delete queues that nobody needs, or raise "
        "the limit "
        "(docker run --memory=; systemd: MemoryMax=; Kubernetes: resources.limits.memory)",
        str(path),
    )
