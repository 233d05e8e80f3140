"""Processes come and go: more of them over time than there is room for at once."""

from __future__ import annotations

import fcntl
import os
import signal
from collections import Counter
from struct import pack

import pytest
from crash.children import Child, Nursery
from crash.segment_file import SegmentFile, path_of

import ringpost

CAPACITY = 128 << 10
SLOTS = 1024
SOME_MORE = 76
TOGETHER = 8
BOUND = 10.0
FIRST_BYTE = 1 << 40  # whose locks say which participants live


def put_and_leave(queue: ringpost.Queue[int], number: int) -> None:
    queue.put(number, timeout=BOUND)


def put_and_die(queue: ringpost.Queue[int], number: int) -> None:
    queue.put(number, timeout=BOUND)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(600)  # a large parent forks slowly, more so on a busy machine
def test_more_processes_than_slots_over_time(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q", capacity=CAPACITY)
    children: list[Child] = []
    came: Counter[int] = Counter()
    for number in range(SLOTS + SOME_MORE):
        children.append(fork(put_and_die if number % 2 else put_and_leave, queue, number))
        if len(children) >= TOGETHER:
            assert children.pop(0).wait(BOUND) in (0, -signal.SIGKILL)
        came.update(queue.get_many(block=False) if queue.qsize() else ())
    for child in children:
        child.wait(BOUND)
    came.update(queue.get_many() if queue.qsize() else ())
    assert came == Counter(range(SLOTS + SOME_MORE))
    assert queue._log.info()["participants"] == 1
    segment = SegmentFile(path_of(queue))
    with pytest.raises(LookupError):
        segment.owner(0xFFFFFFFF)
    unused = segment.memory.find(bytes(64), segment["slots_offset"])
    assert unused < segment["slots_offset"] + 64 * 3 * TOGETHER, "slots are not used again"


def test_no_slot_left(broker: ringpost.Broker, fork: Nursery) -> None:
    """As if a thousand others were alive: one who comes is told, and one who is in goes on."""
    queue = broker.queue("q", capacity=CAPACITY)

    def comes_too_late() -> None:
        with pytest.raises(ringpost.TooManyProcesses):
            queue.put(1)

    def comes_in_time() -> None:
        queue.put(2)

    with open(path_of(queue), "r+b") as file:
        whole = pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, FIRST_BYTE + 1, SLOTS - 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, whole)
        assert fork(comes_too_late).wait() == 0
        queue.put(0)
    assert fork(comes_in_time).wait() == 0
    assert queue.get_many() == [0, 2]
