"""Loans and records in event loops."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

import ringpost
from conformance.conftest import Run
from ringpost import aio

TICK = np.dtype([("id", "<i8"), ("price", "<f8")])


def ticks(count: int) -> Any:
    array = np.zeros(count, TICK)
    array["id"] = np.arange(count)
    return array


def test_a_loan_is_sent_at_the_end_of_its_block(run: Run) -> None:
    async def main() -> None:
        async with aio.Queue() as queue, queue.producer() as producer, queue.consumer() as consumer:
            async with producer.loan((3, 5), "i4", headers={"a": 1}) as array:
                array[...] = 7
            async with await consumer.receive(5) as message:
                assert message.array.tolist() == [[7] * 5] * 3
                assert message.headers == {"a": 1}
            loan = await producer.loan(10)
            assert loan.open
            loan.array[:] = 1.5
            await loan.commit()
            assert not loan.open
            loan.abort()
            assert (await queue.get(5)).sum() == 15

    run(main())


def test_a_loan_that_fails_sends_nothing(run: Run) -> None:
    async def main() -> None:
        async with aio.Queue() as queue, queue.producer() as producer:

            async def fail() -> None:
                async with producer.loan(10):
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fail()

            async def hang() -> None:
                async with producer.loan(10):
                    await asyncio.sleep(60)

            task = asyncio.create_task(hang())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert queue.empty()
            with pytest.raises(ValueError, match="await this loan"):
                _ = producer.loan(10).array

    run(main())


def test_a_loan_waits_for_room(run: Run) -> None:
    async def main() -> None:
        async with aio.Queue(capacity=1 << 20) as queue, queue.producer() as producer:
            size = 200_000
            for _ in range(2):
                async with producer.loan(size, "u1"):
                    pass
            with pytest.raises(ringpost.Full):
                await producer.loan(size, "u1", timeout=0.01)
            waiting = asyncio.ensure_future(_lent(producer, size))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            for _ in range(3):
                assert (await queue.get(5)).nbytes == size
            await waiting

    run(main())


async def _lent(producer: aio.Producer, size: int) -> None:
    async with producer.loan(size, "u1") as array:
        array[:] = 1


def test_topics_lend_too(run: Run, broker: ringpost.Broker) -> None:
    async def main() -> None:
        async with aio.connect(broker.url) as own:
            topic = await own.topic("frames")
            subscriber = await topic.subscribe("a.*")
            async with topic.loan(4, "u1", subject="a.b") as array:
                array[:] = [1, 2, 3, 4]
            message = await subscriber.receive(5)
            assert message.array.tolist() == [1, 2, 3, 4]
            message.release()

    run(main())


def test_records(run: Run) -> None:
    """More than fit at once."""

    async def main() -> None:
        async with aio.Queue(capacity=256 << 10) as queue:
            all_of_them = ticks(20_000)
            putting = asyncio.create_task(queue.put_many(all_of_them))
            found = []
            while sum(map(len, found)) < len(all_of_them):
                found.append(await queue.get_many(5000, timeout=5, as_array=True))
            assert await putting == len(all_of_them)
            assert np.array_equal(np.concatenate(found), all_of_them)
            with pytest.raises(ringpost.Empty):
                await queue.get_many(timeout=0, as_array=True)

    run(main())


def test_records_that_find_no_room(run: Run) -> None:
    async def main() -> None:
        async with aio.Queue(capacity=256 << 10) as queue:
            with pytest.raises(ringpost.Full) as caught:
                await queue.put_many(ticks(20_000), timeout=0.05)
            put = caught.value.put  # type: ignore[attr-defined]
            assert 0 < put < 20_000
            assert queue.qsize() == put
            assert (await queue.get())["id"] == 0

    run(main())
