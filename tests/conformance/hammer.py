"""A signal handler that raises all the time, wherever a call is."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

_PERIOD = 0.0003  # seconds


class Alarm(Exception):
    """Raised by the handler."""


def interrupt(
    call: Callable[[], object], times: int, and_then: Callable[[], object], keep: bool = True
) -> None:
    """call() until it has been interrupted that often, and_then() after each time. `keep` what was raised
    until the end, and with it the frames that it came through, as an interactive interpreter does."""
    raised: list[Alarm | None] = []

    def handle(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is call.__code__:
                raise Alarm
            frame = frame.f_back

    def be_busy() -> None:
        while not done.is_set():
            pass

    done = threading.Event()
    other = threading.Thread(target=be_busy)
    before, switch = signal.signal(signal.SIGALRM, handle), sys.getswitchinterval()
    sys.setswitchinterval(
        1e-5
    )  # a signal often comes while the other one runs: it is seen right after a call
    gc.disable()  # Python ignores what is raised in its callbacks
    other.start()
    signal.setitimer(signal.ITIMER_REAL, _PERIOD, _PERIOD)
    try:
        while len(raised) < times:
            try:
                call()
            except Alarm as alarm:
                raised.append(alarm if keep else None)
            else:
                continue
            and_then()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.setswitchinterval(switch)
        gc.enable()
        done.set()
        other.join()
