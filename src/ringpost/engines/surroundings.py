"""What lies above our directories, and above the links that lead to them: who may write there may take ours
away, and put others in their place."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from pathlib import Path

from ringpost import ownership
from ringpost.errors import NotOurs

_INITIAL = "0 0 4294967295"  # /proc/self/uid_map where nothing is mapped


def check_surroundings(place: Path, gid: int | None = None) -> None:
    """Of a directory that exists, and all above it, and above each link on the way there. Raises NotOurs.

    Args:
        gid: of a group that is trusted, for its members share what lies there.
    """
    _check(place.resolve(), gid)
    check_way(place, gid)


def check_way(place: Path, gid: int | None = None) -> None:
    """As check_surroundings(), without looking at the directory itself."""
    place = place.absolute()
    for each in place.resolve().parents:
        _check(each, gid)
    for link in (place, *place.parents):
        if link.is_symlink():
            _check_link(link, gid)


def _check_link(link: Path, gid: int | None) -> None:
    """Who may turn it leads us wherever it pleases them."""
    here = link.parent.resolve()
    check_surroundings(here, gid)
    owner = os.lstat(link).st_uid
    if os.stat(here).st_mode & stat.S_ISVTX and not _is_trusted(owner):
        raise NotOurs(
            errno.EACCES,
            f"it is a symbolic link of {ownership.user(owner)}, who may turn it: use the place that it leads "
            f"to, {link.resolve()}, or a link of root or of your own",
            str(link),
        )
    check_way(here / os.readlink(link), gid)


def _check(each: Path, gid: int | None) -> None:
    problem = _problem(each, gid)
    if problem is not None:
        raise NotOurs(errno.EACCES, problem, str(each))


def _problem(each: Path, gid: int | None) -> str | None:
    found = os.stat(each)
    if not _is_trusted(found.st_uid):
        return (
            f"it belongs to {ownership.user(found.st_uid)}, who may take away what lies in it: use a place "
            "below directories of root or of your own"
        )
    if found.st_mode & stat.S_ISVTX or os.path.ismount(each):
        return None  # a volume of its own (Kubernetes' emptyDir has mode 777) is for those who were given it
    if found.st_mode & stat.S_IWOTH:
        return _writable_by("everybody")
    if found.st_mode & stat.S_IWGRP and found.st_gid not in (0, gid) and not _is_mine_alone(found.st_gid):
        return _writable_by(f"group {ownership.group(found.st_gid)}")
    return None


def _writable_by(whom: str) -> str:
    return (
        f"{whom} may write there, and so take away what lies in it: give it the sticky bit (chmod +t), "
        "close it "
        "(chmod go-w), or use another place"
    )


def _is_mine_alone(gid: int) -> bool:
    """A group that has this user's name, and nobody else."""
    try:
        group, me = grp.getgrgid(gid), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name == me and set(group.gr_mem) <= {me}


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid()) or _is_root_outside(uid)


def _is_root_outside(uid: int) -> bool:
    """In a user namespace the machine's root has the number of nobody."""
    try:
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
        mapped = " ".join(Path("/proc/self/uid_map").read_text().split())
    except OSError:
        return False
    return uid == overflow and mapped != _INITIAL
