"""Making a segment, where there is memory for it.

One at a time in a directory: a segment takes its memory before it gets its name, so several processes that
open a new queue at the same moment would need that memory several times, and find too little though there is
enough.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringpost._binding import binding
from ringpost._binding.contract import Codec, NativeLog
from ringpost.engines import Kind, directory
from ringpost.engines.cgroup import Room, memory_left
from ringpost.errors import SegmentFull
from ringpost.mounts import file_system_of

_CAPACITY = 16 << 20  # RP_DEFAULT_CAPACITY
_BESIDES = 1 << 20  # what a segment has beside its capacity, and what its maker needs meanwhile
_PATIENCE = 2.0  # seconds
_SUFFIXES = "|".join([*(kind.value for kind in Kind), "door"])
_UNFINISHED = re.compile(rf".+\.(?:{_SUFFIXES})\.[0-9a-f]{{16}}\.new", re.DOTALL)  # native/src/segment.c
_IN_MEMORY = ("tmpfs", "ramfs")


def create(path: Path, label: str, codec: Codec, *, capacity: int = 0, **settings: Any) -> NativeLog:
    """Raises SegmentFull, FileExistsError, QueueNotFound (its directory is gone), NotOurs, ValueError."""
    with _alone_in(path.parent) as here:
        if here is not None:
            _remove_unfinished(here)
        room = memory_left()
        if room is not None and not path.exists():
            _check_room(room, (capacity or _CAPACITY) + _BESIDES, label, path)
        return binding.create(str(path), label, codec, capacity=capacity, **settings)


def remove_unfinished(place: Path) -> None:
    """What makers left in the directory who died, where segments have names from the beginning."""
    with _alone_in(place) as here:
        if here is not None:
            _remove_unfinished(here)


def _remove_unfinished(here: int) -> None:
    for name in os.listdir(here):
        if _UNFINISHED.fullmatch(name):
            with contextlib.suppress(OSError):
                _remove_unless_used(here, name)


def _remove_unless_used(here: int, name: str) -> None:
    """Who makes one without waiting for us may not have locked it yet: it then makes another one."""
    file = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    try:
        if stat.S_ISREG(os.fstat(file).st_mode) and not _is_used(file):
            os.unlink(name, dir_fd=here)
    finally:
        os.close(file)


def _is_used(file: int) -> bool:
    """By a participant; see native/src/liveness.h."""
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    found: int = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0]
    return found != fcntl.F_UNLCK


@contextmanager
def _alone_in(place: Path) -> Iterator[int | None]:
    """A descriptor of it. Or None after a while, if somebody was stopped meanwhile: it is only to save
    memory."""
    try:
        here = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield None  # what is wrong with it will be said
        return
    directory.locked.add(here)
    try:
        yield here if directory.lock_within(here, _PATIENCE) else None
    finally:
        directory.close_locked(here)


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
