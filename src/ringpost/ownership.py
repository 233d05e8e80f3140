"""Users, groups and their files, in words."""

from __future__ import annotations

import grp
import os
import pwd
import stat


def user(uid: int) -> str:
    """`alice (uid 1000)`"""
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def group(gid: int) -> str:
    """`staff (gid 50)`"""
    try:
        return f"{grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return f"gid {gid}"


def describe(path: str) -> str:
    """What lies there, as far as it matters who may use it."""
    try:
        found = os.lstat(path)
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
    text = f"is {kind} of {user(found.st_uid)}, {group(found.st_gid)}, mode {stat.S_IMODE(found.st_mode):04o}"
    if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
        text += f", with {found.st_nlink} names (hard links)"
    return text


_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
