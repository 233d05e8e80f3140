"""Ctrl-C ends a blocked call at once and loses nothing; a handler that returns lets the wait go on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import ringpost
from crash.children import Flag, Nursery

PROMPT = 5.0  # seconds
CAPACITY = 128 << 10
POOL = CAPACITY // 2
HALF = b"h" * (POOL // 2)  # in the queue, whose maxsize is 1: no room for another, but for its payload
WHOLE = b"w" * POOL  # no room for another payload either

Queue = ringpost.Queue[Any]


@dataclass(frozen=True)
class Wait:
    name: str
    call: Callable[..., object]
    release: Callable[[Queue], object]  # what ends the wait
    timed_out: type[Exception]
    first: bytes | None = None  # what is in the queue already


WAITS = [
    Wait("get", Queue.get, lambda q: q.put(b"x"), ringpost.Empty),
    Wait("get_many", Queue.get_many, lambda q: q.put(b"x"), ringpost.Empty),
    Wait("put", lambda q, **kw: q.put(b"x", **kw), Queue.get, ringpost.Full, HALF),
    Wait("put_many", lambda q, **kw: q.put_many([b"x"], **kw), Queue.get, ringpost.Full, HALF),
    Wait("put large", lambda q, **kw: q.put(bytes(20_000), **kw), Queue.get, ringpost.Full, HALF),
    Wait("borrow large", lambda q, **kw: q.put(bytes(20_000), **kw), Queue.get, ringpost.Full, WHOLE),
    Wait("join", Queue.join, lambda q: (q.get(), q.task_done()), TimeoutError, HALF),
]
each_wait = pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.name)


@pytest.fixture
def queue(broker: ringpost.Broker) -> Queue:
    return broker.queue("q", capacity=CAPACITY, maxsize=1)


def fill(queue: Queue, wait: Wait) -> None:
    if wait.first:
        queue.put(wait.first)


def check_nothing_changed(queue: Queue, wait: Wait) -> None:
    """What was there is there, nothing more, and all room can be used again."""
    assert queue.qsize() == bool(wait.first)
    if wait.first:
        assert queue.get_nowait() == wait.first
    for message in (WHOLE, b"small"):
        queue.put_nowait(message)
        assert queue.get_nowait() == message
    assert queue._log.info()["pool_used"] == 0


@each_wait
def test_ctrl_c_ends_a_blocked_call(queue: Queue, fork: Nursery, wait: Wait) -> None:
    def blocked() -> None:
        with pytest.raises(KeyboardInterrupt):
            wait.call(queue)
        check_nothing_changed(queue, wait)

    fill(queue, wait)
    child = fork(blocked)
    child.wait_until_asleep()
    child.send(signal.SIGINT)
    assert child.wait(PROMPT) == 0


@each_wait
def test_ctrl_c_does_not_end_the_calls_of_others(queue: Queue, fork: Nursery, wait: Wait) -> None:
    fill(queue, wait)
    interrupted, other = (fork(wait.call, queue) for _ in range(2))
    interrupted.wait_until_asleep()
    other.wait_until_asleep()
    interrupted.send(signal.SIGINT)
    assert interrupted.wait(PROMPT) == 1
    assert not other.ended()
    wait.release(queue)
    assert other.wait(PROMPT) == 0


@each_wait
def test_a_handler_that_returns_lets_the_wait_go_on(queue: Queue, fork: Nursery, wait: Wait) -> None:
    handled = Flag()

    def blocked() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: handled.set())
        wait.call(queue)

    fill(queue, wait)
    child = fork(blocked)
    child.wait_until_asleep()
    child.send(signal.SIGUSR1)
    handled.wait()
    child.wait_until_asleep()
    wait.release(queue)
    assert child.wait(PROMPT) == 0


@each_wait
def test_signals_do_not_put_the_timeout_off(queue: Queue, fork: Nursery, wait: Wait) -> None:
    ticks = []

    def blocked() -> None:
        signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        start = time.monotonic()
        with pytest.raises(wait.timed_out):
            wait.call(queue, timeout=0.3)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert 0.3 <= time.monotonic() - start < 2
        assert ticks
        check_nothing_changed(queue, wait)

    fill(queue, wait)
    assert fork(blocked).wait() == 0


@each_wait
def test_an_exception_of_a_handler_comes_out_of_the_call(queue: Queue, fork: Nursery, wait: Wait) -> None:
    class Enough(Exception):
        pass

    def enough(*_: object) -> None:
        raise Enough

    def blocked() -> None:
        signal.signal(signal.SIGUSR1, enough)
        with pytest.raises(Enough):
            wait.call(queue)
        check_nothing_changed(queue, wait)

    fill(queue, wait)
    child = fork(blocked)
    child.wait_until_asleep()
    child.send(signal.SIGUSR1)
    assert child.wait(PROMPT) == 0


def test_ctrl_c_in_the_middle_of_put_many_tells_how_many_went_in(queue: Queue, fork: Nursery) -> None:
    def blocked() -> None:
        with pytest.raises(KeyboardInterrupt) as caught:
            queue.put_many([b"a", b"b", b"c"])
        assert caught.value.put == 1

    child = fork(blocked)
    child.wait_until_asleep()
    child.send(signal.SIGINT)
    assert child.wait(PROMPT) == 0
    assert queue.get_nowait() == b"a"
    assert queue.empty()


def test_ctrl_c_reaches_the_main_thread_while_others_are_blocked(queue: Queue, fork: Nursery) -> None:
    def work() -> None:
        threads = [threading.Thread(target=queue.get) for _ in range(2)]
        for thread in threads:
            thread.start()
        with pytest.raises(KeyboardInterrupt):
            queue.get()
        for _ in threads:
            queue.put(b"for one of them")
        for thread in threads:
            thread.join(PROMPT)
            assert not thread.is_alive()

    child = fork(work)
    child.wait_until_asleep()
    child.send(signal.SIGINT)
    assert child.wait(2 * PROMPT) == 0
