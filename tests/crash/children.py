"""Forked children: warm (no exec, so they are at work within a millisecond), each with a watchdog."""

from __future__ import annotations

import mmap
import os
import platform
import select
import signal
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine())
_FUTEX_PRIVATE = 128
WATCHDOG = 60  # seconds; a child that hangs in whatever call is ended by SIGALRM's default action


class Child:
    """A process that runs `target(*args)`; exit status 0 if that returned, 1 if it raised."""

    def __init__(self, target: Callable[..., object], *args: Any) -> None:
        self.status: int | None = None  # as of subprocess: negative: the signal that ended it
        self.pid = os.fork()
        if self.pid == 0:
            _run(target, args)
        self._pidfd = os.pidfd_open(self.pid)

    def send(self, signum: int) -> None:
        signal.pidfd_send_signal(self._pidfd, signum)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.status is None:
            self.send(signal.SIGKILL)
            self.wait()

    def wait(self, timeout: float = WATCHDOG) -> int:
        """Its exit status; TimeoutError if it did not end in time."""
        if self.status is None:
            if not select.select([self._pidfd], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} did not end within {timeout} s")
            self._reap()
        assert self.status is not None
        return self.status

    def ended(self) -> bool:
        """By itself, or killed."""
        if self.status is None and select.select([self._pidfd], [], [], 0)[0]:
            self._reap()
        return self.status is not None

    def stop(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        self.send(signal.SIGSTOP)
        os.waitid(os.P_PIDFD, self._pidfd, os.WSTOPPED)

    def proceed(self) -> None:
        self.send(signal.SIGCONT)

    def wait_until_asleep(self) -> None:
        """But in no lock of Python's, and for the second time: the first may be a lock on its way there."""
        deadline = time.monotonic() + 10
        seen = 0
        while seen < 2:
            assert not self.ended(), "it ended and does not fall asleep any more"
            assert time.monotonic() < deadline, "it does not fall asleep"
            time.sleep(0.01)
            seen += self._state() == "S" and not self._waits_for_a_thread()

    def _state(self) -> str:
        with open(f"/proc/{self.pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]

    def _waits_for_a_thread(self) -> bool:
        """In a futex that no other process can see."""
        with open(f"/proc/{self.pid}/syscall") as file:
            call = file.read().split()  # its number and arguments, or "running"
        return call[0] == str(_FUTEX) and bool(int(call[2], 16) & _FUTEX_PRIVATE)

    def _reap(self) -> None:
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._pidfd)


def _run(target: Callable[..., object], args: tuple[Any, ...]) -> None:
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(WATCHDOG)
        target(*args)
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


class Nursery:
    """Makes children, and leaves none behind."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __call__(self, target: Callable[..., object], *args: Any) -> Child:
        child = Child(target, *args)
        self._children.append(child)
        return child

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self._children:
            child.kill()


class Flag:
    """A word that processes share, to be waited for without any queue."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._page[0] = 1

    def __bool__(self) -> bool:
        return self._page[0] == 1

    def wait(self, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        while not self:
            assert time.monotonic() < deadline, f"nothing happened within {timeout} s"
            time.sleep(0.001)
