"""Namespaces of the kernel, for a forked child. They need root (CAP_SYS_ADMIN)."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import traceback
from collections.abc import Callable

import pytest

from crash.children import WATCHDOG, Flag, Nursery

NEW_TIME, NEW_MOUNTS, NEW_PIDS = 0x00000080, 0x00020000, 0x20000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 1 << 5, 1 << 12, 1 << 14, 1 << 18
DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def new_mount_namespace() -> None:
    """For this process and its children."""
    _check(_libc.unshare(NEW_MOUNTS), "unshare(CLONE_NEWNS)")
    _check(_libc.mount(None, b"/", None, RECURSIVE | PRIVATE, None), "mount --make-rprivate /")


def mount(kind: str, where: str, options: str = "") -> None:
    """What needs no device."""
    result = _libc.mount(kind.encode(), where.encode(), kind.encode(), 0, options.encode())
    _check(result, f"mount -t {kind} {where}")


def bind(what: str, where: str, read_only: bool = False) -> None:
    """A directory by a second name."""
    _check(_libc.mount(what.encode(), where.encode(), None, BIND, None), f"mount --bind {what} {where}")
    if read_only:
        flags = BIND | REMOUNT | READ_ONLY
        _check(_libc.mount(None, where.encode(), None, flags, None), f"mount -o remount,ro {where}")


def mount_tmpfs(where: str, options: str) -> None:
    """For this process and its children only."""
    new_mount_namespace()
    _check(_libc.mount(b"tmpfs", where.encode(), b"tmpfs", 0, options.encode()), f"mount tmpfs {where}")


def resize_tmpfs(where: str, size: str) -> None:
    """One that mount_tmpfs() has mounted. Raises OSError if more is in it."""
    result = _libc.mount(None, where.encode(), None, REMOUNT, f"size={size}".encode())
    _check(result, f"mount -o remount,size={size} {where}")


def unmount(where: str) -> None:
    """What mount_tmpfs() mounted, as soon as nobody uses it any more."""
    _check(_libc.umount2(where.encode(), DETACH), f"unmount {where}")


def new_pid_namespace() -> None:
    """For the children that this process forks from now on."""
    _check(_libc.unshare(NEW_PIDS), "unshare(CLONE_NEWPID)")


def enter_time_namespace(ahead: int) -> None:
    """The children that this process forks from now on find the monotonic clock so many seconds ahead."""
    if _libc.unshare(NEW_TIME) != 0:
        pytest.skip("making a time namespace is not permitted (root?), or this kernel has none")
    with open("/proc/self/timens_offsets", "w") as file:
        file.write(f"monotonic {ahead} 0\nboottime {ahead} 0\n")


class Container:
    """A process that is number 1 of a pid namespace of its own."""

    def __init__(self, fork: Nursery, function: Callable[[], object], with_proc: bool = False) -> None:
        self._with_proc = with_proc
        self._pid = memoryview(mmap.mmap(-1, 8)).cast("Q")
        self.started = Flag()
        self.outside = fork(self._enter, function)

    def _enter(self, function: Callable[[], object]) -> None:
        new_pid_namespace()
        pid = os.fork()
        if pid == 0:
            assert os.getpid() == 1
            signal.alarm(WATCHDOG)
            status = 1
            try:
                if self._with_proc:
                    new_mount_namespace()
                    mount("proc", "/proc")
                function()
                status = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        self._pid[0] = pid
        self.started.set()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(abs(status))

    @property
    def pid(self) -> int:
        """The number that it has out here."""
        self.started.wait()
        return int(self._pid[0])

    def kill(self) -> None:
        self.started.wait()
        os.kill(self._pid[0], signal.SIGKILL)
        assert self.outside.wait() == signal.SIGKILL


def skip_without_mounts(directory: str) -> None:
    with Nursery() as fork:
        if fork(mount_tmpfs, directory, "size=64k").wait() != 0:
            pytest.skip("mounting a tmpfs in a mount namespace of its own is not permitted (root?)")


def skip_without_pid_namespaces() -> None:
    with Nursery() as fork:
        if fork(new_pid_namespace).wait() != 0:
            pytest.skip("making a pid namespace is not permitted (root?)")
