"""Daemons close all descriptors, and programs exec: queues neither break nor break anything."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import ringpost
from crash.children import Flag, Nursery
from crash.segment_file import SegmentFile, path_of

BOUND = 5.0
CAPACITY = 128 << 10
LARGE = bytes(CAPACITY // 2)

Queue = ringpost.Queue[Any]


@pytest.fixture(params=["named", "anonymous"])
def queue(request: pytest.FixtureRequest, broker: ringpost.Broker) -> Iterator[Queue]:
    named = request.param == "named"
    with broker.queue("q", capacity=CAPACITY) if named else Queue(capacity=CAPACITY) as queue:
        yield queue


def close_all() -> None:
    os.closerange(3, 256)


def use(queue: Queue) -> None:
    for message in (b"small", LARGE):
        queue.put(message, timeout=BOUND)
        assert queue.get(timeout=BOUND) == message


def test_the_queue_goes_on_working(queue: Queue, fork: Nursery) -> None:
    def daemon() -> None:
        queue.qsize()
        close_all()
        use(queue)

    assert fork(daemon).wait() == 0


def test_a_child_joins_without_them(queue: Queue, fork: Nursery) -> None:
    def daemon() -> None:
        close_all()
        use(queue)

    assert fork(daemon).wait() == 0


def test_others_see_that_it_lives(queue: Queue, fork: Nursery) -> None:
    closed = Flag()

    def daemon() -> None:
        queue.qsize()
        close_all()
        closed.set()
        signal.pause()

    child = fork(daemon)
    closed.wait()
    segment = SegmentFile(path_of(queue))
    segment["lock"] = segment.owner(child.pid)
    with pytest.raises(ringpost.Stalled, match=rf"\b{child.pid}\b"):
        queue.put(b"x", timeout=0.2)
    child.kill()
    use(queue)


@pytest.mark.parametrize("reused", [False, True])
def test_it_sees_whether_others_live(queue: Queue, fork: Nursery, reused: bool) -> None:
    """Even if the numbers of its descriptors mean other files now."""
    other = fork(lambda: (queue.qsize(), signal.pause()))
    other.wait_until_asleep()
    segment = SegmentFile(path_of(queue))
    segment["lock"] = segment.owner(other.pid)
    stalled, killed = Flag(), Flag()

    def daemon() -> None:
        queue.qsize()
        close_all()
        if reused:
            for _ in range(50):
                os.open("/dev/null", os.O_RDWR)
        with pytest.raises(ringpost.Stalled):
            queue.put(b"x", timeout=0.2)
        stalled.set()
        killed.wait()
        use(queue)

    child = fork(daemon)
    stalled.wait()
    other.kill()
    killed.set()
    assert child.wait() == 0


def test_letting_go_of_the_queue_closes_no_file_of_others(broker: ringpost.Broker, fork: Nursery) -> None:
    """The descriptor's number may belong to somebody else by now."""
    broker.queue("q", capacity=CAPACITY).close()

    def daemon() -> None:
        queue = broker.queue("q")
        close_all()
        others = [os.open("/dev/null", os.O_RDWR) for _ in range(50)]
        use(queue)
        queue.close()
        del queue
        for descriptor in others:
            os.fstat(descriptor)

    assert fork(daemon).wait() == 0


def test_after_exec_it_is_dead_to_the_others(queue: Queue, fork: Nursery) -> None:
    """Same pid, same descriptors even, but nobody who would ever unlock."""
    replaced = Flag()

    def exec_something_else() -> None:
        queue.qsize()
        for descriptor in range(3, 256):
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, True)
        replaced.set()
        os.execv(sys.executable, [sys.executable, "-c", "import signal; signal.pause()"])

    child = fork(exec_something_else)
    replaced.wait()
    segment = SegmentFile(path_of(queue))
    segment["lock"] = segment.owner(child.pid)
    use(queue)
    assert not child.ended()
    assert queue._log.info()["participants"] == 1
