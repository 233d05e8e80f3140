"""One handle in the hands of many threads, which do everything with it at once: nothing is lost, nothing
comes twice, nothing but what is documented is raised. Without a GIL, this tests what takes its place."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy
import pytest

import ringpost
import ringpost.aio

THREADS = 4
EACH = 300  # messages of each producing thread
BOUND = 60.0  # seconds, for what takes one
CAPACITY = 1 << 20
LARGE = 20_000  # bytes: such a payload lies in the pool


def at_once(*workers: Callable[[], object], looking: Callable[[], object] | None = None) -> list[Any]:
    """Run all of these in threads that start together, and `looking` over and over until they are done.
    Results of the workers; raises what any of them raised."""
    start, over = threading.Barrier(len(workers) + bool(looking)), threading.Event()

    def work(worker: Callable[[], object]) -> object:
        start.wait(BOUND)
        return worker()

    def look(what: Callable[[], object]) -> None:
        start.wait(BOUND)
        while not over.is_set():
            what()

    with ThreadPoolExecutor(len(workers) + 1) as pool:
        looker = pool.submit(look, looking) if looking else None
        working = [pool.submit(work, worker) for worker in workers]
        try:
            results = [future.result(BOUND) for future in working]
        finally:
            over.set()
        if looker:
            looker.result(BOUND)
        return results


def numbered(thread: int, n: int) -> Any:
    """Messages of several kinds and sizes, which say who put them."""
    return {"from": [thread, n], "pad": bytes(LARGE) if n % 20 == 0 else b"x" * (n % 50)}


def names(items: list[Any]) -> Counter[tuple[int, int]]:
    return Counter(tuple(item["from"]) for item in items)


ALL = Counter((thread, n) for thread in range(THREADS) for n in range(EACH))


class Share:
    """How many are still to be taken, by all threads together."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._lock = threading.Lock()

    def took(self, count: int) -> None:
        with self._lock:
            self._left -= count

    @property
    def over(self) -> bool:
        return self._left <= 0


def putting(put: Callable[[Any], object], put_many: Callable[[list[Any]], object], thread: int) -> None:
    n = 0
    while n < EACH:
        if n % 7 == 0:
            put_many([numbered(thread, n + i) for i in range(min(5, EACH - n))])
            n += 5
        else:
            put(numbered(thread, n))
            n += 1


def taking(take: Callable[[], list[Any]], left: Share) -> list[Any]:
    taken: list[Any] = []
    while not left.over:
        try:
            some = take()
        except ringpost.Empty:
            continue
        left.took(len(some))
        taken += some
    return taken


def takers(*ways: Callable[[], list[Any]]) -> list[Callable[[], list[Any]]]:
    left = Share(THREADS * EACH)
    return [partial(taking, ways[i % len(ways)], left) for i in range(THREADS)]


def all_taken(results: list[Any]) -> Counter[tuple[int, int]]:
    return names([item for some in results if some for item in some])


# ---- queues -------------------------------------------------------------------------------------


@pytest.fixture(params=["named", "anonymous"])
def queue(request: pytest.FixtureRequest, broker: ringpost.Broker) -> Iterator[ringpost.Queue[Any]]:
    if request.param == "named":
        with broker.queue("q", capacity=CAPACITY) as queue:
            yield queue
    else:
        with ringpost.Queue(capacity=CAPACITY) as queue:
            yield queue


def test_a_queue(queue: ringpost.Queue[Any]) -> None:
    def look() -> None:
        assert queue.qsize() >= 0
        assert queue.stats().ready >= 0
        assert queue.fileno() >= 0
        assert "open" in repr(queue)
        assert {queue.empty(), queue.full()} <= {True, False}

    producers = [partial(putting, queue.put, queue.put_many, thread) for thread in range(THREADS)]
    consumers = takers(lambda: [queue.get(timeout=0.05)], lambda: queue.get_many(16, timeout=0.05))
    assert all_taken(at_once(*producers, *consumers, looking=look)) == ALL
    assert queue.empty()


def test_tasks_of_a_queue(queue: ringpost.Queue[Any]) -> None:
    def work() -> None:
        for _ in range(EACH):
            queue.put(b"x")
            queue.get(timeout=BOUND)
            queue.task_done()

    at_once(*[work] * THREADS, looking=lambda: time.sleep(0))
    queue.join(timeout=0)
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


def is_closed(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError as error:
        return "closed" in str(error)
    return False


def test_a_queue_that_is_closed_meanwhile(broker: ringpost.Broker) -> None:
    """What put() returned from is there; what was taken is taken; whoever comes later is told."""
    for _ in range(20):
        shared, other = (broker.queue("q", capacity=CAPACITY) for _ in range(2))
        put: list[int] = []
        taken: list[int] = []

        def produce(shared: Any = shared, put: Any = put) -> None:
            while not is_closed(lambda: shared.put(1, timeout=BOUND)):
                put.append(1)

        def consume(shared: Any = shared, taken: Any = taken) -> None:
            while not is_closed(lambda: taken.append(shared.get())):
                pass

        def close(shared: Any = shared) -> None:
            time.sleep(0.005)
            shared.close()

        at_once(produce, produce, consume, consume, close, close)
        left = other.qsize()
        assert len(put) == len(taken) + left
        if left:
            assert other.get_many(left) == [1] * left
        other.close()


# ---- roles --------------------------------------------------------------------------------------


def test_a_producer_and_a_consumer(queue: ringpost.Queue[Any]) -> None:
    """Every third message is given back once, by whichever thread has it."""
    producer = queue.producer()
    consumer = queue.consumer(prefetch=8)

    def send_many(items: list[Any]) -> None:
        for item in items:
            producer.send(item, ttl=600)

    def receive() -> list[Any]:
        message = consumer.receive(timeout=0.05)
        body = message.body
        if sum(body["from"]) % 3 == 0 and message.deliveries == 1:
            message.nack()
            return []
        message.extend(60)
        message.ack()
        return [body]

    def receive_many() -> list[Any]:
        messages = consumer.receive_many(8, timeout=0.05)
        bodies = [message.body for message in messages]
        consumer.ack_many(messages)
        return bodies

    producers = [partial(putting, producer.send, send_many, thread) for thread in range(THREADS)]
    taken = at_once(*producers, *takers(receive, receive_many), looking=lambda: queue.stats())
    assert all_taken(taken) == ALL
    consumer.close()
    assert queue.stats().consumers.in_flight == 0
    assert queue.empty()


def test_a_consumer_that_is_closed_meanwhile(broker: ringpost.Broker) -> None:
    """Whatever was not acked comes again, to another one, at once."""
    queue = broker.queue("q", capacity=CAPACITY)
    for _ in range(20):
        queue.put_many(range(200))
        consumer = queue.consumer(prefetch=8)
        acked: list[int] = []

        def work(consumer: Any = consumer, acked: Any = acked) -> None:
            while True:
                try:
                    message = consumer.receive(timeout=0)
                    message.ack()
                except (ringpost.Empty, ringpost.LeaseLost):
                    continue
                except ValueError:
                    return
                acked.append(message.body)

        def close(consumer: Any = consumer) -> None:
            time.sleep(0.002)
            consumer.close()

        at_once(work, work, work, close, close)
        assert queue.stats().consumers.in_flight == 0
        with queue.consumer() as other:
            while len(acked) < 200:
                messages = other.receive_many(timeout=BOUND)
                other.ack_many(messages)
                acked += [message.body for message in messages]
        assert sorted(acked) == list(range(200))
        assert queue.empty()


def test_one_message(broker: ringpost.Broker) -> None:
    """All threads ask it for all it has, and settle it: one of them does."""
    queue = broker.queue("q", capacity=CAPACITY, pickle=True)
    array = numpy.arange(LARGE)
    with queue.consumer() as consumer:
        for item in [array, {"a": 1}, b"x" * LARGE, b"x"] * 15:
            queue.producer().send(item, headers={"h": 1})
            message = consumer.receive(timeout=BOUND)
            bodies: list[Any] = []
            settled: list[str] = []

            def work(how: str, message: Any = message, bodies: Any = bodies, settled: Any = settled) -> None:
                bodies.append(message.body)
                assert len(message.payload) == message.size
                assert message.headers == {"h": 1}
                assert len(memoryview(message.view())) == message.size
                try:
                    getattr(message, how)()
                except ringpost.LeaseLost:
                    return
                settled.append(how)

            def drop(message: Any = message) -> None:
                for _ in range(20):
                    message.release()
                    try:
                        message.view()
                    except ValueError:
                        pass

            _ = message.payload  # so that it may be released
            at_once(*[partial(work, "ack")] * THREADS, drop, drop)
            assert all(body is bodies[0] for body in bodies)
            assert settled
            assert queue.stats().consumers.in_flight == 0


def test_one_loan(broker: ringpost.Broker) -> None:
    """Committed by one thread, or aborted."""
    queue = broker.queue("q", capacity=CAPACITY)
    committed = 0
    for _ in range(40):
        loan = queue.producer().loan(LARGE, "u1")

        def commit(loan: Any = loan) -> int:
            try:
                loan.commit()
            except ValueError:
                return 0
            return 1

        done = sum(at_once(commit, commit, commit, loan.abort)[:3])
        assert done <= 1
        committed += done
        while queue.qsize():
            queue.get_nowait()
            committed -= 1
    assert committed == 0


# ---- topics and events --------------------------------------------------------------------------


def test_a_topic_and_its_subscribers(broker: ringpost.Broker) -> None:
    """Each of them gets everything, whichever of its threads takes it."""
    topic = broker.topic("t", capacity=CAPACITY)
    leased = topic.subscribe("#", prefetch=8)
    taken = topic.subscribe("a.*", prefetch=8, auto_ack=True)

    def publish(item: Any) -> None:
        topic.publish(item, subject="a.b", timeout=BOUND)

    def receive() -> list[Any]:
        with leased.receive(timeout=0.05) as message:
            return [message.body]

    def look() -> None:
        assert leased.lag >= 0
        assert taken.lost == 0
        topic.stats()

    publishers = [
        partial(putting, publish, lambda many: [*map(publish, many)], thread) for thread in range(THREADS)
    ]
    first = takers(receive)
    second = takers(lambda: [message.body for message in taken.receive_many(8, timeout=0.05)])
    results = at_once(*publishers, *first, *second, looking=look)
    assert all_taken(results[THREADS : 2 * THREADS]) == ALL
    assert all_taken(results[2 * THREADS :]) == ALL


def test_a_subscriber_that_is_overrun_knows_how_many_it_lost(broker: ringpost.Broker) -> None:
    topic = broker.topic("t", capacity=128 << 10)
    subscriber = topic.subscribe("#", on_lag="drop-oldest")
    left = threading.Event()

    def publish() -> None:
        for n in range(20 * EACH):
            topic.publish(n)

    def receive() -> int:
        told = 0
        while True:
            over = left.is_set()
            try:
                told += sum(1 + message.lost for message in subscriber.receive_many(64, timeout=0.02))
            except ringpost.Empty:
                if over:
                    return told

    def publish_all() -> int:
        at_once(*[publish] * THREADS)
        left.set()
        return 0

    told = sum(at_once(publish_all, *[receive] * THREADS))
    assert told == 20 * EACH * THREADS


def test_an_event_bus(broker: ringpost.Broker) -> None:
    """Handlers come and go while events are emitted and handled; the one that stays sees each once."""
    bus = broker.events("app", capacity=CAPACITY)
    seen: list[tuple[int, int]] = []
    bus.on("order.*", lambda thread, n: seen.append((thread, n)))
    bus.run_in_thread()

    def emit(thread: int) -> None:
        for n in range(EACH):
            bus.emit("order.created", thread, n)

    def come_and_go() -> None:
        handler = bus.on("order.created", lambda *_: None)
        bus.once("order.paid", handler)
        bus.off("order.created", handler)

    try:
        at_once(*[partial(emit, thread) for thread in range(THREADS)], looking=come_and_go)
        deadline = time.monotonic() + BOUND
        while len(seen) < THREADS * EACH and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        bus.close()
    assert Counter(seen) == ALL


# ---- asyncio ------------------------------------------------------------------------------------


def test_a_queue_in_many_loops(broker: ringpost.Broker) -> None:
    """One handle of ringpost.aio, in a loop of each thread."""
    with broker.queue("q", capacity=CAPACITY):  # which stays
        queue = asyncio.run(open_queue(broker))
        left = Share(THREADS * EACH)

        async def produce(thread: int) -> list[Any]:
            for n in range(EACH):
                await queue.put(numbered(thread, n))
            return []

        async def consume() -> list[Any]:
            taken: list[Any] = []
            while not left.over:
                try:
                    taken.append(await queue.get(timeout=0.05))
                except ringpost.Empty:
                    continue
                left.took(1)
            return taken

        async def both(thread: int) -> list[Any]:
            _, taken = await asyncio.gather(produce(thread), consume())
            return taken

        def run(thread: int) -> list[Any]:
            return asyncio.run(both(thread))

        results = at_once(
            *[partial(run, thread) for thread in range(THREADS)],
            looking=queue.qsize,
        )
        assert all_taken(results) == ALL
        asyncio.run(queue.close())


async def open_queue(broker: ringpost.Broker) -> ringpost.aio.Queue[Any]:
    other = await ringpost.aio.connect(broker.url)
    return await other.queue("q")


def test_a_broker_and_handles_on_their_way(broker: ringpost.Broker) -> None:
    """Opened, pickled and closed by all threads: they are one queue."""

    def work() -> None:
        for _ in range(30):
            with broker.queue("q", capacity=CAPACITY) as queue:
                with pickle.loads(pickle.dumps(queue)) as other:
                    other.put(1)
                queue.put(1)
                assert queue.get_many(2, timeout=BOUND)

    with broker.queue("q", capacity=CAPACITY) as stays:
        at_once(*[work] * THREADS, looking=lambda: (broker.list(), repr(broker)))
        assert stays.qsize() <= 30 * THREADS
