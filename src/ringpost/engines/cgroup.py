"""How much memory is left before the kernel kills somebody: limits of control groups, version 1 and 2.

Shared memory counts for the group of the process that made it. There is no error for what goes beyond a
limit: the out-of-memory killer comes. So who makes a segment looks first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ringpost.mounts import Mount, mounts


class Room(NamedTuple):
    bytes: int
    limit: int
    group: Path  # whose limit it is


def memory_left(proc: Path = Path("/proc")) -> Room | None:
    """In this process's group, or the one above it that has the least. None: there is no limit, or none is
    known."""
    rooms = [room for group in _groups(proc) if (room := _room_in(group, proc)) is not None]
    return min(rooms, default=None)


def _groups(proc: Path) -> Iterator[Path]:
    """From the innermost one that can be seen to the outermost."""
    memberships = _memberships(proc)
    for mount in mounts(proc / "self" / "mountinfo"):
        path = memberships.get(_controller(mount))
        if path is None:
            continue
        point = Path(mount.point)
        inner = path.removeprefix(mount.root.rstrip("/")).lstrip("/")
        group = point / inner
        if not group.is_dir():
            group = point  # it shows another part of the tree: our own one at most
        while True:
            yield group
            if group == point or group == group.parent:
                break
            group = group.parent


def _memberships(proc: Path) -> dict[str, str]:
    """The group's path, by controller; "" is version 2."""
    found = {}
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for each in controllers.split(","):
            found[each] = path
    return found


def _controller(mount: Mount) -> str:
    if mount.kind == "cgroup2":
        return ""
    return "memory" if mount.kind == "cgroup" and "memory" in mount.options.split(",") else "none"


def _room_in(group: Path, proc: Path) -> Room | None:
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is None:
        limit, used = _number(group / "memory.limit_in_bytes"), _number(group / "memory.usage_in_bytes")
    if limit is None or used is None or limit >= sys.maxsize >> 1:
        return None
    return Room(limit - used + _reclaimable(group) + _swap_left(group, proc), limit, group)


def _reclaimable(group: Path) -> int:
    """Pages of files, that go when memory is needed."""
    stat = _numbers(group / "memory.stat")
    prefix = "total_" if "total_inactive_file" in stat else ""
    return stat.get(f"{prefix}inactive_file", 0) + stat.get(f"{prefix}active_file", 0)


def _swap_left(group: Path, proc: Path) -> int:
    free = _numbers(proc / "meminfo").get("SwapFree:", 0) << 10
    most, used = _number(group / "memory.swap.max"), _number(group / "memory.swap.current")
    if most is None or used is None:  # version 1 limits memory and swap together
        both, together = (
            _number(group / "memory.memsw.limit_in_bytes"),
            _number(group / "memory.limit_in_bytes"),
        )
        most = None if both is None or together is None else both - together
        used = 0
    return free if most is None else max(min(free, most - used), 0)


def _number(path: Path) -> int | None:
    """None: there is no such file, or no limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else sys.maxsize if text == "max" else None


def _numbers(path: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {fields[0]: int(fields[1]) for fields in lines if len(fields) > 1 and fields[1].isdecimal()}
