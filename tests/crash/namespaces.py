"""Namespaces of the kernel, for a forked child. They need root (CAP_SYS_ADMIN)."""

from __future__ import annotations

import ctypes
import os

import pytest

from crash.children import Nursery

NEW_MOUNTS, NEW_PIDS = 0x00020000, 0x20000000
RECURSIVE, PRIVATE = 1 << 14, 1 << 18
DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount_tmpfs(where: str, options: str) -> None:
    """For this process and its children only."""
    _check(_libc.unshare(NEW_MOUNTS), "unshare(CLONE_NEWNS)")
    _check(_libc.mount(None, b"/", None, RECURSIVE | PRIVATE, None), "mount --make-rprivate /")
    _check(_libc.mount(b"tmpfs", where.encode(), b"tmpfs", 0, options.encode()), f"mount tmpfs {where}")


def unmount(where: str) -> None:
    """What mount_tmpfs() mounted, as soon as nobody uses it any more."""
    _check(_libc.umount2(where.encode(), DETACH), f"unmount {where}")


def new_pid_namespace() -> None:
    """For the children that this process forks from now on."""
    _check(_libc.unshare(NEW_PIDS), "unshare(CLONE_NEWPID)")


def skip_without_mounts(directory: str) -> None:
    with Nursery() as fork:
        if fork(mount_tmpfs, directory, "size=64k").wait() != 0:
            pytest.skip("mounting a tmpfs in a mount namespace of its own is not permitted (root?)")


def skip_without_pid_namespaces() -> None:
    with Nursery() as fork:
        if fork(new_pid_namespace).wait() != 0:
            pytest.skip("making a pid namespace is not permitted (root?)")
