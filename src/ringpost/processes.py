"""Processes in words. Their numbers mean something in one pid namespace only."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def pid_namespace(process: str = "self") -> int:
    """The number (an inode) of the pid namespace that a process lives in; 0: unknown."""
    try:
        return os.stat(_PROC / process / "ns" / "pid").st_ino
    except OSError:
        return 0


def describe(pid: int, namespace: int) -> str:
    """`process 7`, with the number that it has here if it lives in another pid namespace and is seen from
    here."""
    if not pid:
        return "a process"
    if namespace in (0, pid_namespace()):
        return f"process {pid}"
    here = _number_here(pid, namespace)
    if here is not None:
        return f"process {here} ({pid} in its own pid namespace, a container's)"
    return f"process {pid} of another pid namespace ({namespace}: another container, or the machine itself)"


def _number_here(pid: int, namespace: int) -> int | None:
    """Of a process in a namespace below ours, if /proc shows ours (a container may have been given
    another)."""
    if os.readlink(_PROC / "self") != str(os.getpid()):
        return None
    for entry in os.listdir(_PROC):
        if entry.isdigit() and _innermost_pid(entry) == pid and pid_namespace(entry) == namespace:
            return int(entry)
    return None


def _innermost_pid(entry: str) -> int | None:
    try:
        status = (_PROC / entry / "status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None
