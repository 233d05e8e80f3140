"""Calls that wait, and what ends their wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue
from conformance.patience import BOUND, Call, eventually

Queue = ringpost.Queue[Any]


def test_a_put_ends_a_waiting_get(queue: Queue) -> None:
    waiting = Call(queue.get)
    assert waiting.is_blocked()
    queue.put("x")
    assert waiting.result() == "x"


def test_a_get_ends_a_waiting_put(make: MakeQueue) -> None:
    queue = make(1)
    queue.put("first")
    waiting = Call(queue.put, "second")
    assert waiting.is_blocked()
    assert queue.get() == "first"
    waiting.result()
    assert queue.get() == "second"


def test_room_for_bytes_ends_a_waiting_put(make: MakeQueue) -> None:
    queue = make(capacity=128 << 10)
    large = bytes(64 << 10)
    queue.put(large)
    waiting = Call(queue.put, large)
    assert waiting.is_blocked()
    assert queue.get() == large
    waiting.result()
    assert queue.get() == large


def test_every_waiting_get_gets_one(queue: Queue) -> None:
    waiting = [Call(queue.get) for _ in range(8)]
    assert all(one.is_blocked() for one in waiting)
    for number in range(8):
        queue.put(number)
    assert sorted(one.result() for one in waiting) == list(range(8))


def test_one_batch_serves_every_waiting_get(queue: Queue) -> None:
    waiting = [Call(queue.get) for _ in range(8)]
    assert all(one.is_blocked() for one in waiting)
    queue.put_many(range(8))
    assert sorted(one.result() for one in waiting) == list(range(8))


def test_every_waiting_put_gets_in(make: MakeQueue) -> None:
    queue = make(1)
    queue.put("first")
    waiting = [Call(queue.put, number) for number in range(8)]
    assert all(one.is_blocked() for one in waiting)
    assert queue.get() == "first"
    assert sorted(queue.get(timeout=BOUND) for _ in range(8)) == list(range(8))
    for one in waiting:
        one.result()


@pytest.mark.parametrize("call", [Queue.get, Queue.get_many, lambda q: q.join(), lambda q: next(iter(q))])
def test_closing_a_handle_ends_its_waits(queue: Queue, call: Callable[[Queue], object]) -> None:
    queue.put("unfinished")
    queue.get()
    waiting = Call(call, queue)
    assert waiting.is_blocked()
    queue.close()
    with pytest.raises(ValueError, match="closed"):
        waiting.result()


def test_closing_a_handle_ends_a_waiting_put(make: MakeQueue) -> None:
    queue = make(1)
    queue.put("first")
    waiting = Call(queue.put, "second")
    assert waiting.is_blocked()
    queue.close()
    with pytest.raises(ValueError, match="closed"):
        waiting.result()


def test_waiting_is_not_forgotten_when_others_give_up(queue: Queue) -> None:
    """Those whose time is over pass a wake-up on."""
    patient = Call(queue.get)
    hasty = [Call(queue.get, True, 0.01 * number) for number in range(1, 6)]
    for one in hasty:
        with pytest.raises(ringpost.Empty):
            one.result()
    queue.put("x")
    assert patient.result() == "x"
    eventually(queue.empty)
