"""Each call on a queue that was shut down, as CPython's own tests have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue
from conformance.patience import BOUND, Call, eventually

Queue = ringpost.Queue[Any]

either = pytest.mark.parametrize("immediate", [False, True])

PUTS: dict[str, Callable[[Queue], object]] = {
    "put": lambda queue: queue.put("x"),
    "put without block": lambda queue: queue.put("x", False),
    "put with a timeout": lambda queue: queue.put("x", True, BOUND),
    "put_nowait": lambda queue: queue.put_nowait("x"),
    "a large put": lambda queue: queue.put_nowait(bytes(20_000)),
    "put_many": lambda queue: queue.put_many(["x", "y"], timeout=BOUND),
}
GETS: dict[str, Callable[[Queue], object]] = {
    "get": lambda queue: queue.get(),
    "get without block": lambda queue: queue.get(False),
    "get with a timeout": lambda queue: queue.get(True, BOUND),
    "get_nowait": lambda queue: queue.get_nowait(),
    "get_many": lambda queue: queue.get_many(),
    "get_many without block": lambda queue: queue.get_many(5, block=False),
}


@either
@pytest.mark.parametrize("call", PUTS.values(), ids=PUTS)
@pytest.mark.parametrize("held", [0, 1, 2])
def test_puts(make: MakeQueue, call: Callable[[Queue], object], immediate: bool, held: int) -> None:
    """Full or not makes no difference."""
    queue = make(2)
    queue.put_many(range(held))
    queue.shutdown(immediate)
    with pytest.raises(ringpost.ShutDown):
        call(queue)
    assert queue.qsize() == (0 if immediate else held)


@either
@pytest.mark.parametrize("call", GETS.values(), ids=GETS)
def test_gets_when_nothing_is_left(queue: Queue, call: Callable[[Queue], object], immediate: bool) -> None:
    queue.shutdown(immediate)
    with pytest.raises(ringpost.ShutDown):
        call(queue)


@pytest.mark.parametrize("call", GETS.values(), ids=GETS)
def test_gets_of_what_is_left(queue: Queue, call: Callable[[Queue], object]) -> None:
    queue.put("left")
    queue.shutdown()
    assert call(queue) in ("left", ["left"])
    with pytest.raises(ringpost.ShutDown):
        call(queue)


@pytest.mark.parametrize("call", GETS.values(), ids=GETS)
def test_nothing_is_left_after_an_immediate_one(queue: Queue, call: Callable[[Queue], object]) -> None:
    queue.put_many(["small", bytes(20_000), "small"])
    queue.shutdown(immediate=True)
    with pytest.raises(ringpost.ShutDown):
        call(queue)
    assert queue.empty()


def test_large_items_that_are_left_can_be_had(queue: Queue) -> None:
    items = ["small", bytes(20_000), "small", bytes(30_000)]
    queue.put_many(items)
    queue.shutdown()
    assert [queue.get() for _ in items] == items
    with pytest.raises(ringpost.ShutDown):
        queue.get()


def test_an_orderly_one_may_become_immediate(queue: Queue) -> None:
    queue.put_many("ab")
    queue.shutdown()
    assert queue.get() == "a"
    queue.shutdown(immediate=True)
    assert queue.empty()
    with pytest.raises(ringpost.ShutDown):
        queue.get()


def test_an_immediate_one_stays_immediate(queue: Queue) -> None:
    queue.put("x")
    queue.shutdown(immediate=True)
    queue.shutdown(immediate=False)
    with pytest.raises(ringpost.ShutDown):
        queue.get()


def test_iteration_ends_at_once_after_an_immediate_one(queue: Queue) -> None:
    queue.put_many(range(3))
    queue.shutdown(immediate=True)
    assert list(queue) == []


@either
def test_a_waiting_iteration_ends(queue: Queue, immediate: bool) -> None:
    waiting = Call(list, queue)
    assert waiting.is_blocked()
    queue.put_many("ab")
    eventually(queue.empty)
    queue.shutdown(immediate)
    assert waiting.result() == ["a", "b"]


@either
def test_a_batch_that_waits_for_room_ends(make: MakeQueue, immediate: bool) -> None:
    queue = make(2)
    waiting = Call(queue.put_many, range(5))
    assert waiting.is_blocked()
    queue.shutdown(immediate)
    with pytest.raises(ringpost.ShutDown) as raised:
        waiting.result()
    assert raised.value.put == 2  # type: ignore[attr-defined]
    assert queue.qsize() == (0 if immediate else 2)


@either
def test_a_large_put_that_waits_for_room_ends(make: MakeQueue, immediate: bool) -> None:
    queue = make(capacity=128 << 10)
    large = bytes(50_000)
    queue.put(large)
    waiting = Call(queue.put, large)
    assert waiting.is_blocked()
    queue.shutdown(immediate)
    with pytest.raises(ringpost.ShutDown):
        waiting.result()
    assert queue.qsize() == (0 if immediate else 1)


def test_join_of_what_was_discarded_returns(queue: Queue) -> None:
    queue.put_many(range(3))
    waiting = [Call(queue.join) for _ in range(2)]
    assert all(one.is_blocked() for one in waiting)
    queue.shutdown(immediate=True)
    for one in waiting:
        one.result()
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()


def test_join_waits_for_what_is_left_and_being_worked_on(queue: Queue) -> None:
    queue.put_many("ab")
    queue.get()
    queue.shutdown()
    waiting = Call(queue.join)
    for _ in range(2):
        assert waiting.is_blocked()
        queue.task_done()
        if not queue.empty():
            queue.get()
    waiting.result()
