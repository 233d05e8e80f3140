"""fileno() of queues, consumers and subscribers, with whatever waits for descriptors."""

from __future__ import annotations

import copy
import multiprocessing.connection
import os
import select
import selectors
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import ringpost
from conformance.crew import Crew
from conformance.patience import BOUND

SLICE = 0.1


def by_select(handle: Any, timeout: float) -> bool:
    return bool(select.select([handle], [], [], timeout)[0])


def by_poll(handle: Any, timeout: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def by_epoll(handle: Any, timeout: float) -> bool:
    with select.epoll() as epoll:
        epoll.register(handle, select.EPOLLIN)
        return bool(epoll.poll(timeout))


def by_selector(handle: Any, timeout: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(handle, selectors.EVENT_READ)
        return bool(selector.select(timeout))


def by_connection_wait(handle: Any, timeout: float) -> bool:
    return bool(multiprocessing.connection.wait([handle], timeout))


Ready = Callable[[Any, float], bool]


@pytest.fixture(params=[by_select, by_poll, by_epoll, by_selector, by_connection_wait])
def ready(request: pytest.FixtureRequest) -> Ready:
    way: Ready = request.param
    return way


def settle(take: Callable[[], object]) -> None:
    with pytest.raises(ringpost.Empty):
        take()


def test_it_is_readable_while_there_is_something(queue: ringpost.Queue[int], ready: Ready) -> None:
    assert not ready(queue, 0)
    for number in range(3):
        queue.put(number)
    assert ready(queue, 0)
    for number in range(3):
        assert ready(queue, 0)
        assert queue.get_nowait() == number
    settle(queue.get_nowait)
    assert not ready(queue, 0)
    queue.put_many(range(5))
    assert ready(queue, 0)
    assert queue.get_many(block=False) == list(range(5))
    settle(lambda: queue.get_many(block=False))
    assert not ready(queue, 0)


def test_what_was_there_before_is_seen(queue: ringpost.Queue[int], ready: Ready) -> None:
    queue.put_many([1, 2])
    assert ready(queue, 0)
    assert queue.get_nowait() == 1
    assert ready(queue, 0)


def put_soon(queue: ringpost.Queue[int], count: int) -> None:
    for number in range(count):
        time.sleep(0.01)
        queue.put(number)


def test_it_wakes_who_waits_for_another_process(queue: ringpost.Queue[int], ready: Ready) -> None:
    late = []
    with Crew() as crew:
        queue.fileno()
        crew.start(put_soon, queue, 30)
        for number in range(30):
            start = time.perf_counter()
            while True:
                try:
                    assert queue.get_nowait() == number
                    break
                except ringpost.Empty:
                    assert ready(queue, BOUND)
            late.append(time.perf_counter() - start)
    assert sorted(late)[len(late) // 2] < SLICE / 2


def test_several_watch_one_queue(queue: ringpost.Queue[int], ready: Ready) -> None:
    """Another handle is not robbed of its readiness by one that settles."""
    other = copy.copy(queue)
    for handle in (queue, other):
        settle(handle.get_nowait)
        assert not ready(handle, 0)
    queue.put(1)
    assert ready(queue, 0)
    assert queue.get_nowait() == 1
    settle(queue.get_nowait)
    assert not ready(queue, 0)
    assert ready(other, 0)
    settle(other.get_nowait)
    queue.put(2)
    assert ready(queue, 0)
    assert ready(other, 0)
    assert other.get_nowait() == 2
    other.close()


def test_consumers(queue: ringpost.Queue[int], ready: Ready) -> None:
    with queue.consumer() as consumer, queue.consumer() as other:
        settle(lambda: consumer.receive(0))
        settle(lambda: other.receive(0))
        assert not ready(consumer, 0)
        queue.put_many(range(5))
        assert ready(consumer, 0)
        for number in range(5):  # the first call fetched all of them
            assert ready(consumer, 0)
            message = consumer.receive(0)
            assert message.body == number
            message.ack() if number else message.nack(delay=0.03)
        settle(lambda: consumer.receive(0))
        assert not ready(consumer, 0)
        start = time.perf_counter()
        assert ready(consumer, BOUND)
        assert time.perf_counter() - start < SLICE
        while True:
            try:
                consumer.receive(0).ack()
                break
            except ringpost.Empty:
                ready(consumer, BOUND)


def test_subscribers(broker: ringpost.Broker, ready: Ready) -> None:
    topic = broker.topic("prices")
    topic.publish(0, "eu.dax", retain=True)
    with topic.subscribe("eu.*", retained=True) as eu, topic.subscribe(on_lag="drop-oldest") as lossy:
        assert ready(eu, 0)
        assert eu.receive(0).retained
        settle(lambda: eu.receive(0))
        settle(lambda: lossy.receive(0))
        assert not ready(eu, 0)
        assert not ready(lossy, 0)
        topic.publish(1, "eu.dax")
        assert ready(eu, 0)
        assert ready(lossy, 0)
        assert eu.receive(0).body == lossy.receive(0).body == 1


def test_priorities_and_schedules(broker: ringpost.Broker, ready: Ready) -> None:
    queue = broker.queue("jobs", priorities=True)
    settle(queue.get_nowait)
    queue.fileno()
    settle(queue.get_nowait)
    assert not ready(queue, 0)
    queue.producer().send("high", priority=7)
    assert ready(queue, 0)
    assert queue.get_nowait() == "high"
    settle(queue.get_nowait)
    queue.producer().send("later", delay=0.15)
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        assert ready(queue, 0.5)
        try:
            assert queue.get_nowait() == "later"
            break
        except ringpost.Empty:
            continue
    else:
        pytest.fail("it never came")


def test_shutdown_deletion_and_close(broker: ringpost.Broker, ready: Ready) -> None:
    queue = broker.queue("jobs")
    queue.fileno()
    settle(queue.get_nowait)
    queue.shutdown()
    assert ready(queue, 0)
    with pytest.raises(ringpost.ShutDown):
        queue.get_nowait()
    other = broker.queue("others")
    other.fileno()
    settle(other.get_nowait)
    broker.delete("others")
    assert ready(other, 0)
    with pytest.raises(ringpost.QueueDeleted):
        other.get_nowait()
    other.close()
    with pytest.raises(ValueError, match="closed"):
        other.fileno()
    third = broker.queue("third")
    third.fileno()
    os.unlink(third._log.path)
    with pytest.raises(ringpost.QueueDeleted):
        third.get_nowait()


@pytest.mark.parametrize("priorities", [False, True])
def test_a_method_bound_before_settles_too(broker: ringpost.Broker, ready: Ready, priorities: bool) -> None:
    queue = broker.queue("jobs", priorities=priorities)
    takes = [queue.get_nowait, partial(queue.get, False), partial(queue.get, timeout=0.01)]
    queue.fileno()
    for number, take in enumerate(takes):
        queue.put(number)
        assert ready(queue, 0)
        assert take() == number
        settle(take)
        assert not ready(queue, 0)


def test_a_method_bound_before_outlives_its_queue(queue: ringpost.Queue[int]) -> None:
    get, other = queue.get_nowait, copy.copy(queue)
    get_of_other = other.get_nowait
    other.fileno()
    del other
    settle(get_of_other)
    queue.fileno()
    queue.close()
    with pytest.raises(ValueError, match="closed"):
        get()


def test_forked_children_settle_by_a_method_that_was_bound_before(queue: ringpost.Queue[int]) -> None:
    unwatched, descriptor, watched = queue.get_nowait, queue.fileno(), queue.get_nowait

    def child() -> None:
        for take in (unwatched, watched):
            settle(take)  # not for its parent
        mine = queue.fileno()
        for take in (unwatched, watched):
            queue.put(1)
            assert by_select(mine, 0)
            assert take() == 1
            settle(take)
            assert not by_select(mine, 0)

    with Crew() as crew:
        crew.start(child)
    assert by_select(descriptor, BOUND)
    settle(unwatched)
    assert not by_select(descriptor, 0)


def test_forked_children_have_their_own(queue: ringpost.Queue[int]) -> None:
    def child() -> None:
        settle(queue.get_nowait)  # must not settle for its parent
        mine = queue.fileno()
        settle(queue.get_nowait)
        assert not by_select(mine, 0)
        queue.put(2)
        assert by_select(mine, 0)

    descriptor = queue.fileno()
    settle(queue.get_nowait)
    queue.put(1)
    assert by_select(descriptor, 0)
    assert queue.get_nowait() == 1
    with Crew() as crew:
        crew.start(child)
    assert by_select(descriptor, 0)
    assert queue.get_nowait() == 2


def test_subclasses_keep_their_methods(binding: object) -> None:
    class Loud(ringpost.Queue[str]):
        def get_nowait(self) -> str:
            return super().get_nowait().upper()

    queue = Loud()
    assert not by_select(queue, 0)
    queue.put("x")
    assert by_select(queue, 0)
    assert queue.get_nowait() == "X"
    settle(queue.get_nowait)
    assert not by_select(queue, 0)
    queue.close()


@pytest.mark.parametrize("bound_before", [False, True])
def test_it_costs_a_wake_up_for_a_slice_and_no_more(queue: ringpost.Queue[int], bound_before: bool) -> None:
    take = queue.get_nowait if bound_before else lambda: queue.get_nowait()
    queue.fileno()
    settle(take)
    wakes = 0
    deadline = time.monotonic() + 1
    while (left := deadline - time.monotonic()) > 0:
        if by_select(queue, left):
            wakes += 1
            settle(take)
    assert 5 <= wakes <= 11


def test_a_storm_of_takers_by_descriptor(queue: ringpost.Queue[int]) -> None:
    """Threads, each with a handle of its own; a lost wake-up shows as a long wait."""
    got: list[int] = []
    late: list[float] = []
    handles = [copy.copy(queue) for _ in range(4)]

    def take(handle: ringpost.Queue[int]) -> None:
        while True:
            try:
                got.append(handle.get_nowait())
            except ringpost.Empty:
                if not by_poll(handle, 2):
                    late.append(2)
            except ringpost.ShutDown:
                return

    threads = [threading.Thread(target=take, args=(handle,)) for handle in handles]
    for thread in threads:
        thread.start()
    for number in range(20000):
        queue.put(number)
        if number % 100 == 0:
            time.sleep(0.0005)
    queue.shutdown()
    for thread in threads:
        thread.join(BOUND)
    assert sorted(got) == list(range(20000))
    assert not late
    for handle in handles:
        handle.close()
