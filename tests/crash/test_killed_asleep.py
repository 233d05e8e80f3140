"""kill -9 of processes that sleep in a call: those who sleep beside them are still woken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import ringpost
from crash.children import Nursery

SLEEPERS = 6
PROMPT = 2.0  # seconds; a wake-up that died with its receiver costs the others 0.1 s
CAPACITY = 128 << 10
POOL = CAPACITY // 2

Queue = ringpost.Queue[Any]

SLEEPS: dict[str, tuple[bool, Callable[[Queue], object]]] = {  # does the queue start full?
    "get": (False, lambda queue: queue.get()),
    "get_many": (False, lambda queue: queue.get_many()),
    "put": (True, lambda queue: queue.put(b"item")),
    "put_many": (True, lambda queue: queue.put_many([b"item"])),
    "put large": (True, lambda queue: queue.put(bytes(20_000))),  # two sleep with their loans
    "join": (True, lambda queue: queue.join()),
}


@pytest.mark.parametrize(("starts_full", "sleep"), SLEEPS.values(), ids=SLEEPS)
@pytest.mark.parametrize("survivor", [0, SLEEPERS - 1])
def test_the_survivor_is_woken(
    broker: ringpost.Broker,
    fork: Nursery,
    starts_full: bool,
    sleep: Callable[[Queue], object],
    survivor: int,
) -> None:
    queue = broker.queue("q", capacity=CAPACITY, maxsize=1)
    if starts_full:
        queue.put(b"first")
    children = []
    for _ in range(SLEEPERS):
        children.append(fork(sleep, queue))
        children[-1].wait_until_asleep()
    saved = children.pop(survivor)
    for child in children:
        child.kill()
    assert not saved.ended()
    if starts_full:
        queue.get(timeout=PROMPT)
        queue.task_done()
    else:
        queue.put(b"item", timeout=PROMPT)
    assert saved.wait(PROMPT) == 0
    while queue.qsize():
        queue.get()
    queue.put(bytes(POOL), timeout=PROMPT)


@pytest.mark.parametrize("kind", ["get", "put"])
def test_none_of_the_sleepers_left_anything_behind(broker: ringpost.Broker, fork: Nursery, kind: str) -> None:
    """Nothing was put, nothing taken, and none of them slows the others down for good."""
    queue = broker.queue("q", capacity=CAPACITY, maxsize=1)
    starts_full, sleep = SLEEPS[kind]
    if starts_full:
        queue.put(b"first")
    children = [fork(sleep, queue) for _ in range(SLEEPERS)]
    for child in children:
        child.wait_until_asleep()
    for child in children:
        child.kill()
    assert queue.qsize() == int(starts_full)
    for _ in range(queue.qsize()):
        assert queue.get_nowait() == b"first"
    start = time.monotonic()
    for number in range(100):
        queue.put_nowait(number)
        assert queue.get_nowait() == number
    assert time.monotonic() - start < 1
