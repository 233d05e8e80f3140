"""Consumers, producers, topics, requests and event buses of ringpost.aio."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

import ringpost
from conformance.conftest import Run
from conformance.crew import Crew
from ringpost import aio

SOON = 0.09  # seconds: by a wake-up, not by the end of a slice


@asynccontextmanager
async def connected() -> AsyncIterator[aio.Broker]:
    async with aio.connect("ring:test-aio") as broker:
        try:
            yield broker
        finally:
            await broker.destroy()


async def waiting(task: asyncio.Task[object]) -> None:
    await asyncio.sleep(0.02)
    assert not task.done()


# ---- consumers ----------------------------------------------------------------------------------


def test_messages_are_acked(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs")
            await queue.put_many(range(100))
            async with queue.consumer() as consumer:
                for i in range(50):
                    async with await consumer.receive() as message:
                        assert message.body == i
                    assert message.settled
                await consumer.ack_many(await consumer.receive_many(10))
                message = await consumer.receive()
                await message.nack()
                assert (await consumer.receive()).sequence == 61  # what it has ahead comes first
            assert queue.qsize() == 40

    run(main())


async def fail_at(consumer: aio.Consumer) -> None:
    async with await consumer.receive():
        raise RuntimeError


async def publish_until_full(topic: aio.Topic, timeout: float | None) -> None:
    while True:
        await topic.publish(b"x" * 1000, timeout=timeout)


def test_an_exception_gives_back(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs")
            await queue.put("job")
            async with queue.consumer(prefetch=1) as consumer:
                with pytest.raises(RuntimeError):
                    await fail_at(consumer)
                message = await consumer.receive()
                assert message.deliveries == 2
                await message.nack(delay=0.05)
                start = time.perf_counter()
                message = await consumer.receive()
                assert 0.04 < time.perf_counter() - start < 0.04 + SOON
                await message.extend(10)
                await message.reject()
                with pytest.raises(ringpost.LeaseLost):
                    await message.ack()
                with pytest.raises(ringpost.Empty):
                    await consumer.receive(timeout=0)

    run(main())


@pytest.mark.parametrize("timeout", [0.05, 0.3])
def test_waiting_ends_with_its_timeout(run: Run, timeout: float) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue, topic = await broker.queue("jobs"), await broker.topic("news")
            ranked = await broker.queue("ranked", priorities=True)
            async with (
                queue.consumer() as consumer,
                queue.consumer(auto_ack=True, group="others") as other,
                ranked.consumer() as of_ranked,
                topic.subscribe() as subscriber,
                topic.subscribe("a.*", name="named") as named,
            ):
                waiters = [consumer, other, of_ranked, subscriber, named]
                calls = [queue.get, ranked.get, *(each.receive for each in waiters)]
                start = time.perf_counter()
                for call in calls:
                    with pytest.raises(ringpost.Empty):
                        await call(timeout=timeout)
                assert time.perf_counter() - start >= timeout * len(calls)
                many = [queue.get_many, ranked.get_many, *(each.receive_many for each in waiters)]
                together = [call(timeout=timeout) for call in many]
                for result in await asyncio.gather(*together, return_exceptions=True):
                    assert isinstance(result, ringpost.Empty)
            with pytest.raises(TimeoutError):
                await broker.request(queue, "anybody?", timeout=timeout)
            with pytest.raises(TimeoutError):
                await topic.wait_for_subscribers(9, timeout=timeout)

    run(main())


def test_what_is_given_back_wakes_who_waits(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs")
            await queue.put("job")
            async with queue.consumer() as one, queue.consumer() as other:
                message = await one.receive()
                task = asyncio.create_task(other.receive())
                await waiting(task)
                start = time.perf_counter()
                await message.nack()
                await (await task).ack()
                assert time.perf_counter() - start < SOON

    run(main())


def test_iterating_ends_with_shutdown_or_close(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs")
            await queue.put_many("abc")
            consumer = queue.consumer()

            async def bodies() -> list[str]:
                found = []
                async for message in consumer:
                    async with message:
                        found.append(message.body)
                return found

            task = asyncio.create_task(bodies())
            await waiting(task)
            await consumer.close()
            assert await task == ["a", "b", "c"]
            consumer = queue.consumer()
            task = asyncio.create_task(bodies())
            await waiting(task)
            queue.shutdown()
            assert await task == []

    run(main())


def take_and_hang(ready: ringpost.Queue[str]) -> None:
    consumer = ringpost.connect("ring:test-aio").queue("jobs").consumer()
    consumer.receive()
    ready.put("taken")
    signal.pause()


def test_what_the_dead_held_comes_again(run: Run) -> None:
    async def main(crew: Crew, ready: aio.Queue[str]) -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs")
            await queue.put("job")
            process = crew.start(take_and_hang, ready._sync)
            assert await ready.get() == "taken"
            async with queue.consumer() as consumer:
                task = asyncio.create_task(consumer.receive())
                await waiting(task)
                assert process.pid is not None
                start = time.perf_counter()
                os.kill(process.pid, signal.SIGKILL)
                message = await task
                assert time.perf_counter() - start < 1
                assert message.deliveries == 2
                await message.ack()
            process.join()
            crew._started.remove(process)

    ready: aio.Queue[str] = aio.Queue()
    with Crew() as crew:
        run(main(crew, ready))
    run(ready.close())


def test_dead_letters(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs")
            await queue.put("bad")
            async with queue.consumer(max_deliveries=2) as consumer:
                for _ in range(2):
                    await (await consumer.receive()).nack()
                with pytest.raises(ringpost.Empty):
                    await consumer.receive(0.05)
            assert await (await broker.queue("jobs.dead")).get() == "bad"

    run(main())


# ---- producers ----------------------------------------------------------------------------------


def test_sending(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs", maxsize=4)
            async with queue.producer(dedup_window=60) as producer, queue.consumer(prefetch=1) as consumer:
                assert await producer.send("a", headers={"h": 1}, message_id="1")
                assert not await producer.send("a", message_id="1")
                message = await consumer.receive()
                assert (message.headers, message.id) == ({"h": 1}, "1")
                await message.ack()
                async with producer.batch() as batch:
                    for i in range(3):
                        batch.send(i)
                assert await producer.send_many([3]) == 1
                with pytest.raises(ringpost.Full):
                    await producer.send("x", timeout=0.02)
                task = asyncio.create_task(producer.send("later"))
                await waiting(task)
                for _ in range(4):
                    await (await consumer.receive()).ack()
                assert await task
                assert (await consumer.receive()).body == "later"
            with pytest.raises(ValueError, match="closed"):
                await producer.send(1)

    run(main())


def test_overflow(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs", maxsize=3)
            async with queue.producer(overflow="drop-oldest") as producer:
                for i in range(10):
                    await producer.send(i)
            async with queue.producer(overflow="raise") as producer:
                with pytest.raises(ringpost.Full):
                    await producer.send(10)
            assert await queue.get_many() == [7, 8, 9]
            with pytest.raises(ValueError, match="overflow"):
                queue.producer(overflow="explode")  # type: ignore[arg-type]

    run(main())


@pytest.mark.parametrize("priorities", [False, True])
def test_what_is_scheduled_comes_when_it_is_due(run: Run, priorities: bool) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("jobs", priorities=priorities)
            task = asyncio.create_task(queue.get())
            await waiting(task)
            async with queue.producer() as producer:
                start = time.perf_counter()
                await producer.send("later", delay=0.25)
                assert await task == "later"
                assert 0.2 < time.perf_counter() - start < 0.25 + SOON

    run(main())


# ---- topics -------------------------------------------------------------------------------------


def test_every_subscriber_gets_it(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            topic = await broker.topic("prices")
            assert not topic.subscribers()
            async with topic.subscribe("eu.*") as eu, topic.subscribe(on_lag="drop-oldest") as everything:
                await topic.wait_for_subscribers(2, timeout=5)
                tasks = [asyncio.create_task(each.receive()) for each in (eu, everything)]
                await waiting(tasks[0])
                start = time.perf_counter()
                await topic.publish(1, "eu.dax")
                assert [(await task).body for task in tasks] == [1, 1]
                assert time.perf_counter() - start < SOON
                await topic.publish_many([("us.dow", 2), ("eu.cac", 3)])
                assert (await eu.receive()).body == 3
                assert [message.body for message in await everything.receive_many()] == [2, 3]
                assert (eu.lost, eu.lag, eu.pattern) == (0, 0, "eu.*")
            with pytest.raises(TimeoutError):
                await topic.wait_for_subscribers(1, timeout=0.01)

    run(main())


def test_named_and_retained(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            topic = await broker.topic("prices")
            await topic.publish("last", "eu.dax", retain=True)
            subscriber = await topic.subscribe(name="audit", retained=True)
            message = await subscriber.receive()
            assert message.retained
            assert message.settled
            await topic.publish("next", "eu.dax")
            async with await subscriber.receive() as message:
                assert message.body == "next"
            await subscriber.unsubscribe()
            assert not topic.subscribers()
            assert not await topic.unsubscribe("audit")

    run(main())


def test_a_slow_subscriber_holds_publishers_back_or_makes_them_fail(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            topic = await broker.topic("prices", capacity=128 << 10)
            async with topic.subscribe() as slow:
                with pytest.raises(ringpost.Full):
                    await publish_until_full(topic, 0)
                task = asyncio.create_task(topic.publish(b"x" * 1000))
                await waiting(task)
                await slow.receive_many(1000)
                await task
            async with topic.subscribe(on_lag="error"):
                with pytest.raises(ringpost.Full, match="on_lag"):
                    await publish_until_full(topic, None)

    run(main())


def test_many_subscribers_in_one_loop(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            topic = await broker.topic("prices")
            subscribers = [await topic.subscribe() for _ in range(60)]
            tasks = [asyncio.create_task(each.receive()) for each in subscribers]
            await waiting(tasks[0])
            start = time.perf_counter()
            await topic.publish("x")
            assert {(await task).body for task in tasks} == {"x"}
            assert time.perf_counter() - start < SOON
            for each in subscribers:
                await each.close()

    run(main())


# ---- requests -----------------------------------------------------------------------------------


async def double(queue: aio.Queue[int]) -> None:
    async with queue.consumer() as consumer:
        async for message in consumer:
            async with message:
                if message.body >= 0:
                    await message.reply(message.body * 2)


def test_requests(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("double")
            server = asyncio.create_task(double(queue))
            assert await broker.request("double", 1) == 2
            answers = [broker.request(queue, i, timeout=10) for i in range(100)]
            assert await asyncio.gather(*answers) == [2 * i for i in range(100)]
            with pytest.raises(TimeoutError, match="no answer"):
                await broker.request(queue, -1, timeout=0.05)
            task = asyncio.create_task(broker.request(queue, -1))
            await waiting(task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await broker.request("double", 3) == 6
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    run(main())


def test_threads_answer_tasks_and_tasks_answer_threads() -> None:
    async def main() -> None:
        async with connected() as broker:
            queue = await broker.queue("double")
            server = asyncio.create_task(double(queue))
            with ringpost.connect("ring:test-aio") as other:
                answer = await asyncio.to_thread(other.request, "double", 21, 10)
                assert answer == 42
                server.cancel()
                await asyncio.gather(server, return_exceptions=True)

                def serve() -> None:
                    with other.queue("double").consumer() as consumer, consumer.receive(10) as message:
                        message.reply("from a thread")

                thread = threading.Thread(target=serve)
                thread.start()
                assert await broker.request(queue, 1, timeout=10) == "from a thread"
                thread.join()

    asyncio.run(main())


# ---- events -------------------------------------------------------------------------------------


def test_handlers_run_side_by_side_within_a_limit(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker, broker.events("shop") as bus:
            running, most, done = 0, 0, []

            @bus.on("order.*")
            async def handle(order: int) -> None:
                nonlocal running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.01)
                running -= 1
                done.append(order)
                if len(done) == 20:
                    bus.stop()

            for i in range(20):
                assert await bus.emit("order.created", i)
            await bus.run(concurrency=4)
            assert sorted(done) == list(range(20))
            assert most == 4
            with pytest.raises(ValueError, match="concurrency"):
                await bus.run(concurrency=0)

    run(main())


@pytest.mark.parametrize("of_threads", [False, True])
def test_the_limit_holds_for_many_handlers_of_one_event(run: Run, of_threads: bool) -> None:
    async def main() -> None:
        async with connected() as broker, broker.events("shop") as bus:
            running, most, done = 0, 0, []

            async def handle(handler: int, order: int) -> None:
                nonlocal running, most
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.01)
                running -= 1
                done.append((order, handler))
                if len(done) == 18:
                    bus.stop()

            for handler in range(6):
                bus.on("order", partial(handle, handler))
            for order in range(3):
                await bus.emit("order", order)
            await (bus._sync.run_async(concurrency=2) if of_threads else bus.run(concurrency=2))
            assert sorted(done) == [(order, handler) for order in range(3) for handler in range(6)]
            assert most == 2

    run(main())


def test_cancelling_the_loop_cancels_handlers_that_had_no_turn_yet(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker, broker.events("shop") as bus:
            began = []

            async def handle(handler: int) -> None:
                began.append(handler)
                await asyncio.sleep(100)

            for handler in range(3):
                bus.on("x", partial(handle, handler))
            await bus.emit("x")
            task = asyncio.create_task(bus.run(concurrency=1))
            await waiting(task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert began == [0]

    run(main())


def test_listeners_come_and_go_while_it_runs(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker, broker.events("shop") as bus:
            got: list[int] = []
            loop = asyncio.create_task(bus.run())
            await waiting(loop)
            for _ in range(3):
                bus.on("x", got.append)
                await asyncio.sleep(0.02)
                await bus.emit("x", 1)
                await asyncio.sleep(0.02)
                bus.off("x")
                await waiting(loop)
            assert got == [1, 1, 1]
            assert not await bus.emit("x", 2)
            start = time.perf_counter()
            threading.Thread(target=bus.stop).start()
            await loop
            assert time.perf_counter() - start < SOON
            await bus.run(timeout=0.05)

    run(main())


def test_cancelling_the_loop_cancels_handlers(run: Run) -> None:
    async def main() -> None:
        async with connected() as broker, broker.events("shop") as bus:
            states = []

            @bus.on("x")
            async def handle() -> None:
                states.append("began")
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    states.append("cancelled")
                    raise

            await bus.emit("x")
            task = asyncio.create_task(bus.run())
            await waiting(task)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert states == ["began", "cancelled"]

    run(main())


def test_the_bus_of_threads_runs_in_a_loop_without_one(run: Run) -> None:
    async def main() -> None:
        with ringpost.connect("ring:test-aio") as broker:
            bus = broker.events("shop")
            got = []

            @bus.on("x")
            async def handle(value: int) -> None:
                got.append(value)
                bus.stop()

            task = asyncio.create_task(bus.run_async())
            await waiting(task)
            start = time.perf_counter()
            bus.emit("x", 1)
            await task
            assert time.perf_counter() - start < SOON
            assert got == [1]
            broker.destroy()

    run(main())
