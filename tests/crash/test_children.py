"""The children of the other tests report what became of them. (Negative controls.)"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Callable

import pytest

from crash.children import Flag, Nursery


def fail() -> None:
    os.close(2)  # what it says about itself is no part of this test's output
    raise AssertionError


def crash() -> None:
    faulthandler.disable()
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("function", "status"),
    [(int, 0), (fail, 1), (crash, -signal.SIGSEGV)],
    ids=["returns", "raises", "crashes"],
)
def test_how_it_ended(fork: Nursery, function: Callable[[], object], status: int) -> None:
    assert fork(function).wait() == status


def test_a_hang_is_noticed_and_ended(fork: Nursery) -> None:
    child = fork(signal.pause)
    with pytest.raises(TimeoutError):
        child.wait(0.05)
    assert not child.ended()
    child.kill()
    assert child.wait() == -signal.SIGKILL


def test_a_watchdog_ends_a_child_that_nobody_waits_for(
    fork: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crash.children.WATCHDOG", 1)
    assert fork(time.sleep, 30).wait(10) == -signal.SIGALRM


def test_nothing_happens_is_noticed() -> None:
    with pytest.raises(AssertionError, match="nothing happened"):
        Flag().wait(0.01)


def test_awake_is_not_asleep(fork: Nursery) -> None:
    child = fork(int)
    with pytest.raises(AssertionError, match="asleep"):
        child.wait_until_asleep()
