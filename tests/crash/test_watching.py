"""kill -9 of who wakes and of who watches by descriptor: the others are late by a slice, no more."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Iterator

import pytest

import ringpost
from crash import stepping
from crash.children import Nursery
from crash.segment_file import SegmentFile, path_of
from crash.steps import CAPACITY
from ringpost import aio

SLICE = 0.1
MARGIN = 0.4  # seconds, on a machine that does other things too


@pytest.fixture(autouse=True)
def _stepping_works() -> None:
    if reason := stepping.why_not():
        pytest.skip(reason)


def killed_at_each_store(queue: ringpost.Queue[bytes], fork: Nursery, arm: object) -> Iterator[bool]:
    """A process dies in put(), each time one store later. The last one lives."""
    segment = SegmentFile(path_of(queue))
    at = 0
    while True:
        arm()  # type: ignore[operator]
        stores = 0
        steps = stepping.after_each_store(fork, segment, lambda: queue.put(b"new"), queue.qsize)
        for child in steps:
            stores += 1
            if stores > at:
                child.kill()
                break
        steps.close()
        yield stores > at
        if stores <= at:
            return
        at += 1


def test_a_producer_that_dies_before_it_wakes_costs_a_slice(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q", capacity=CAPACITY)
    descriptor = queue.fileno()
    committed = early = 0

    def settle() -> None:
        with pytest.raises(ringpost.Empty):
            queue.get_nowait()

    for died in killed_at_each_store(queue, fork, settle):
        if not queue.qsize():
            early += 1
            assert died
            continue
        committed += 1
        start = time.perf_counter()
        assert select.select([descriptor], [], [], 5)[0]
        assert queue.get_nowait() == b"new"
        assert time.perf_counter() - start < SLICE + MARGIN
    assert committed >= 3  # tail, unlocking, F1, F2 ...
    assert early >= 2


def test_a_sleeping_task_is_late_by_a_slice(broker: ringpost.Broker, fork: Nursery) -> None:
    """It sleeps, armed, while the producer dies in each of its stores."""
    queue = broker.queue("q", capacity=CAPACITY)
    late: list[float] = []

    async def main() -> None:
        mine = aio.Queue.of(queue)
        segment = SegmentFile(path_of(queue))
        at, lives = 0, False
        while not lives:
            task = asyncio.create_task(mine.get())
            await asyncio.sleep(0.05)
            stores = 0
            steps = stepping.after_each_store(fork, segment, lambda: queue.put(b"new"), queue.qsize)
            for child in steps:
                stores += 1
                if stores > at:
                    child.kill()
                    break
            steps.close()
            lives = stores <= at
            at += 1
            if not queue.qsize():
                queue.put(b"new")
            start = time.perf_counter()
            assert await task == b"new"
            late.append(time.perf_counter() - start)
        await mine.close()

    asyncio.run(main())
    assert len(late) >= 6
    assert max(late) < SLICE + MARGIN


def watch_and_wait(queue: ringpost.Queue[bytes]) -> None:
    async def main() -> None:
        await aio.Queue.of(queue).get()

    asyncio.run(main())


def test_dead_watchers_leave_nothing_that_others_notice(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q", capacity=CAPACITY)
    children = [fork(watch_and_wait, queue) for _ in range(4)]
    for child in children:
        child.wait_until_asleep()
    survivor = children.pop()
    for child in children:
        child.kill()
    assert not survivor.ended()
    queue.put(b"new")
    assert survivor.wait(2) == 0
    start = time.perf_counter()
    for _ in range(1000):
        queue.put(b"x")
        queue.get()
    assert time.perf_counter() - start < MARGIN
