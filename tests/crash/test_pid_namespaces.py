"""Containers that share a queue: who is alive is seen across pid namespaces, where numbers mean nothing."""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import ringpost
from crash.children import Flag, Nursery
from crash.namespaces import new_pid_namespace, skip_without_pid_namespaces
from crash.segment_file import SegmentFile, path_of

BOUND = 5.0

Queue = ringpost.Queue[Any]


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    skip_without_pid_namespaces()


@pytest.fixture
def queue(broker: ringpost.Broker) -> Queue:
    return broker.queue("q", capacity=128 << 10)


class Container:
    """A process that is number 1 of a pid namespace of its own."""

    def __init__(self, fork: Nursery, function: Callable[[], object]) -> None:
        self._pid = memoryview(mmap.mmap(-1, 8)).cast("Q")
        self.started = Flag()
        self.outside = fork(self._enter, function)

    def _enter(self, function: Callable[[], object]) -> None:
        new_pid_namespace()
        pid = os.fork()
        if pid == 0:
            assert os.getpid() == 1
            signal.alarm(60)
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)
        self._pid[0] = pid
        self.started.set()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(abs(status))

    def kill(self) -> None:
        self.started.wait()
        os.kill(self._pid[0], signal.SIGKILL)
        assert self.outside.wait() == signal.SIGKILL


def use(queue: Queue) -> None:
    queue.put(b"message", timeout=BOUND)
    assert queue.get(timeout=BOUND) == b"message"


def take_part(queue: Queue, joined: Flag) -> None:
    queue.qsize()
    joined.set()
    signal.pause()


def test_a_death_inside_is_seen_outside(queue: Queue, fork: Nursery) -> None:
    joined = Flag()
    container = Container(fork, lambda: take_part(queue, joined))
    joined.wait()
    segment = SegmentFile(path_of(queue))
    segment["lock"] = segment.owner(1)
    with pytest.raises(ringpost.Stalled):
        queue.put(b"x", timeout=0.2)
    container.kill()
    use(queue)


def test_a_death_outside_is_seen_inside(queue: Queue, fork: Nursery) -> None:
    joined, stalled, killed = Flag(), Flag(), Flag()
    holder = fork(take_part, queue, joined)
    joined.wait()
    segment = SegmentFile(path_of(queue))
    segment.set_group("lock", segment.owner(holder.pid))

    def inside() -> None:
        queue.put(b"message", timeout=BOUND)
        with pytest.raises(ringpost.Stalled):
            queue.get(timeout=0.2)
        stalled.set()
        killed.wait()
        assert queue.get(timeout=BOUND) == b"message"

    container = Container(fork, inside)
    stalled.wait()
    holder.kill()
    killed.set()
    assert container.outside.wait() == 0


def test_one_number_two_processes(queue: Queue, fork: Nursery) -> None:
    """Both are process 1 of theirs: the death of one is not the death of the other."""
    joined = [Flag(), Flag()]
    first = Container(fork, lambda: take_part(queue, joined[0]))
    joined[0].wait()
    segment = SegmentFile(path_of(queue))
    owner = segment.owner(1)
    second = Container(fork, lambda: take_part(queue, joined[1]))
    joined[1].wait()
    second.kill()
    segment["lock"] = owner
    with pytest.raises(ringpost.Stalled):
        queue.put(b"x", timeout=0.2)
    first.kill()
    use(queue)
