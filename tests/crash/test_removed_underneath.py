"""A queue that is deleted, or whose file is unlinked, while others use it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ringpost
from crash.children import Nursery
from crash.segment_file import path_of

PROMPT = 5.0
CAPACITY = 128 << 10

Queue = ringpost.Queue[Any]
Call = Callable[..., object]

CALLS: dict[str, tuple[bool, Call]] = {  # does the queue start full?
    "get": (False, lambda q, **when: q.get(**when)),
    "get_many": (False, lambda q, **when: q.get_many(**when)),
    "put": (True, lambda q, **when: q.put(b"x", **when)),
    "put_many": (True, lambda q, **when: q.put_many([b"x"], **when)),
    "put large": (True, lambda q, **when: q.put(bytes(20_000), **when)),
    "join": (True, lambda q, **when: q.join(**when)),
}
each_call = pytest.mark.parametrize(("starts_full", "call"), CALLS.values(), ids=CALLS)


@pytest.fixture
def queue(broker: ringpost.Broker) -> Queue:
    return broker.queue("q", capacity=CAPACITY, maxsize=1)


def raises_deleted(call: Call, queue: Queue) -> None:
    with pytest.raises(ringpost.QueueDeleted):
        call(queue)


@each_call
def test_deleting_ends_the_calls_of_others(
    broker: ringpost.Broker, queue: Queue, fork: Nursery, starts_full: bool, call: Call
) -> None:
    if starts_full:
        queue.put(bytes(CAPACITY // 2))
    children = [fork(raises_deleted, call, queue) for _ in range(2)]
    for child in children:
        child.wait_until_asleep()
    assert broker.delete("q")
    start = time.monotonic()
    assert [child.wait(PROMPT) for child in children] == [0, 0]
    assert time.monotonic() - start < PROMPT
    raises_deleted(call, queue)


@each_call
def test_unlinking_the_file_ends_the_calls_of_others(
    queue: Queue, fork: Nursery, starts_full: bool, call: Call
) -> None:
    """Nobody tells them: they must find out for themselves."""
    if starts_full:
        queue.put(bytes(CAPACITY // 2))
    child = fork(raises_deleted, call, queue)
    child.wait_until_asleep()
    os.unlink(path_of(queue))
    assert child.wait(PROMPT) == 0


@each_call
def test_timeouts_end_the_calls_of_others_after_unlinking(
    queue: Queue, fork: Nursery, starts_full: bool, call: Call
) -> None:
    def waits() -> None:
        with pytest.raises((ringpost.Empty, ringpost.Full, TimeoutError, ringpost.QueueDeleted)):
            call(queue, timeout=0.5)

    if starts_full:
        queue.put(bytes(CAPACITY // 2))
    child = fork(waits)
    child.wait_until_asleep()
    os.unlink(path_of(queue))
    assert child.wait(PROMPT) == 0


def test_the_next_to_open_it_makes_a_new_one(broker: ringpost.Broker, queue: Queue) -> None:
    queue.put("old")
    os.unlink(path_of(queue))
    new = broker.queue("q", capacity=2 * CAPACITY)
    assert (new.qsize(), new.capacity) == (0, 2 * CAPACITY)
    new.put("new")
    assert new.get() == "new"


def test_deleted_and_made_anew(broker: ringpost.Broker, queue: Queue, fork: Nursery) -> None:
    """Old handles never reach the new queue; they say that theirs is gone."""
    child = fork(raises_deleted, Queue.get, queue)
    child.wait_until_asleep()
    broker.delete("q")
    new = broker.queue("q", capacity=CAPACITY)
    new.put("new")
    assert child.wait(PROMPT) == 0
    with pytest.raises(ringpost.QueueDeleted):
        queue.get()
    assert new.get() == "new"


def test_destroying_the_broker_ends_the_calls_of_others(
    broker: ringpost.Broker, queue: Queue, fork: Nursery
) -> None:
    other = broker.queue("other", capacity=CAPACITY)
    children = [fork(raises_deleted, Queue.get, each) for each in (queue, other)]
    for child in children:
        child.wait_until_asleep()
    broker.destroy()
    assert [child.wait(PROMPT) for child in children] == [0, 0]
    assert broker.list() == []


# ---- without anybody who waits -----------------------------------------------------------------


def lose(place: str) -> None:
    """rm -rf /dev/shm/*"""
    for each in os.listdir(place):
        shutil.rmtree(os.path.join(place, each))


def until_deleted(call: Callable[[], object]) -> int:
    """How often it worked; the watchdog is pytest's."""
    count = 0
    while True:
        try:
            call()
        except ringpost.QueueDeleted:
            return count
        except (ringpost.Empty, ringpost.Full):
            pass
        count += 1
        time.sleep(0.005)


NEVER_WAITING: dict[str, Call] = {
    "put": lambda queue: queue.put_nowait(b"x"),
    "put_many": lambda queue: queue.put_many([b"x", b"y"], block=False),
    "put large": lambda queue: queue.put_nowait(bytes(20_000)),
    "get": lambda queue: queue.get_nowait(),
    "get_many": lambda queue: queue.get_many(block=False),
    "receive": lambda queue: queue.consumer().receive(timeout=0),
}


@pytest.mark.parametrize("call", NEVER_WAITING.values(), ids=NEVER_WAITING)
def test_who_never_waits_finds_out_within_a_second_or_so(
    broker: ringpost.Broker, shm_dir: Path, call: Call
) -> None:
    """And does not put into nowhere for as long as there is room."""
    queue = broker.queue("roomy", capacity=1 << 20)
    with contextlib.suppress(ringpost.Empty):
        call(queue)
    lose(str(shm_dir))
    assert until_deleted(lambda: call(queue)) < 1000
    raises_deleted(call, queue)


def test_one_who_finds_out_tells_the_others(broker: ringpost.Broker, shm_dir: Path, fork: Nursery) -> None:
    queue = broker.queue("roomy", capacity=1 << 20)
    children = [fork(raises_deleted, each, queue) for each in (Queue.get, Queue.get_many)]
    for child in children:
        child.wait_until_asleep()
    lose(str(shm_dir))
    until_deleted(queue.get_nowait)
    assert [child.wait(PROMPT) for child in children] == [0, 0]


def test_everything_that_has_files(broker: ringpost.Broker, shm_dir: Path) -> None:
    """Each call ends, with QueueDeleted or with what it promises; then all is there again, empty."""
    queue, topic, bus = broker.queue("jobs"), broker.topic("news"), broker.events("app")
    subscriber = topic.subscribe()
    out = queue.producer(dedup_window=60)
    assert out.send(1, message_id="a")
    out.send(1, delay=60)
    topic.publish(1, subject="eu", retain=True)
    assert queue.fileno() > 0
    lose(str(shm_dir))
    calls: list[Callable[[], object]] = [
        lambda: out.send(1, message_id="b"),
        lambda: out.send(1, delay=60),
        lambda: topic.publish(1, subject="eu", retain=True),
        lambda: subscriber.receive(timeout=0),
        lambda: bus.emit("x", 1),
    ]
    for call in calls:
        until_deleted(call)
    fresh = broker.queue("jobs")
    with fresh.producer(dedup_window=60) as again:
        assert again.send(1, message_id="a")
    assert fresh.get_nowait() == 1
    assert broker.list() == ["jobs"]
