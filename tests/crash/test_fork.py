"""fork with open handles, at any moment: parent and child go on independently."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ringpost
from crash.children import Flag, Nursery

BOUND = 5.0
CAPACITY = 128 << 10
LARGE = bytes(20_000)

Queue = ringpost.Queue[Any]


@pytest.fixture(params=["named", "anonymous"])
def queue(request: pytest.FixtureRequest, broker: ringpost.Broker) -> Iterator[Queue]:
    named = request.param == "named"
    with broker.queue("q", capacity=CAPACITY) if named else Queue(capacity=CAPACITY) as queue:
        yield queue


def participants(queue: Queue) -> int:
    return queue._log.info()["participants"]


def wait_until_alone(queue: Queue) -> None:
    """Until the processes that nobody waits for have ended."""
    deadline = time.monotonic() + BOUND
    while participants(queue) != 1:
        assert time.monotonic() < deadline, "the others do not end"
        time.sleep(0.001)


def test_a_child_is_a_participant_of_its_own(queue: Queue, fork: Nursery) -> None:
    answered = Flag()

    def child() -> None:
        queue.put("from the child")
        answered.wait()
        assert queue.get(timeout=BOUND) == "to the child"
        queue.put(participants(queue))

    queue.put("first")
    assert queue.get() == "first"
    one = fork(child)
    assert queue.get(timeout=BOUND) == "from the child"
    queue.put("to the child")
    answered.set()
    assert one.wait() == 0
    assert queue.get(timeout=BOUND) == 2
    assert participants(queue) == 1


def test_generations(queue: Queue, fork: Nursery) -> None:
    """Each process puts its number, forks the next one, and does not wait for it."""

    def descend(number: int) -> None:
        queue.put(number)
        if number < 5 and os.fork() == 0:
            descend(number + 1)
            os._exit(0)

    fork(descend, 0)
    assert [queue.get(timeout=BOUND) for _ in range(6)] == list(range(6))
    wait_until_alone(queue)


def test_the_death_of_an_idle_child_disturbs_nobody(queue: Queue, fork: Nursery) -> None:
    """It has the handle, but never used it."""
    queue.put("item")
    fork(signal.pause).kill()
    fork(lambda: None).wait()
    assert queue.get(timeout=BOUND) == "item"
    assert participants(queue) == 1


@pytest.mark.parametrize("used", [False, True])
def test_the_death_of_the_parent_does_not_disturb_the_child(queue: Queue, fork: Nursery, used: bool) -> None:
    """This process looks on while the middle one of three generations is killed."""
    born, orphaned, answered, done = (Flag() for _ in range(4))

    def grandchild() -> None:
        born.set()
        orphaned.wait()
        queue.put("from the orphan")
        answered.wait()
        assert queue.get(timeout=BOUND) == "to the orphan"
        queue.put(LARGE)
        done.set()

    def middle() -> None:
        if used:
            queue.qsize()
        if os.fork() == 0:
            grandchild()
            os._exit(0)
        signal.pause()

    parent = fork(middle)
    born.wait()
    parent.kill()
    orphaned.set()
    assert queue.get(timeout=BOUND) == "from the orphan"
    queue.put("to the orphan")
    answered.set()
    done.wait()
    assert queue.get(timeout=BOUND) == LARGE
    wait_until_alone(queue)


Call = Callable[[Queue], object]
BLOCKED: dict[str, tuple[bool, Call, Call]] = {
    "get": (False, lambda q: q.get(), lambda q: q.put(b"x")),
    "get_many": (False, lambda q: q.get_many(), lambda q: q.put(b"x")),
    "put": (True, lambda q: q.put(LARGE), lambda q: q.get()),
    "join": (True, lambda q: q.join(), lambda q: q.task_done()),
}


@pytest.mark.parametrize(("starts_full", "block", "release"), BLOCKED.values(), ids=BLOCKED)
def test_fork_while_a_thread_is_blocked(
    queue: Queue, fork: Nursery, starts_full: bool, block: Call, release: Call
) -> None:
    """The child does not have this thread: it is the parent's that is released by what the child does."""
    if starts_full:
        queue.put(bytes(CAPACITY // 2))
    thread = threading.Thread(target=block, args=(queue,))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert fork(release, queue).wait() == 0
    thread.join(BOUND)
    assert not thread.is_alive()


def test_fork_while_threads_are_at_work(queue: Queue, fork: Nursery) -> None:
    """At whatever moment: no lock is held for ever on behalf of threads that the child does not have."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            queue.put(LARGE, timeout=BOUND)
            queue.get(timeout=BOUND)
            queue.put_many([b"a", b"b"], timeout=BOUND)
            left = 2
            while left:  # a large message ends a batch
                left -= len(queue.get_many(left, timeout=BOUND))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            assert fork(lambda: (queue.put(b"x", timeout=BOUND), queue.get(timeout=BOUND))).wait() == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert participants(queue) == 1


def test_fork_while_threads_open_and_close(broker: ringpost.Broker, fork: Nursery) -> None:
    stop = threading.Event()

    def work(name: str) -> None:
        while not stop.is_set():
            broker.queue(name, capacity=CAPACITY).put(b"x", timeout=BOUND)
            broker.delete(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()

    def child() -> None:
        with broker.queue("c", capacity=CAPACITY) as queue:
            queue.put(b"x", timeout=BOUND)
            assert queue.get(timeout=BOUND) == b"x"

    try:
        assert [fork(child).wait() for _ in range(40)] == [0] * 40
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_an_anonymous_queue_outlives_its_maker(fork: Nursery, broker: ringpost.Broker) -> None:
    """A child that had not touched it yet when the maker ended goes on with its own children."""
    answer = broker.queue("answer")
    ready, orphaned = Flag(), Flag()

    def maker() -> None:
        queue = ringpost.Queue(capacity=CAPACITY)
        queue.put("from the maker")
        if os.fork() == 0:
            ready.set()
            orphaned.wait()
            if os.fork() == 0:
                queue.put(queue.get(timeout=BOUND) + ", by way of the grandchild")
                os._exit(0)
            os.wait()
            answer.put(queue.get(timeout=BOUND))
            os._exit(0)
        ready.wait()
        queue._log.leave()

    assert fork(maker).wait() == 0
    orphaned.set()
    assert answer.get(timeout=BOUND) == "from the maker, by way of the grandchild"
