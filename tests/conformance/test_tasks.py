"""task_done and join."""

from __future__ import annotations

import time
from typing import Any

import pytest

import ringpost
from conformance.patience import Call

Queue = ringpost.Queue[Any]


def test_join_of_an_empty_queue_returns(queue: Queue) -> None:
    queue.join()
    queue.join(0)


def test_more_task_done_than_put_is_refused(queue: Queue) -> None:
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()
    queue.put("x")
    queue.get()
    queue.task_done()
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()


def test_join_waits_for_every_task(queue: Queue) -> None:
    queue.put_many(range(3))
    waiting = Call(queue.join)
    for _ in range(3):
        assert waiting.is_blocked()
        queue.get()
        assert waiting.is_blocked()
        queue.task_done()
    waiting.result()


def test_join_can_be_used_again(queue: Queue) -> None:
    for _ in range(3):
        queue.put("x")
        assert Call(queue.get).result() == "x"
        queue.task_done()
        queue.join(5)


def test_every_join_is_woken(queue: Queue) -> None:
    queue.put("x")
    waiting = [Call(queue.join) for _ in range(5)]
    assert all(one.is_blocked() for one in waiting)
    queue.get()
    queue.task_done()
    for one in waiting:
        one.result()


def test_join_ends_at_its_timeout(queue: Queue) -> None:
    queue.put("x")
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="unfinished"):
        queue.join(0.1)
    assert time.monotonic() - start >= 0.099
    with pytest.raises(TimeoutError):
        queue.join(timeout=0)
    with pytest.raises(ValueError, match="non-negative"):
        queue.join(-1)
