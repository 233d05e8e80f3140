"""What a child process runs: one part of a work, told by the parent when to open, to run and to end."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Protocol


class Part(Protocol):
    """One process's share of a work. Constructing it opens its ends of the lanes."""

    def run(self, amount: float, start_at: int) -> Any:
        """Do `amount` of the work from the moment `start_at` on; the answer goes to the parent."""

    def close(self) -> None:
        """Let go of the lanes."""


def serve(
    connection: Connection, make_part: Any, arguments: tuple[Any, ...], scratch: str, limit: float
) -> None:
    """Answer the parent's commands until it sends None. The target of every child process."""
    arm_watchdog(limit)
    os.environ["TMPDIR"] = scratch  # some rivals keep files there
    try:
        connection.send(("started", None))
        connection.recv()
        part: Part = make_part(*arguments)
        connection.send(("open", None))
        while (command := connection.recv()) is not None:
            connection.send(("done", part.run(*command)))
        part.close()
    except BaseException as error:
        with suppress(OSError):  # if the parent is gone, nobody wants to know
            connection.send(("failed", f"{type(error).__name__}: {error}"))


def wait_until(start_at: int) -> None:
    """The start barrier: every part gets the same moment of the clock that all processes share."""
    delay = start_at - time.monotonic_ns()
    if delay > 0:
        time.sleep(delay / 1e9)


def arm_watchdog(limit: float) -> None:
    """This process ends after `limit` seconds, whatever it hangs in."""
    # The default action ends the process even where it hangs inside a C library, and needs no parent.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control-C reaches the parent too, which ends us
    signal.setitimer(signal.ITIMER_REAL, limit)
