"""What is mounted where: /proc/self/mountinfo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Mount(NamedTuple):
    root: str  # the directory of the file system that is seen here
    point: str
    kind: str
    options: str


def mounts(info: Path = Path("/proc/self/mountinfo")) -> Iterator[Mount]:
    """In the order of mounting; nothing if there is no /proc."""
    try:
        lines = info.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, behind = before.split(), after.split()
        if len(fields) >= 5 and len(behind) >= 3:
            yield Mount(_unescape(fields[3]), _unescape(fields[4]), behind[0], behind[2])


def _unescape(text: str) -> str:
    return text.encode().decode("unicode_escape")


def file_system_of(place: Path) -> str:
    """Its kind: "tmpfs", "ext4", ...; "": unknown."""
    wanted, best, kind = str(place.resolve()), -1, ""
    for mount in mounts():
        inside = wanted == mount.point or wanted.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= best:
            best, kind = len(mount.point), mount.kind
    return kind
