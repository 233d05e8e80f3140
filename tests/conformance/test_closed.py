"""A closed handle: every call says so, and the queue itself goes on."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue

Queue = ringpost.Queue[Any]

CALLS: dict[str, Callable[[Queue], object]] = {
    "put": lambda queue: queue.put("x"),
    "a large put": lambda queue: queue.put(bytes(20_000)),
    "put_nowait": lambda queue: queue.put_nowait("x"),
    "put_many": lambda queue: queue.put_many(["x"]),
    "put_many of nothing": lambda queue: queue.put_many([]),
    "get": lambda queue: queue.get(),
    "get_nowait": lambda queue: queue.get_nowait(),
    "get_many": lambda queue: queue.get_many(),
    "get_many of nothing": lambda queue: queue.get_many(0),
    "next": lambda queue: next(iter(queue)),
    "qsize": lambda queue: queue.qsize(),
    "empty": lambda queue: queue.empty(),
    "full": lambda queue: queue.full(),
    "task_done": lambda queue: queue.task_done(),
    "join": lambda queue: queue.join(),
    "shutdown": lambda queue: queue.shutdown(),
    "is_shutdown": lambda queue: queue.is_shutdown,
    "maxsize": lambda queue: queue.maxsize,
    "capacity": lambda queue: queue.capacity,
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
def test_every_call_says_so(queue: Queue, call: Callable[[Queue], object]) -> None:
    queue.put("x")
    queue.close()
    with pytest.raises(ValueError, match="closed"):
        call(queue)


def test_a_method_that_was_looked_up_before_says_so_too(queue: Queue) -> None:
    queue.put("x")
    calls = [queue.get, queue.get_nowait, queue.get_many]
    put, put_many = queue.put, queue.put_many
    queue.close()
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(ValueError, match="closed"):
        put("y")
    with pytest.raises(ValueError, match="closed"):
        put_many(["y"])


def test_closing_twice_is_fine(queue: Queue) -> None:
    queue.close()
    queue.close()
    assert queue.closed
    assert "closed" in repr(queue)


def test_other_handles_go_on(make: MakeQueue, kind: str, broker: ringpost.Broker) -> None:
    queue = make()
    other = broker.queue(str(queue.name)) if kind == "named" else pickle.loads(pickle.dumps(queue))
    queue.put("x")
    queue.close()
    with other:
        assert other.get_nowait() == "x"
        other.put("y")
        assert other.qsize() == 1


def test_a_generator_may_close_it(make: MakeQueue, kind: str, broker: ringpost.Broker) -> None:
    """Its put_many may end in either way, but what went in is the front of the batch."""
    queue = make()
    other = broker.queue(str(queue.name)) if kind == "named" else pickle.loads(pickle.dumps(queue))

    def items() -> Iterator[bytes]:
        yield b"first"
        queue.close()
        yield bytes(20_000)

    with contextlib.suppress(ValueError):
        queue.put_many(items())
    assert queue.closed
    with other:
        left = [other.get_nowait() for _ in range(other.qsize())]
    assert left == [b"first", bytes(20_000)][: len(left)]
