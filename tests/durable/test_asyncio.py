"""asyncio on disk: tasks wait for commits together, and the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.patience import BOUND

import ringpost
from durable.conftest import Reboot
from ringpost import aio

Run = Callable[[Coroutine[Any, Any, Any]], Any]
SMALL = 256 << 10


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    run_in = asyncio.run if request.param == "asyncio" else pytest.importorskip("uvloop").run
    return lambda coroutine: run_in(asyncio.wait_for(coroutine, BOUND * 2))


@contextmanager
def nobody_commits(broker: ringpost.Broker) -> Iterator[None]:
    """Somebody else holds the door."""
    holds, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with broker._engine._environment().alone():  # type: ignore[attr-defined]
            holds.set()
            may_go.wait(BOUND)

    holder = threading.Thread(target=hold)
    holder.start()
    holds.wait(BOUND)
    try:
        yield
    finally:
        may_go.set()
        holder.join()


@asynccontextmanager
async def ticking() -> AsyncIterator[list[int]]:
    """Counts how often the loop came round."""
    count = [0]

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.005)
            count[0] += 1

    task = asyncio.create_task(tick())
    yield count
    task.cancel()


def test_the_loop_goes_on_while_a_commit_waits(run: Run, durable: ringpost.Broker, url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as broker, broker.queue("jobs") as queue, ticking() as ticks:
            with nobody_commits(durable):
                task = asyncio.create_task(queue.put("x"))
                while ticks[0] < 20:
                    await asyncio.sleep(0)
                assert not task.done()
                assert await queue.get(timeout=BOUND) == "x"  # it is in the queue all the same
                assert not task.done()
            await task

    run(main())


def test_tasks_share_commits(run: Run, durable: ringpost.Broker, url: str, reboot: Reboot) -> None:
    async def main() -> int:
        async with aio.connect(url) as broker, broker.queue("jobs") as queue:
            environment = broker._sync._engine._environment()  # type: ignore[attr-defined]
            before = environment._commits
            await asyncio.gather(*(queue.put(number) for number in range(500)))
            return int(environment._commits - before)

    assert run(main()) < 50
    assert sorted(reboot().queue("jobs").get_many(1000)) == list(range(500))


def test_a_cancelled_put_that_waits_for_the_disk_is_in(run: Run, durable: ringpost.Broker, url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as broker, broker.queue("jobs") as queue:
            with nobody_commits(durable):
                task = asyncio.create_task(queue.put("x"))
                while queue.empty():
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await queue.put("y")
            assert [await queue.get(), await queue.get()] == ["x", "y"]

    run(main())


def test_a_ring_full_of_what_is_not_stored(run: Run, durable: ringpost.Broker, url: str) -> None:
    """Ten times what the ring holds, at every level, in all ways of putting."""

    async def main() -> None:
        async with aio.connect(url) as broker:
            for level in ("memory", "interval", "commit"):
                async with broker.queue(f"jobs-{level}", capacity=SMALL, durability=level) as queue:
                    if level != "commit":
                        for number in range(1500):
                            await queue.put(b"%d " % number + bytes(1000))
                    await queue.put_many(bytes(1000) for _ in range(1500))
                    async with queue.producer() as producer:
                        await producer.send_many([bytes(1000)] * 500)
                        for _ in range(5):
                            await producer.send(bytes(50_000))
                    expected = 2005 + (1500 if level != "commit" else 0)
                    assert queue.qsize() == expected
                    got = 0
                    while got < expected:
                        got += len(await queue.get_many(timeout=BOUND))

    run(main())


def test_everybody_hears_of_a_disk_that_is_full(run: Run, place: Path) -> None:
    async def main() -> None:
        async with aio.connect(f"ring://{place}?max_bytes=1m") as broker, broker.queue("jobs") as queue:
            outcomes: list[Any] = []
            for _ in range(20):
                outcomes += await asyncio.gather(
                    *(queue.put(bytes(10_000)) for _ in range(20)), return_exceptions=True
                )
            failed = [each for each in outcomes if each is not None]
            assert len(failed) > 200
            assert all(isinstance(each, ringpost.StorageFailed) for each in failed)
            assert {each.errno for each in failed} == {errno.EDQUOT}
            assert queue.qsize() == 400  # in the queue all the same
            await queue.get_many(400, timeout=BOUND)
            while not queue.empty():
                await queue.get_many(400, timeout=BOUND)
            await queue.put("there is room again")
            await broker.destroy()

    run(main())


def test_everything_that_is_sent_survives(
    run: Run, durable: ringpost.Broker, url: str, reboot: Reboot
) -> None:
    async def main() -> None:
        async with aio.connect(url) as broker:
            queue, topic = await broker.queue("jobs"), await broker.topic("news")
            await topic.subscribe(name="reader")
            await queue.put("put")
            queue.put_nowait("put_nowait")
            await queue.put("in memory", durability="memory")
            await queue.flush()
            await queue.put_many(np.array([(1, 2.0), (3, 4.0)], [("a", "<i4"), ("b", "<f8")]))
            async with queue.producer() as producer:
                await producer.send("sent", headers={"a": 1})
                async with producer.batch() as batch:
                    batch.send("in a batch")
                async with producer.loan((100, 100)) as array:
                    array[...] = 3
            async with queue.producer(dedup_window=60) as producer:
                assert await producer.send("once", message_id="1")
                assert not await producer.send("once", message_id="1")
            await topic.publish("published", "a", retain=True)
            await topic.publish_many([("b", "published too")])
            async with topic.loan((3,), subject="c") as array:
                array[...] = 7

    run(main())
    broker = reboot()
    items = broker.queue("jobs").get_many()
    assert items[:3] == ["put", "put_nowait", "in memory"]
    assert [tuple(each) for each in items[3:5]] == [(1, 2.0), (3, 4.0)]
    assert items[5:7] == ["sent", "in a batch"]
    assert np.array_equal(broker.queue("jobs").get(), np.full((100, 100), 3.0))
    assert broker.queue("jobs").get_many() == ["once"]
    reader = broker.topic("news").subscribe(name="reader")
    assert [reader.receive(BOUND).subject for _ in range(3)] == ["a", "b", "c"]
    with broker.topic("news").subscribe("a", retained=True) as late:
        assert late.receive(BOUND).body == "published"


def test_transactions(run: Run, durable: ringpost.Broker, url: str, reboot: Reboot) -> None:
    async def main() -> None:
        async with aio.connect(url) as broker, broker.queue("orders") as orders:
            await orders.put_many(range(3))
            async with orders.consumer() as consumer:
                first = await consumer.receive(BOUND)
                async with broker.transaction() as tx:
                    tx.ack(first)
                    tx.send("invoices", "invoice 0")
                    tx.send(await broker.queue("parcels"), "parcel 0")

                async def fail() -> None:
                    async with broker.transaction() as tx:
                        tx.ack(await consumer.receive(BOUND))
                        tx.send("invoices", "never")
                        raise ZeroDivisionError

                with pytest.raises(ZeroDivisionError):
                    await fail()
            assert broker.recovered() == ()

    run(main())
    broker = reboot()
    assert broker.queue("orders").get_many() == [1, 2]
    assert broker.queue("invoices").get_many() == ["invoice 0"]
    assert broker.queue("parcels").get_many() == ["parcel 0"]


def test_backup_and_flush(run: Run, durable: ringpost.Broker, url: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.connect(url) as broker, broker.queue("jobs", durability="memory") as queue:
            await queue.put("x")
            await broker.flush()
            await broker.backup(tmp_path / "copy")
        async with aio.connect(f"ring://{tmp_path / 'copy'}") as copy, copy.queue("jobs") as queue:
            assert await queue.get(timeout=BOUND) == "x"
            await copy.destroy()

    run(main())


def test_a_storm_of_cancellations(run: Run, durable: ringpost.Broker, url: str) -> None:
    """Each item whose put returned is there once; one whose put was cancelled once at most."""

    async def main() -> None:
        async with aio.connect(url) as broker, broker.queue("jobs", capacity=SMALL) as queue:
            done: list[int] = []

            async def put(number: int) -> None:
                await queue.put(number)
                done.append(number)

            for start in range(0, 600, 60):
                tasks = [asyncio.create_task(put(number)) for number in range(start, start + 60)]
                await asyncio.sleep(0)
                for task in tasks[::3]:
                    task.cancel()
                await asyncio.sleep(0.001)
                for task in tasks[1::3]:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            found = await queue.get_many(1000, timeout=BOUND)
            assert len(found) == len(set(found))
            assert set(done) <= set(found)
            assert len(done) >= 200

    run(main())


class Crowded(ThreadPoolExecutor):
    """Has no thread for the calls with these numbers, from 1."""

    def __init__(self, *without: int) -> None:
        super().__init__()
        self.without = without
        self.calls = 0

    def submit(self, *args: Any, **keywords: Any) -> Any:
        self.calls += 1
        if self.calls in self.without:
            raise RuntimeError("can't start new thread")
        return super().submit(*args, **keywords)


def test_who_gets_no_thread_is_told_and_others_go_on(run: Run, durable: ringpost.Broker) -> None:
    async def main() -> None:
        queue = aio.Queue.of(durable.queue("jobs"))
        asyncio.get_running_loop().set_default_executor(Crowded(1))
        with pytest.raises(RuntimeError, match="thread"):
            await queue.put("first")
        await queue.put("second")
        assert await queue.get_many() == ["first", "second"]

    run(main())


def test_who_waits_for_the_next_flush_hears_that_there_is_no_thread(
    run: Run, durable: ringpost.Broker
) -> None:
    async def main() -> None:
        queue = aio.Queue.of(durable.queue("jobs"))
        executor = Crowded(2)
        asyncio.get_running_loop().set_default_executor(executor)
        outcomes = await asyncio.gather(*(queue.put(number) for number in range(3)), return_exceptions=True)
        assert outcomes[0] is None
        assert [type(each) for each in outcomes[1:]] == [RuntimeError, RuntimeError]
        assert executor.calls == 2
        await queue.put(3)
        assert await queue.get_many() == [0, 1, 2, 3]

    run(main())
