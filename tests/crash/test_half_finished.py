"""States that a death in the middle of an operation leaves behind, written by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

import ringpost
from crash.children import Nursery
from crash.segment_file import LOANED, ORPHAN, PUBLISHED, SegmentFile, path_of
from crash.storm import random_seed

CAPACITY = 128 << 10
RING = POOL = CAPACITY // 2
GRANULES = POOL // 8192
FRAME = 32  # bytes of a frame's header
INLINE = 16384  # the largest payload that lies in the ring
BOUND = 2.0
GENERATION = 1 << 11

Queue = ringpost.Queue[Any]


@pytest.fixture
def queue(broker: ringpost.Broker) -> Queue:
    return broker.queue("half", capacity=CAPACITY)


@pytest.fixture
def segment(queue: Queue) -> SegmentFile:
    return SegmentFile(path_of(queue))


@pytest.fixture
def dead(queue: Queue, segment: SegmentFile, fork: Nursery) -> int:
    """How locks and chunks name a participant that was killed."""
    child = fork(queue.qsize)
    child.wait()
    return segment.owner(child.pid)


def round_trip(queue: Queue, *messages: bytes) -> None:
    """Put all, then take all."""
    for message in messages:
        queue.put(message, timeout=BOUND)
    assert [queue.get(timeout=BOUND) for _ in messages] == list(messages)


LOCKS: list[Callable[[SegmentFile, int], None]] = [
    lambda segment, owner: segment.__setitem__("lock", owner),
    lambda segment, owner: segment.__setitem__("pool_lock", owner),
    lambda segment, owner: segment.set_group("lock", owner),
]
each_lock = pytest.mark.parametrize("set_lock", LOCKS, ids=["producers", "pool", "consumers"])


@each_lock
@pytest.mark.parametrize("waiters", [0, 1 << 31], ids=["", "others slept on it"])
def test_a_dead_process_holds_a_lock(
    queue: Queue,
    segment: SegmentFile,
    dead: int,
    set_lock: Callable[[SegmentFile, int], None],
    waiters: int,
) -> None:
    set_lock(segment, dead | waiters)
    round_trip(queue, b"small", b"large" * 4000)


@each_lock
def test_a_process_whose_slot_has_a_new_owner_holds_a_lock(
    queue: Queue,
    segment: SegmentFile,
    fork: Nursery,
    dead: int,
    set_lock: Callable[[SegmentFile, int], None],
) -> None:
    """The slot is taken by a living process, but not by the one that the lock names."""
    successor = fork(lambda: (queue.qsize(), queue.get(timeout=20)))
    successor.wait_until_asleep()
    assert segment.owner(successor.pid) == dead + GENERATION
    set_lock(segment, dead)
    queue.put(b"for the successor", timeout=BOUND)
    assert successor.wait() == 0
    round_trip(queue, b"small", b"large" * 4000)


@each_lock
@pytest.mark.parametrize("slot", [ORPHAN, 1, 1024, 1025, 2046])
def test_nobody_or_noise_holds_a_lock(
    queue: Queue, segment: SegmentFile, set_lock: Callable[[SegmentFile, int], None], slot: int
) -> None:
    set_lock(segment, 77 * GENERATION | slot)
    round_trip(queue, b"small", b"large" * 4000)


def test_garbage_beyond_the_tail(queue: Queue, segment: SegmentFile) -> None:
    """A producer died while it wrote its frames, at any place of the ring."""
    rng = random.Random(random_seed())
    start, end = segment.ring()
    for _ in range(200):
        stub = start + segment["tail"] % RING
        for at in range(start, end, 4096):
            if not at - 4096 < stub < at + 4096:
                segment.memory[at : at + 4096] = rng.randbytes(4096)
        number = segment.memory[stub + 8 : stub + 16]
        segment.memory[stub : stub + FRAME] = rng.randbytes(FRAME)
        segment.memory[stub + 8 : stub + 16] = number
        round_trip(queue, rng.randbytes(rng.randrange(INLINE)), b"next")
        assert queue.empty()


def test_a_consumer_died_between_its_two_stores(queue: Queue, segment: SegmentFile, dead: int) -> None:
    """`read` has moved, `acked` has not: the next consumer puts that right."""
    queue.put_many([b"a", b"b"])
    assert queue.get_many() == [b"a", b"b"]
    segment.set_group("acked", 0)
    segment.set_group("lock", dead)
    with pytest.raises(ringpost.Empty):
        queue.get_nowait()
    assert segment.group("acked") == segment.group("read")


def test_producers_do_not_need_the_next_consumer_for_that(
    queue: Queue, segment: SegmentFile, dead: int
) -> None:
    """The queue is empty, so there is room, even if nobody takes any more."""
    queue.put_many([bytes(INLINE)] * 3)
    queue.get_many()
    segment.set_group("acked", 0)
    segment.set_group("lock", dead)
    assert queue.qsize() == 0
    queue.put(bytes(INLINE), timeout=BOUND)


@pytest.mark.parametrize("state", [LOANED, PUBLISHED], ids=["on loan", "published"])
@pytest.mark.parametrize("runs", [(GRANULES,), (1, 2, GRANULES - 3), (1,) * GRANULES])
def test_the_pool_of_dead_producers(
    queue: Queue, segment: SegmentFile, dead: int, state: int, runs: tuple[int, ...]
) -> None:
    """They died before the frames that should have published it were committed."""
    first = 0
    for granules in runs:
        segment.set_chunk(first, state, granules, dead, position=segment["tail"])
        first += granules
    round_trip(queue, bytes(POOL))


def test_the_pool_of_frames_long_gone(queue: Queue, segment: SegmentFile) -> None:
    """A consumer died after taking a large message, before it freed its granules: the producer lives."""
    large = bytes(3 * 8192)
    queue.put(large)
    state, granules, owner = segment.chunk(0)
    assert (state, granules) == (PUBLISHED, 3)
    assert queue.get() == large
    segment.set_chunk(0, PUBLISHED, granules, owner, position=0)
    round_trip(queue, bytes(POOL))


def test_the_pool_of_the_living_is_left_alone(queue: Queue, segment: SegmentFile) -> None:
    """Of a message that waits, and of a loan that is being filled."""
    large = b"x" * 3 * 8192
    queue.put(large)
    _, _, owner = segment.chunk(0)
    segment.set_chunk(3, LOANED, 2, owner, position=0)
    segment.set_chunk(5, 0, GRANULES - 5, 0, position=0)
    with pytest.raises(ringpost.Full):
        queue.put(bytes(POOL), timeout=0.2)
    assert queue.get() == large
    with pytest.raises(ringpost.Full):
        queue.put(bytes(POOL), timeout=0.2)


def test_a_waiter_died_with_its_flag_up(queue: Queue, segment: SegmentFile) -> None:
    """All `armed` bits are set though nobody sleeps, and some for events that do not exist."""
    segment.memory[896:912] = b"\xff" * 16
    round_trip(queue, b"small", b"large" * 4000)
    queue.task_done()
    queue.task_done()
    queue.join(timeout=BOUND)
