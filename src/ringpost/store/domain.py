"""Who may have a durable broker open at the same time: processes of one pid namespace, with one shared
memory.

LMDB tells readers apart, and knows whether they live, by their pids: where two processes have one number it
gives pages away that somebody still reads. And whoever does not see the others' rings makes rings of his own
for the same queues. Containers that share a disk easily do both.

The file DOMAIN in the broker's directory says where those live that have it open. Each of them holds a shared
lock of the kernel's on its second byte (of an open file description: it goes with its process), so the word
of those who are gone, or of before a reboot, does not count. Who comes in holds the first byte meanwhile, and

    D1  is alone (the second byte can be had exclusively): writes where it lives, and shares the byte
    D2  is not: shares the byte, for the others not to go, and tries D1 once more; else reads where they live

so that of two that come at the same moment one finds the other's word.

Its third byte is locked by who makes the broker's files, or removes them: this file nobody else may open,
while the directory can be locked by anybody who may look into it. It is there before it is locked, and made
without a lock: complete, by a name of its own, and then linked, which takes nobody's place. Who dies before
that leaves the other name, which whoever has the lock next removes. It is removed last; who has locked one
that has lost its name waited for that, and tries the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from ringpost import processes
from ringpost.engines import directory
from ringpost.errors import Stalled, Unsupported

NAME = "domain"
_SIZE = 1024  # written as a whole, so that a full disk has room for it
_DOOR, _MEMBERS, _MAKERS = 0, 1, 2  # bytes that are locked
_PATIENCE = 5.0  # seconds, for somebody who was stopped in the door


@dataclass(frozen=True)
class Domain:
    """Where a process lives, as far as it matters here."""

    pid_namespace: int
    memory: tuple[int, int]  # the file system and the inode of what RINGPOST_SHM_DIR names
    memory_path: str
    pid: int

    @staticmethod
    def here() -> Domain:
        base = directory.base()
        directory.check_base(base)
        found = os.stat(base)
        return Domain(processes.pid_namespace(), (found.st_dev, found.st_ino), str(base), os.getpid())

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode().ljust(_SIZE, b"\n")


def make_file(here: Path, mode: int) -> None:
    """If there is none. It has its mode before it has its name, and takes nobody's place."""
    if os.path.lexists(here / NAME):
        return
    made = here / f"{NAME}.{uuid.uuid4().hex}{directory.BEING_MADE}"
    file = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, bytes(_SIZE), 0)
        os.fchmod(file, mode)
        with contextlib.suppress(
            FileExistsError, FileNotFoundError
        ):  # somebody was faster, or removed `made`
            os.link(made, here / NAME)
    finally:
        os.close(file)
        made.unlink(missing_ok=True)


def lock_makers(here: Path, mode: int, shown: Path, seconds: float) -> int:
    """Be the one who makes, or removes, the broker's files, until unlock_makers(). Raises Stalled, OSError.

    Args:
        here, shown: as for enter().
        mode: of the file.
        seconds: that another one may take.
    """
    while True:
        make_file(here, mode)
        try:
            file = os.open(here / NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # somebody has destroyed the broker just now
        directory.locked.add(file)
        try:
            _wait_for(file, _MAKERS, seconds, f"another process makes the broker in {shown}")
            if directory.leads_to(here / NAME, file):
                _remove_unfinished(here)
                return file
        except BaseException:
            unlock_makers(file)
            raise
        unlock_makers(file)


def unlock_makers(file: int) -> None:
    """What lock_makers() gave."""
    directory.close_locked(file, lambda: _lock(file, fcntl.F_UNLCK, _MAKERS))


def _remove_unfinished(here: Path) -> None:
    for each in here.glob(f"{NAME}.*{directory.BEING_MADE}"):
        each.unlink(missing_ok=True)


def enter(here: Path, shown: Path) -> int:
    """A descriptor: as long as it is open, whoever lives elsewhere is refused.

    Raises Unsupported: this process lives elsewhere than those who have the broker open; Stalled.

    Args:
        here: the broker's directory.
        shown: its name, for errors.
    """
    file = os.open(here / NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _wait_for(file, _DOOR, _PATIENCE, f"another process opens {shown}")
        _join(file, shown)
        _lock(file, fcntl.F_UNLCK, _DOOR)
    except BaseException:
        os.close(file)
        raise
    return file


def _join(file: int, shown: Path) -> None:
    mine = Domain.here()
    alone = _lock(file, fcntl.F_WRLCK, _MEMBERS)
    if not alone:
        if not _lock(file, fcntl.F_RDLCK, _MEMBERS):
            raise Stalled(f"somebody locks {shown / NAME} who is not ringpost")
        alone = _lock(file, fcntl.F_WRLCK, _MEMBERS)  # the others may just have gone
    if alone:
        os.pwrite(file, mine.pack(), 0)
        _lock(file, fcntl.F_RDLCK, _MEMBERS)
        return
    problem = _difference(mine, _read(file))
    if problem is not None:
        raise Unsupported(f"{shown} is {problem}")


def _read(file: int) -> Domain | None:
    """None: it was not written by ringpost."""
    try:
        told = json.loads(os.pread(file, _SIZE, 0))
        device, inode = told["memory"]
        return Domain(
            int(told["pid_namespace"]),
            (int(device), int(inode)),
            str(told["memory_path"]),
            int(told["pid"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _difference(mine: Domain, theirs: Domain | None) -> str | None:
    if theirs is None:
        return (
            f"open elsewhere, and its file {NAME} is damaged: end those who have it open, then open it again"
        )
    if theirs.pid_namespace != mine.pid_namespace:
        who = processes.describe(theirs.pid, theirs.pid_namespace)
        return (
            f"open in another pid namespace, by {who} at first: LMDB knows processes by their pids, which "
            "mean "
            "others here. Let the containers share one (docker run --pid=container:NAME; Kubernetes: "
            "shareProcessNamespace: true), use the broker from one of them only, or let those end first"
        )
    if theirs.memory != mine.memory:
        return (
            f"open with another shared memory, by process {theirs.pid} at first: theirs is "
            f"{theirs.memory_path}, "
            f"ours {mine.memory_path}, and the same only where it is the same directory of the same mount. "
            "Set "
            "RINGPOST_SHM_DIR to one that both see, share /dev/shm (docker run --ipc=container:NAME), or "
            "let those end first"
        )
    return None


def _wait_for(file: int, byte: int, seconds: float, who: str) -> None:
    deadline = time.monotonic() + seconds
    while not _lock(file, fcntl.F_WRLCK, byte):
        if time.monotonic() > deadline:
            raise Stalled(f"{who}, and does not run; continue or kill it")
        time.sleep(0.002)


def _lock(file: int, kind: int, byte: int) -> bool:
    """From one kind to another in one step."""
    wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True
