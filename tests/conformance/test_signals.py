"""A call that waits notices signals: a handler runs, and what it raises ends the wait."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue
from conformance.hammer import interrupt
from conformance.patience import BOUND
from ringpost.codecs import PickleCodec

Queue = ringpost.Queue[Any]

DELAY = 0.1
NOWHERE = 2**64 - 1  # a position that nothing reaches
LONG = 4 * DELAY


class Alarm(Exception):
    """Raised by a handler."""


@pytest.fixture
def send() -> Iterator[Callable[[Callable[[], object]], list[int]]]:
    """send(reaction): a signal to this process, a little later."""
    before = signal.getsignal(signal.SIGUSR1)
    timers: list[threading.Timer] = []

    def later(reaction: Callable[[], object]) -> list[int]:
        seen: list[int] = []

        def handle(number: int, _: object) -> None:
            seen.append(number)
            reaction()

        signal.signal(signal.SIGUSR1, handle)
        timers.append(threading.Timer(DELAY, os.kill, [os.getpid(), signal.SIGUSR1]))
        timers[-1].start()
        return seen

    yield later
    for timer in timers:
        timer.join(BOUND)
    signal.signal(signal.SIGUSR1, before)


WAITS: dict[str, Callable[[Queue, float], object]] = {
    "put": lambda queue, timeout: queue.put("x", timeout=timeout),
    "a large put": lambda queue, timeout: queue.put(bytes(20_000), timeout=timeout),
    "put_many": lambda queue, timeout: queue.put_many(["x", "y"], timeout=timeout),
    "get": lambda queue, timeout: queue.get(timeout=timeout),
    "get_many": lambda queue, timeout: queue.get_many(timeout=timeout),
    "join": lambda queue, timeout: queue.join(timeout=timeout),
}
every_wait = pytest.mark.parametrize("name", WAITS)


def prepared(make: MakeQueue, name: str) -> Queue:
    """One on which the call waits: empty with an unfinished task, or full."""
    queue = make(1)
    queue.put("first")
    if "put" not in name:
        queue.get()
    return queue


def fail() -> None:
    raise Alarm


@every_wait
def test_what_a_handler_raises_ends_the_wait(make: MakeQueue, send: Any, name: str) -> None:
    queue = prepared(make, name)
    held = queue.qsize()
    send(fail)
    with pytest.raises(Alarm):
        WAITS[name](queue, BOUND)
    assert queue.qsize() == held


@every_wait
def test_a_handler_that_returns_does_not_end_it(make: MakeQueue, send: Any, name: str) -> None:
    """Nor does it make the wait shorter."""
    queue = prepared(make, name)
    start = time.monotonic()
    seen = send(lambda: None)
    with pytest.raises((ringpost.Empty, ringpost.Full, TimeoutError)):
        WAITS[name](queue, LONG)
    assert time.monotonic() - start >= LONG - 0.001
    assert seen == [signal.SIGUSR1]


def test_a_handler_may_use_the_queue_that_is_waited_for(queue: Queue, send: Any) -> None:
    send(lambda: queue.put("from the handler"))
    assert queue.get(timeout=BOUND) == "from the handler"


def test_a_handler_may_close_the_queue_that_is_waited_for(queue: Queue, send: Any) -> None:
    send(queue.close)
    with pytest.raises(ValueError, match="closed"):
        queue.get(timeout=BOUND)


def test_a_batch_that_a_handler_ended_says_how_many_went_in(make: MakeQueue, send: Any) -> None:
    queue = make(3)
    send(fail)
    with pytest.raises(Alarm) as raised:
        queue.put_many(range(10), timeout=BOUND)
    assert raised.value.put == 3  # type: ignore[attr-defined]
    assert queue.get_many() == [0, 1, 2]


def test_what_a_handler_raises_leaves_no_door_shut(binding: Any, shm_dir: Path) -> None:
    """Nobody else would ever get in while this process lives."""
    place = shm_dir / "doors"
    place.mkdir(mode=0o700)
    door = binding.create(str(place / "door"), "a door", PickleCodec("a door"), capacity=128 << 10)
    stored = binding.Stored(door, door)

    def enter() -> None:
        with stored.entering(NOWHERE) as lead:
            assert lead

    def find_it_open() -> None:
        with stored.entering(NOWHERE, 5.0) as lead:
            assert lead

    interrupt(enter, 1000, and_then=find_it_open)
    binding.remove(door.path)
    place.rmdir()
