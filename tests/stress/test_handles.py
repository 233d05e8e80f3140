"""Handles opened and closed all the time, by many threads: they work to the end, and nothing leaks."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from crash.children import Nursery

import ringpost

CAPACITY = 128 << 10
THREADS = 4
TIMES = 150
BOUND = 10.0


def resources() -> tuple[int, int]:
    """Open descriptors, and mappings of queues."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text().splitlines()
    return len(os.listdir("/proc/self/fd")), sum(".queue" in line for line in maps)


Work = Callable[[ringpost.Broker, int], None]


def in_threads(work: Work, broker: ringpost.Broker) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(work, broker, number) for number in range(THREADS)]:
            future.result()


def open_use_close(broker: ringpost.Broker, number: int) -> None:
    for _ in range(TIMES):
        with broker.queue("q", capacity=CAPACITY) as queue:
            queue.put(bytes(20_000) if number % 2 else b"small", timeout=BOUND)
            assert queue.get(timeout=BOUND) in (bytes(20_000), b"small")


def make_use_delete(broker: ringpost.Broker, number: int) -> None:
    for _ in range(TIMES // 3):
        queue = broker.queue(str(number), capacity=CAPACITY)
        queue.put(number)
        assert queue.get() == number
        assert broker.delete(str(number))


def make_anonymous(_: ringpost.Broker, number: int) -> None:
    for _ in range(TIMES // 3):
        with ringpost.Queue(capacity=CAPACITY) as queue:
            queue.put(number)
            assert queue.get() == number


@pytest.mark.parametrize("work", [open_use_close, make_use_delete, make_anonymous])
def test_nothing_leaks(broker: ringpost.Broker, fork: Nursery, work: Work) -> None:
    """In a process of its own: this one has other things open."""

    def child() -> None:
        in_threads(work, broker)
        before = resources()
        in_threads(work, broker)
        assert resources() == before

    assert fork(child).wait() == 0


def test_forked_children_leak_nothing_into_one_another(broker: ringpost.Broker, fork: Nursery) -> None:
    """Twenty generations, each a participant of its own."""
    queue = broker.queue("q", capacity=CAPACITY)

    def descend(generation: int) -> None:
        queue.put(resources())
        if generation:
            pid = os.fork()
            if pid == 0:
                try:
                    descend(generation - 1)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)

    assert fork(descend, 20).wait() == 0
    reports = queue.get_many()
    assert len(reports) == 21
    assert reports[1:] == [reports[1]] * 20


def test_closing_ends_the_calls_of_other_threads(broker: ringpost.Broker) -> None:
    """Of this handle only: another one of the same queue goes on waiting."""
    closed, other = (broker.queue("q", capacity=CAPACITY) for _ in range(2))
    raised = []

    def get() -> None:
        try:
            closed.get()
        except ValueError as error:
            raised.append(error)

    waiting = [threading.Thread(target=get) for _ in range(THREADS)]
    taken: list[object] = []
    goes_on = threading.Thread(target=lambda: taken.append(other.get()))
    for thread in [*waiting, goes_on]:
        thread.start()
    time.sleep(0.05)
    closed.close()
    for thread in waiting:
        thread.join(BOUND)
    assert len(raised) == THREADS
    assert goes_on.is_alive()
    other.put("item")
    goes_on.join(BOUND)
    assert taken == ["item"]
