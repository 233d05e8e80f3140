"""ringpost.aio.Queue: put, get, many of them, join, and how waiting ends."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import repeat

import pytest

import ringpost
from conformance.conftest import Run
from conformance.crew import Crew, every_method
from ringpost import aio

SOON = 0.09  # seconds: by a wake-up, not by the end of a slice
TIMEOUTS = (0, 0.05, 0.3)  # not at all, for a part of a slice, for some slices


@asynccontextmanager
async def opened(**settings: object) -> AsyncIterator[aio.Queue]:
    async with aio.connect("ring:test-aio") as broker:
        try:
            yield await broker.queue("jobs", **settings)  # type: ignore[arg-type]
        finally:
            await broker.destroy()


async def waiting(task: asyncio.Task[object]) -> None:
    """Until it sleeps."""
    await asyncio.sleep(0.02)
    assert not task.done()


def test_what_was_put_is_got(run: Run) -> None:
    async def main() -> None:
        async with opened() as queue:
            for item in (1, "two", b"three", {"four": [4.0]}, b"x" * 100_000):
                await queue.put(item)
                assert await queue.get() == item
            assert await queue.put_many(range(3000)) == 3000
            got: list[int] = []
            while len(got) < 3000:
                got += await queue.get_many()
            assert got == list(range(3000))
            queue.put_nowait(1)
            assert queue.qsize() == 1
            assert queue.get_nowait() == 1
            assert queue.empty()
            assert not queue.full()

    run(main())


def test_who_waits_is_woken_at_once(run: Run) -> None:
    async def main() -> None:
        async with opened() as queue:
            waits = []
            for i in range(10):
                task = asyncio.create_task(queue.get())
                await waiting(task)
                start = time.perf_counter()
                await queue.put(i)
                assert await task == i
                waits.append(time.perf_counter() - start)
            assert sorted(waits)[5] < SOON

    run(main())


def test_who_waits_for_room_is_woken_at_once(run: Run) -> None:
    async def main() -> None:
        async with opened(maxsize=1) as queue:
            waits = []
            await queue.put(0)
            for i in range(1, 10):
                task = asyncio.create_task(queue.put(i))
                await waiting(task)
                start = time.perf_counter()
                assert await queue.get() == i - 1
                await task
                waits.append(time.perf_counter() - start)
            assert sorted(waits)[5] < SOON

    run(main())


@pytest.mark.parametrize("priorities", [False, True])
def test_many_tasks_wait_in_one_queue(run: Run, priorities: bool) -> None:
    async def main() -> None:
        async with opened(priorities=priorities) as queue:
            tasks = [asyncio.create_task(queue.get()) for _ in range(200)]
            await waiting(tasks[-1])
            start = time.perf_counter()
            await queue.put_many(range(200))
            assert sorted(await asyncio.gather(*tasks)) == list(range(200))
            assert time.perf_counter() - start < 1

    run(main())


def test_large_and_small_wait_for_room_together(run: Run) -> None:
    """Room for the small one is of no use to the large one, which must not keep it to itself."""

    async def main() -> None:
        async with opened(capacity=128 << 10) as queue:
            for size in (1000, 1):  # full to the last byte
                with pytest.raises(ringpost.Full):
                    queue._sync.put_many(repeat(b"x" * size), block=False)
            large = asyncio.create_task(queue.put(b"y" * 16000))
            await waiting(large)
            small = asyncio.create_task(queue.put(b"z"))
            await waiting(small)
            start = time.perf_counter()
            await queue.get()
            await small
            assert time.perf_counter() - start < SOON
            assert not large.done()
            await queue.get_many(40)
            await large

    run(main())


def test_put_many_waits_for_room(run: Run) -> None:
    async def main() -> None:
        async with opened(maxsize=10) as queue:
            task = asyncio.create_task(queue.put_many(iter(range(100))))
            got = []
            async for item in queue:
                got.append(item)
                if item == 99:
                    break
            assert got == list(range(100))
            assert await task == 100

    run(main())


def test_an_exception_says_how_many_were_put(run: Run) -> None:
    async def main() -> None:
        async with opened(maxsize=5) as queue:
            with pytest.raises(ringpost.Full) as full:
                await queue.put_many(range(9), timeout=0)
            assert full.value.put == 5  # type: ignore[attr-defined]
            with pytest.raises(ringpost.Full) as full:
                await queue.put_many(range(9), timeout=0.05)
            assert full.value.put == 0  # type: ignore[attr-defined]
            task = asyncio.create_task(queue.put_many(range(9)))
            await waiting(task)
            assert await queue.get_many(3) == [0, 1, 2]
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await task
            if hasattr(cancelled.value, "put"):  # a new exception is made before Python 3.11
                assert cancelled.value.put == 3
            assert await queue.get_many() == [3, 4, 0, 1, 2]
            with pytest.raises(ringpost.EncodeError) as bad:
                await queue.put_many([1, 2, object()], timeout=0)
            assert bad.value.put in (0, 2)  # type: ignore[attr-defined]

    run(main())


def test_timeouts(run: Run) -> None:
    async def main() -> None:
        async with opened(maxsize=1) as queue:
            for timeout in TIMEOUTS:
                start = time.perf_counter()
                with pytest.raises(ringpost.Empty):
                    await queue.get(timeout)
                with pytest.raises(ringpost.Empty):
                    await queue.get_many(timeout=timeout)
                assert time.perf_counter() - start >= 2 * timeout
            await queue.put(1)
            for timeout in TIMEOUTS:
                with pytest.raises(ringpost.Full):
                    await queue.put(2, timeout)
            with pytest.raises(TimeoutError):
                await queue.join(TIMEOUTS[-1])
            for wrong in (-1, float("nan")):
                with pytest.raises(ValueError, match="timeout"):
                    await queue.put(1, wrong)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(queue.put(2), 0.05)
            assert await queue.get() == 1
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(queue.get(), 0.05)
            await queue.put(3)
            assert await queue.get() == 3

    run(main())


def test_each_task_has_a_timeout_of_its_own(run: Run) -> None:
    async def main() -> None:
        async with opened() as queue:
            forever = asyncio.create_task(queue.get())
            tasks = [asyncio.create_task(queue.get(timeout)) for timeout in (0.5, 0.15, 0.3)]
            cancelled = asyncio.create_task(queue.get(0.2))
            await waiting(cancelled)
            cancelled.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, ringpost.Empty)
            await waiting(forever)
            await queue.put("late")
            assert await forever == "late"
            assert cancelled.cancelled()

    run(main())


@pytest.mark.parametrize("priorities", [False, True])
def test_a_timeout_ends_before_what_comes_later(run: Run, priorities: bool) -> None:
    async def main() -> None:
        async with opened(priorities=priorities) as queue, queue.producer() as producer:
            await producer.send("late", delay=0.6)
            with pytest.raises(ringpost.Empty):
                await queue.get(0.3)
            assert await queue.get(10) == "late"

    run(main())


def test_join(run: Run) -> None:
    async def main() -> None:
        async with opened() as queue:
            await queue.join()
            await queue.put_many([1, 2])
            task = asyncio.create_task(queue.join())
            for _ in range(2):
                await queue.get()
                await waiting(task)
                queue.task_done()
            start = time.perf_counter()
            await task
            assert time.perf_counter() - start < SOON

    run(main())


def test_shutdown_ends_who_waits(run: Run) -> None:
    async def main() -> None:
        async with opened(maxsize=1) as queue:
            getters = [asyncio.create_task(queue.get()) for _ in range(5)]
            await waiting(getters[0])
            queue.shutdown()
            for task in getters:
                with pytest.raises(ringpost.ShutDown):
                    await task
            assert [item async for item in queue] == []
            assert queue.is_shutdown

    run(main())


def test_deletion_ends_who_waits(run: Run) -> None:
    async def main() -> None:
        async with aio.connect("ring:test-aio") as broker:
            for by_hand in (False, True):
                queue = await broker.queue("jobs")
                tasks = [asyncio.create_task(queue.get()) for _ in range(3)]
                await waiting(tasks[0])
                if by_hand:
                    os.unlink(queue._sync._log.path)
                else:
                    await broker.delete("jobs")
                for task in tasks:
                    with pytest.raises(ringpost.QueueDeleted):
                        await task
            await broker.destroy()

    run(main())


def test_close_ends_who_waits(run: Run) -> None:
    async def main() -> None:
        async with opened() as queue:
            tasks = [asyncio.create_task(queue.get()) for _ in range(3)]
            await waiting(tasks[0])
            await queue.close()
            for task in tasks:
                with pytest.raises(ValueError, match="closed"):
                    await task
            with pytest.raises(ValueError, match="closed"):
                await queue.get()
            assert queue.closed

    run(main())


def test_close_in_another_thread_ends_who_waits(run: Run) -> None:
    async def main() -> None:
        async with opened() as queue:
            task = asyncio.create_task(queue.get())
            await waiting(task)
            thread = threading.Thread(target=lambda: asyncio.run(queue.close()))
            thread.start()
            with pytest.raises(ValueError, match="closed"):
                await task
            thread.join()

    run(main())


def test_a_loop_that_is_closed_while_tasks_wait_leaves_the_queue_usable(run: Run) -> None:
    queue: aio.Queue[int] = aio.Queue()

    async def leave() -> None:
        task = asyncio.create_task(queue.get())
        await waiting(task)

    async def go_on() -> int:
        task = asyncio.create_task(queue.get())
        await waiting(task)
        await queue.put(7)
        return await task

    for _ in range(3):
        run(leave())
    assert run(go_on()) == 7
    run(queue.close())


def test_descriptors_go_with_their_queue(run: Run) -> None:
    async def use(forget: bool) -> None:
        queue: aio.Queue[int] = aio.Queue()
        with pytest.raises(ringpost.Empty):
            await queue.get(0.001)
        await queue.put(1)
        assert await queue.get() == 1
        if not forget:
            await queue.close()

    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        await use(False)
        before = count()
        for forget in (True, False) * 10:
            await use(forget)
        gc.collect()
        await asyncio.sleep(0.01)
        assert count() <= before

    run(main())


def test_loops_in_several_threads_share_a_handle(run: Run) -> None:
    queue: aio.Queue[int] = aio.Queue()
    got: list[int] = []

    async def take() -> None:
        async for item in queue:
            got.append(item)

    async def give() -> None:
        for i in range(2000):
            await queue.put(i)
            if i % 50 == 0:
                await asyncio.sleep(0.001)
        queue.shutdown()

    threads = [threading.Thread(target=lambda: asyncio.run(take())) for _ in range(3)]
    for thread in threads:
        thread.start()
    run(give())
    for thread in threads:
        thread.join(20)
    assert sorted(got) == list(range(2000))
    run(queue.close())


def echo(there: aio.Queue[int], back: aio.Queue[int]) -> None:
    async def main() -> None:
        async for item in there:
            await back.put(item + 1)

    asyncio.run(main())


@every_method
def test_processes_converse(run: Run, method: str) -> None:
    there: aio.Queue[int] = aio.Queue()
    back: aio.Queue[int] = aio.Queue()

    async def main(crew: Crew) -> None:
        with pytest.raises(ringpost.Empty):
            await back.get(0.01)  # a watch that a forked child inherits, and must not touch
        crew.start(echo, there, back)
        for i in range(300):
            await there.put(i)
            assert await back.get() == i + 1
            if i % 100 == 0:
                await asyncio.sleep(0.02)  # the other one sleeps
        there.shutdown()

    with Crew(method) as crew:
        before = threading.active_count()
        asyncio.run(main(crew)) if method != "fork" else run(main(crew))
        assert threading.active_count() <= before
    run(there.close())
    run(back.close())


def test_threads_and_tasks_meet(run: Run, queue: ringpost.Queue[int]) -> None:
    async def main() -> None:
        mine = aio.Queue.of(queue)
        thread = threading.Thread(target=lambda: [queue.put(i) for i in range(1000)])
        thread.start()
        assert [await mine.get() for _ in range(1000)] == list(range(1000))
        thread.join()
        await mine.put(5)
        assert queue.get() == 5
        await mine.close()
        queue.put(6)
        assert queue.get() == 6

    asyncio.run(main())


def test_it_pickles(run: Run) -> None:
    async def main() -> None:
        async with opened() as queue:
            again = pickle.loads(pickle.dumps(queue))
            assert isinstance(again, aio.Queue)
            assert repr(again) == "<ringpost.aio.Queue jobs open>"
            await queue.put(1)
            assert await again.get() == 1
            await again.close()

    run(main())


def test_other_tasks_have_their_turn(run: Run) -> None:
    """A queue that always has something must not keep the loop from everything else."""

    async def main() -> None:
        async with opened() as queue:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            for i in range(2000):
                await queue.put(i)
                await queue.get()
            assert turns >= 30
            task.cancel()

    run(main())


def test_waiting_costs_next_to_nothing(run: Run) -> None:
    async def main() -> None:
        async with opened() as queue:
            tasks = [asyncio.create_task(queue.get()) for _ in range(100)]
            await waiting(tasks[0])
            start = time.process_time()
            await asyncio.sleep(1)
            assert time.process_time() - start < 0.2
            await queue.put_many(range(100))
            await asyncio.gather(*tasks)

    run(main())


def test_priorities(run: Run) -> None:
    async def main() -> None:
        async with opened(priorities=True) as queue:
            took = []
            while len(took) < 20 and min(took, default=SOON) >= SOON:  # the machine may be busy
                task = asyncio.create_task(queue.get())
                await waiting(task)
                start = time.perf_counter()
                async with queue.producer() as producer:
                    await producer.send("high", priority=9)
                assert await task == "high"
                took.append(time.perf_counter() - start)
            assert min(took) < SOON, "nobody woke it: it looked again by itself"
            await queue.put_many(["low"] * 3)
            async with queue.producer() as producer:
                await producer.send("high", priority=5)
            assert [await queue.get() for _ in range(4)] == ["high", "low", "low", "low"]
            await queue.put("low")
            assert [await queue.get_many(), queue.qsize()] == [["low"], 0]

    run(main())
