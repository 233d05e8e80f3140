"""One process, stopped after each single store it makes to a queue's shared memory (ptrace, x86-64)."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from crash.children import Child, Nursery

TRACEME, SINGLESTEP, DETACH, SYSCALL = 0, 9, 17, 24
MOST_STEPS = 400_000
ASLEEP = 0.01  # seconds in one system call

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Memory(Protocol):
    """What is looked at: a SegmentFile, or several."""

    def snapshot(self) -> object: ...


def why_not() -> str:
    """What stands in the way of stepping here, or nothing."""
    if platform.machine() != "x86_64":
        return "exclusive loads and stores cannot be stepped through on this machine"
    with Nursery() as fork:
        return "" if fork(_offer_to_be_traced).wait() == 0 else "ptrace is not permitted here"


def after_each_store(
    fork: Nursery,
    segment: Memory,
    operation: Callable[[], object],
    prepare: Callable[[], object] = lambda: None,
) -> Iterator[Child]:
    """Run `prepare`, then `operation`, in a child; yield whenever the shared memory has changed.

    Payloads in the pool are not looked at. If the caller closes this generator, the child runs on alone.
    """
    with _one_processor():
        child = _start(fork, operation, prepare)
        before = segment.snapshot()
        try:
            for _ in range(MOST_STEPS):
                _ptrace(SINGLESTEP, child)
                if not _stopped(child):
                    return
                now = segment.snapshot()
                if now != before:
                    before = now
                    yield child
            raise AssertionError(f"the operation has more than {MOST_STEPS} instructions")
        finally:
            if child.status is None:
                _ptrace(DETACH, child)


class Held:
    """A child that stops as soon as it is woken from its sleep in a system call."""

    def __init__(self, fork: Nursery, operation: Callable[[], object]) -> None:
        """Returns when it sleeps."""
        self.child = _start(fork, operation, lambda: None)
        _ptrace(SYSCALL, self.child)
        while _stopped(self.child, within=ASLEEP):
            _ptrace(SYSCALL, self.child)

    def wait_until_woken(self) -> None:
        assert _stopped(self.child), "it was not woken, it ended"

    def release(self) -> None:
        """It is woken now, as far as it knows."""
        _ptrace(DETACH, self.child)


def _start(fork: Nursery, operation: Callable[[], object], prepare: Callable[[], object]) -> Child:
    child = fork(_traced, prepare, operation)
    assert _stopped(child), "the child ended too early"
    return child


def _ptrace(request: int, child: Child) -> None:
    if _libc.ptrace(request, child.pid, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def _stopped(child: Child, within: float | None = None) -> bool:
    """Wait until it stops: False if it ended, well, or did neither in this time."""
    deadline = None if within is None else time.monotonic() + within
    pid, status = os.waitpid(child.pid, 0 if deadline is None else os.WNOHANG)
    while pid == 0:
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(0.0001)
        pid, status = os.waitpid(child.pid, os.WNOHANG)
    if os.WIFSTOPPED(status):
        return True
    child.status = os.waitstatus_to_exitcode(status)
    assert child.status == 0, f"the operation itself failed: {child.status}"
    return False


def _offer_to_be_traced() -> None:
    if _libc.ptrace(TRACEME, 0, None, None) != 0:
        raise PermissionError(ctypes.get_errno(), "ptrace")


def _traced(prepare: Callable[[], object], operation: Callable[[], object]) -> None:
    prepare()
    _offer_to_be_traced()
    os.kill(os.getpid(), signal.SIGSTOP)
    operation()


@contextmanager
def _one_processor() -> Iterator[None]:
    """For both: waking one another on the same one takes a third of the time."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)
