"""Who may use a broker: its user alone, or, if it was asked for, a group of users."""

from __future__ import annotations

import errno
import grp
import os
import stat
from dataclasses import dataclass

from ringpost import ownership
from ringpost.errors import NotOurs

WRITABLE = 0o022  # by others


@dataclass(frozen=True)
class Access:
    """Modes are what they are here, whatever the umask. In a directory with the set-group-ID bit new files
    get its
    group."""

    gid: int | None = None

    @property
    def directory_mode(self) -> int:
        return 0o700 if self.gid is None else 0o2770

    @property
    def file_mode(self) -> int:
        return 0o600 if self.gid is None else 0o660

    @property
    def name(self) -> str:
        """Of the directory in shared memory."""
        return f"ringpost-{os.geteuid()}" if self.gid is None else f"ringpost-group-{self.gid}"

    def check_member(self) -> None:
        """Raises NotOurs: its directories are not for this user."""
        if self.gid is None or os.geteuid() == 0 or self.gid in (os.getegid(), *os.getgroups()):
            return
        raise NotOurs(
            errno.EACCES,
            f"{ownership.user(os.geteuid())} is not in group {ownership.group(self.gid)}: add the user to it "
            "(usermod -aG GROUP USER), and start this process anew",
        )

    def check(self, path: str | os.PathLike[str] | int, *, shown: str, readable: bool = False) -> None:
        """Is it a directory that nobody else may change? Raises NotOurs, FileNotFoundError.

        Args:
            path: of the directory, or an open descriptor.
            shown: its name, for the error.
            readable: others may look into it.
        """
        self.check_member()
        found = os.stat(path, follow_symlinks=isinstance(path, int))
        problem = self._problem(found, WRITABLE if readable else 0o077)
        if problem is not None:
            raise NotOurs(errno.EACCES, problem, shown)

    def _problem(self, found: os.stat_result, closed: int) -> str | None:
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISDIR(found.st_mode):
            return f"it is not a directory: {self._wanted()}"
        if self.gid is not None:
            if found.st_gid == self.gid and mode == 0o2770:
                return None
            return (
                f"it belongs to {ownership.user(found.st_uid)} and {ownership.group(found.st_gid)}, mode "
                f"{mode:o}: {self._wanted()} (chgrp, then chmod 2770), or remove it"
            )
        if mode == 0o2770:
            return (
                f"it is shared with group {ownership.group(found.st_gid)}: say so: connect(..., "
                f"group={_name_of(found.st_gid)!r})"
            )
        if found.st_uid != os.geteuid():
            return (
                f"it belongs to {ownership.user(found.st_uid)}: {self._wanted()}. To share a broker "
                "between users, each of them says connect(..., group=)"
            )
        if mode & closed:
            what = "others may write there" if closed == WRITABLE else "others may enter it"
            return f"{what} (mode {mode:o}, not 700): {self._wanted()}"
        return None

    def _wanted(self) -> str:
        if self.gid is None:
            return (
                f"ringpost keeps queues only in directories of uid {os.geteuid()} with mode 0700; chmod "
                "700 it if "
                "it is yours, else remove it, or set RINGPOST_SHM_DIR"
            )
        return (
            f"a broker of a group is kept only in directories of {ownership.group(self.gid)} with mode 2770"
        )


PRIVATE = Access()


def access_for(group: str | None) -> Access:
    """Raises ValueError: there is no such group."""
    if group is None:
        return PRIVATE
    try:
        return Access(grp.getgrnam(group).gr_gid)
    except KeyError:
        if group.isdecimal():
            return Access(int(group))
    raise ValueError(f"there is no group {group!r} on this machine (getent group)")


def _name_of(gid: int) -> str:
    """As access_for() takes it."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def access_found(path: str | os.PathLike[str]) -> Access:
    """What a directory was made for; for those who only look. Raises NotOurs: it is not for this user."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return PRIVATE
    access = Access(found.st_gid) if stat.S_IMODE(found.st_mode) == 0o2770 else PRIVATE
    if stat.S_ISDIR(found.st_mode):
        access.check(os.path.realpath(path), shown=str(path), readable=True)
    return access
