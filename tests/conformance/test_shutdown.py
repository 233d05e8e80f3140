"""shutdown, as Python 3.13 defines it for queue.Queue."""

from __future__ import annotations

import queue as standard
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue
from conformance.patience import Call

Queue = ringpost.Queue[Any]


def test_it_is_the_standard_exception_where_there_is_one() -> None:
    assert ringpost.ShutDown is getattr(standard, "ShutDown", ringpost.ShutDown)


def test_what_is_left_can_be_had(queue: Queue) -> None:
    queue.put_many(range(3))
    queue.shutdown()
    assert queue.is_shutdown
    assert queue.qsize() == 3
    assert [queue.get() for _ in range(3)] == [0, 1, 2]
    for call in (queue.get, queue.get_nowait, queue.get_many):
        with pytest.raises(ringpost.ShutDown):
            call()


def test_nothing_more_can_be_put(queue: Queue) -> None:
    queue.shutdown()
    with pytest.raises(ringpost.ShutDown):
        queue.put("x")
    with pytest.raises(ringpost.ShutDown):
        queue.put_nowait("x")
    with pytest.raises(ringpost.ShutDown):
        queue.put_many(["x"])
    with pytest.raises(ringpost.ShutDown):
        queue.put(bytes(100_000))


def test_at_once_means_at_once(queue: Queue) -> None:
    queue.put_many(range(3))
    queue.shutdown(immediate=True)
    assert queue.qsize() == 0
    assert queue.empty()
    with pytest.raises(ringpost.ShutDown):
        queue.get()


def test_twice_is_once(queue: Queue) -> None:
    queue.put("x")
    queue.shutdown()
    queue.shutdown()
    assert queue.get() == "x"
    queue.shutdown(immediate=True)
    with pytest.raises(ringpost.ShutDown):
        queue.get()


@pytest.mark.parametrize("immediate", [False, True])
def test_waiting_gets_end(queue: Queue, immediate: bool) -> None:
    waiting = [Call(queue.get) for _ in range(3)]
    assert all(one.is_blocked() for one in waiting)
    queue.shutdown(immediate)
    for one in waiting:
        with pytest.raises(ringpost.ShutDown):
            one.result()


@pytest.mark.parametrize("immediate", [False, True])
def test_waiting_puts_end(make: MakeQueue, immediate: bool) -> None:
    queue = make(1)
    queue.put("first")
    waiting = [Call(queue.put, number) for number in range(3)]
    assert all(one.is_blocked() for one in waiting)
    queue.shutdown(immediate)
    for one in waiting:
        with pytest.raises(ringpost.ShutDown):
            one.result()
    assert queue.qsize() == (0 if immediate else 1)


def test_join_waits_for_what_is_left(queue: Queue) -> None:
    queue.put("x")
    queue.shutdown()
    waiting = Call(queue.join)
    assert waiting.is_blocked()
    assert queue.get() == "x"
    queue.task_done()
    waiting.result()


def test_join_does_not_wait_for_what_was_discarded(queue: Queue) -> None:
    queue.put_many(["taken", "discarded"])
    queue.get()
    waiting = Call(queue.join)
    queue.shutdown(immediate=True)
    assert waiting.is_blocked()  # for what was taken
    queue.task_done()
    waiting.result()
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()
