"""What queue.Queue promises, without waiting."""

from __future__ import annotations

import queue as standard
import threading
import time
from typing import Any

import numpy
import pytest

import ringpost
from conformance.conftest import MakeQueue

Queue = ringpost.Queue[Any]


def fill(queue: Queue, item: object) -> int:
    """How often it goes in."""
    put = 0
    try:
        while True:
            queue.put_nowait(item)
            put += 1
    except standard.Full:
        return put


def test_first_in_first_out(queue: Queue) -> None:
    for number in range(1000):
        queue.put(number)
    assert [queue.get() for _ in range(1000)] == list(range(1000))


def test_order_survives_laps_of_the_ring(make: MakeQueue) -> None:
    queue = make(capacity=128 << 10)
    sizes = [size * 37 % 3000 for size in range(500)]
    for size in sizes:
        queue.put(bytes(size))
        queue.put(size)
        assert len(queue.get()) == size
        assert queue.get() == size


def test_the_exceptions_are_the_standard_ones(make: MakeQueue) -> None:
    queue = make(1)
    with pytest.raises(standard.Empty):
        queue.get_nowait()
    queue.put("only")
    with pytest.raises(standard.Full):
        queue.put_nowait("one more")


@pytest.mark.parametrize("item", ["x", numpy.zeros(1, [("a", "u1")])[0]], ids=["text", "record"])
def test_full_says_what_it_is_full_by(make: MakeQueue, item: Any) -> None:
    bounded, small = make(2), make(capacity=128 << 10)
    bounded.put_many([item, item])
    fill(small, b"x" * 1000)
    by_messages = "is full: as many messages wait in it as its maxsize=2 allows; its consumers are behind"
    for put in (
        bounded.put_nowait,
        lambda one: bounded.put(one, timeout=0.01),
        lambda one: bounded.put_many([one], block=False),
        lambda one: bounded.put_many(numpy.array([one]), block=False),
    ):
        with pytest.raises(ringpost.Full, match=by_messages):
            put(item)
    with pytest.raises(ringpost.Full, match=r"no room for 1\d\d\d bytes; its consumers"):
        small.put_nowait(b"x" * 1000)
    with pytest.raises(ringpost.Full, match="no room for more; its consumers"):
        small.put_many([b"x" * 1000], block=False)


def test_looking_is_exact(make: MakeQueue) -> None:
    queue = make(3)
    for held in range(3):
        assert (queue.qsize(), queue.empty(), queue.full()) == (held, held == 0, False)
        queue.put(held)
    assert (queue.qsize(), queue.empty(), queue.full()) == (3, False, True)
    for left in (2, 1, 0):
        queue.get()
        assert (queue.qsize(), queue.empty(), queue.full()) == (left, left == 0, False)


@pytest.mark.parametrize("maxsize", [0, -1, -(2**31)])
def test_no_maxsize_is_no_bound_by_messages(make: MakeQueue, maxsize: int) -> None:
    queue = make(maxsize)
    assert queue.maxsize == 0
    for number in range(5000):
        queue.put_nowait(number)
    assert queue.qsize() == 5000
    assert not queue.full()


def test_capacity_is_a_bound(make: MakeQueue) -> None:
    queue = make(capacity=128 << 10)
    put = fill(queue, b"x" * 100)
    assert 400 < put < 1000
    assert queue.qsize() == put
    fill(queue, b"")
    assert queue.full()
    queue.get_nowait()
    queue.get_nowait()
    queue.put_nowait(b"x" * 100)


def test_a_timeout_is_waited_for(make: MakeQueue) -> None:
    queue = make(1)
    start = time.monotonic()
    with pytest.raises(standard.Empty):
        queue.get(timeout=0.15)
    assert time.monotonic() - start >= 0.149
    queue.put("x")
    start = time.monotonic()
    with pytest.raises(standard.Full):
        queue.put("y", timeout=0.15)
    assert time.monotonic() - start >= 0.149


@pytest.mark.parametrize("timeout", [-1, -0.001, float("-inf"), float("nan")])
def test_a_negative_timeout_is_refused(queue: Queue, timeout: float) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        queue.put("x", timeout=timeout)
    with pytest.raises(ValueError, match="non-negative"):
        queue.get(timeout=timeout)
    assert queue.qsize() == 0


def test_without_block_a_timeout_means_nothing(make: MakeQueue) -> None:
    queue = make(1)
    with pytest.raises(standard.Empty):
        queue.get(False, -1)
    queue.put("x", False, -1)
    with pytest.raises(standard.Full):
        queue.put("x", False, 1000)


@pytest.mark.parametrize("timeout", ["1", b"1", object(), [1]])
def test_a_timeout_is_a_number(queue: Queue, timeout: object) -> None:
    with pytest.raises(TypeError):
        queue.get(timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        queue.put("x", timeout=timeout)  # type: ignore[arg-type]


def test_arguments_have_the_standard_names_and_order(queue: Queue) -> None:
    queue.put(item="x", block=True, timeout=1)
    assert queue.get(block=True, timeout=1) == "x"
    queue.put("y", True, None)
    assert queue.get(True, None) == "y"


def test_iteration_ends_with_the_queue(queue: Queue) -> None:
    queue.put_many(range(3))
    queue.shutdown()
    assert list(queue) == [0, 1, 2]


def test_a_closed_handle_does_nothing(queue: Queue) -> None:
    queue.put("x")
    queue.close()
    queue.close()
    assert queue.closed
    for call in (queue.get, queue.get_nowait, queue.qsize, queue.empty, queue.full, queue.task_done):
        with pytest.raises(ValueError, match="closed"):
            call()
    for put in (queue.put, queue.put_nowait):
        with pytest.raises(ValueError, match="closed"):
            put("y")


def test_a_context_closes(make: MakeQueue) -> None:
    with make() as queue:
        queue.put("x")
        assert not queue.closed
    assert queue.closed


def test_the_names_of_multiprocessing_are_there(queue: Queue) -> None:
    queue.put("x")
    queue.close()
    queue.join_thread()
    queue.cancel_join_thread()


def test_threads_share_a_queue(make: MakeQueue) -> None:
    queue = make(10)
    each, threads = 500, 4
    taken: list[list[tuple[int, int]]] = [[] for _ in range(threads)]

    def put(who: int) -> None:
        for number in range(each):
            queue.put([who, number])

    def take(into: list[tuple[int, int]]) -> None:
        for _ in range(each):
            who, number = queue.get()
            into.append((who, number))

    workers = [threading.Thread(target=put, args=(who,)) for who in range(threads)]
    workers += [threading.Thread(target=take, args=(into,)) for into in taken]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(one for into in taken for one in into) == [
        (who, number) for who in range(threads) for number in range(each)
    ]
    for into in taken:  # of one producer, each taker sees rising numbers
        for who in range(threads):
            numbers = [number for by, number in into if by == who]
            assert numbers == sorted(numbers)
