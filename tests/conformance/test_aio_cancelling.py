"""Storms of cancellations and timeouts: nothing is lost, nothing comes twice, nobody is forgotten."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter

import pytest

import ringpost
from conformance.conftest import Run
from conformance.crew import Crew
from ringpost import aio

MESSAGES = 3000


def give(queue: ringpost.Queue[int], count: int, seed: int) -> None:
    numbers = random.Random(seed)
    for i in range(count):
        queue.put(i)
        if numbers.random() < 0.1:
            time.sleep(numbers.random() / 2000)
    queue.shutdown()


async def stop_now_and_then(tasks: list[asyncio.Task[None]], numbers: random.Random) -> None:
    while not all(task.done() for task in tasks):
        task = numbers.choice(tasks)
        if not task.done():
            task.cancel()
        await asyncio.sleep(numbers.random() / 1000)


@pytest.mark.parametrize("seed", range(3))
def test_a_cancelled_get_loses_nothing(run: Run, seed: int) -> None:
    queue: aio.Queue[int] = aio.Queue()
    got: list[int] = []

    async def take() -> None:
        while True:
            try:
                got.append(await queue.get())
            except asyncio.CancelledError:
                continue  # try again
            except ringpost.ShutDown:
                return

    async def main() -> None:
        numbers = random.Random(seed)
        tasks = [asyncio.create_task(take()) for _ in range(8)]
        await stop_now_and_then(tasks, numbers)

    with Crew() as crew:
        crew.start(give, queue._sync, MESSAGES, seed)
        run(main())
    assert sorted(got) == list(range(MESSAGES))
    run(queue.close())


@pytest.mark.parametrize("seed", range(3))
def test_a_timeout_loses_nothing(run: Run, seed: int) -> None:
    queue: aio.Queue[int] = aio.Queue()
    got: list[int] = []

    async def take(numbers: random.Random) -> None:
        while True:
            after = numbers.random() / 2000
            try:
                if sys.version_info >= (3, 11) and numbers.random() < 0.7:
                    async with asyncio.timeout(after):
                        got.append(await queue.get())
                elif numbers.random() < 0.5:
                    got.append(await queue.get(after))
                else:
                    got.append(await asyncio.wait_for(queue.get(), after))
            except (asyncio.TimeoutError, ringpost.Empty):
                continue
            except ringpost.ShutDown:
                return

    async def main() -> None:
        await asyncio.gather(*(take(random.Random(seed * 10 + i)) for i in range(6)))

    with Crew() as crew:
        crew.start(give, queue._sync, MESSAGES, seed)
        run(main())
    assert sorted(got) == list(range(MESSAGES))
    run(queue.close())


@pytest.mark.parametrize("seed", range(3))
def test_a_cancelled_receive_loses_nothing(run: Run, seed: int) -> None:
    queue: aio.Queue[int] = aio.Queue()
    done: Counter[int] = Counter()

    async def take() -> None:
        async with queue.consumer(prefetch=4) as consumer:
            while True:
                try:
                    async with await consumer.receive() as message:
                        if message.body % 3 == 0:
                            await asyncio.sleep(0)  # cancelled in here, it is given back
                        body = message.body
                    done[body] += 1
                except asyncio.CancelledError:
                    continue
                except ringpost.ShutDown:
                    return

    async def main() -> None:
        tasks = [asyncio.create_task(take()) for _ in range(6)]
        await stop_now_and_then(tasks, random.Random(seed))

    with Crew() as crew:
        crew.start(give, queue._sync, MESSAGES, seed)
        run(main())
    assert done == Counter(range(MESSAGES))
    run(queue.close())


@pytest.mark.parametrize("seed", range(3))
def test_a_cancelled_put_was_not_made(run: Run, seed: int) -> None:
    queue: aio.Queue[tuple[int, int]] = aio.Queue(maxsize=3)
    put: list[tuple[int, int]] = []
    got: list[tuple[int, int]] = []

    async def give_some(who: int) -> None:
        for i in range(200):
            try:
                await queue.put((who, i))
                put.append((who, i))
            except asyncio.CancelledError:
                pass  # this one is left out

    async def take_all() -> None:
        async for item in queue:
            got.append(item)
            await asyncio.sleep(0)

    async def main() -> None:
        numbers = random.Random(seed)
        taker = asyncio.create_task(take_all())
        tasks = [asyncio.create_task(give_some(who)) for who in range(6)]
        await stop_now_and_then(tasks, numbers)
        queue.shutdown()
        await taker

    run(main())
    assert sorted(got) == sorted(put)
    assert len(put) > 500
    run(queue.close())


def test_a_wake_up_is_passed_on_by_who_is_cancelled(run: Run) -> None:
    """The one that was woken is cancelled before it runs: the next gets the message at once."""

    async def main() -> None:
        queue: aio.Queue[int] = aio.Queue()
        for _ in range(20):
            tasks = [asyncio.create_task(queue.get()) for _ in range(3)]
            await asyncio.sleep(0.01)
            spot = next(iter(queue._items._spots.values()))
            await queue.put(1)
            spot._told()  # wakes the first
            tasks[0].cancel()
            start = time.perf_counter()
            done, _ = await asyncio.wait(tasks[1:], timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result() for task in done] == [1]
            assert time.perf_counter() - start < 0.08
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert queue.empty()
        await queue.close()

    run(main())


def test_thousands_of_cancelled_waits_leave_nothing(run: Run) -> None:
    async def main() -> None:
        queue: aio.Queue[int] = aio.Queue()
        for _ in range(20):
            tasks = [asyncio.create_task(queue.get()) for _ in range(500)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        (spot,) = queue._items._spots.values()
        assert not spot._sleepers
        await queue.put(1)
        assert await queue.get() == 1
        await queue.close()

    run(main())
