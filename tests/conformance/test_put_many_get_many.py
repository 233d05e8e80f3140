"""put_many and get_many: order, limits, and what is left when a batch does not fit."""

from __future__ import annotations

import queue as standard
import time
from collections.abc import Iterator
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue
from conformance.patience import BOUND, Call

Queue = ringpost.Queue[Any]

SMALLEST = 128 << 10
DEFAULT_LIMIT = 1024


def drained(queue: Queue) -> list[Any]:
    """One by one, so that it says nothing about get_many."""
    return [queue.get_nowait() for _ in range(queue.qsize())]


# ---- putting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 1023, 1024, 1025, 20_000])
def test_a_batch_keeps_its_order(queue: Queue, count: int) -> None:
    assert queue.put_many(range(count)) == count
    assert queue.qsize() == count
    assert drained(queue) == list(range(count))


def test_batches_and_singles_keep_their_order(queue: Queue) -> None:
    queue.put(0)
    queue.put_many([1, 2, 3])
    queue.put(4)
    queue.put_many([5])
    assert drained(queue) == list(range(6))


@pytest.mark.parametrize("items", [[], (), "", {}], ids=repr)
def test_an_empty_batch_puts_nothing(queue: Queue, items: Any) -> None:
    assert queue.put_many(items) == 0
    assert queue.empty()


def test_an_empty_batch_needs_no_room(make: MakeQueue) -> None:
    queue = make(1)
    queue.put("only")
    assert queue.put_many([], block=False) == 0
    assert drained(queue) == ["only"]


@pytest.mark.parametrize(
    ("items", "put"),
    [
        ("abc", ["a", "b", "c"]),
        (b"\x01\x02", [1, 2]),
        ({"key": 1, "other": 2}, ["key", "other"]),
        ({1: None}.keys(), [1]),
        (range(3, 0, -1), [3, 2, 1]),
    ],
    ids=["str", "bytes", "dict", "keys", "range"],
)
def test_a_batch_is_any_iterable(queue: Queue, items: Any, put: list[Any]) -> None:
    assert queue.put_many(items) == len(put)
    assert drained(queue) == put


def test_a_batch_may_be_used_up_on_the_way(queue: Queue) -> None:
    assert queue.put_many(number * number for number in range(4)) == 4
    assert queue.put_many(map(str, range(2))) == 2
    assert drained(queue) == [0, 1, 4, 9, "0", "1"]


@pytest.mark.parametrize("items", [None, 1, object()], ids=["None", "int", "object"])
def test_a_batch_is_an_iterable(queue: Queue, items: Any) -> None:
    with pytest.raises(TypeError):
        queue.put_many(items)
    assert queue.empty()


def test_arguments_have_the_standard_names(make: MakeQueue) -> None:
    queue = make(1)
    assert queue.put_many(items=["x"], block=True, timeout=1) == 1
    with pytest.raises(standard.Full):
        queue.put_many(["y"], False, 1000)
    assert queue.get_many(limit=1, block=True, timeout=1) == ["x"]


@pytest.mark.parametrize("maxsize", [1, 3, 4])
def test_what_fits_went_in_when_it_is_full(make: MakeQueue, maxsize: int) -> None:
    queue = make(maxsize)
    with pytest.raises(standard.Full) as raised:
        queue.put_many(range(5), block=False)
    assert raised.value.put == maxsize  # type: ignore[attr-defined]
    assert drained(queue) == list(range(maxsize))


def test_a_batch_of_exactly_maxsize_fits(make: MakeQueue) -> None:
    queue = make(5)
    assert queue.put_many(range(5), block=False) == 5
    assert queue.full()


def test_what_fits_went_in_when_the_bytes_are_full(make: MakeQueue) -> None:
    queue = make(capacity=SMALLEST)
    with pytest.raises(standard.Full) as raised:
        queue.put_many((str(number).ljust(1000) for number in range(1000)), block=False)
    put = raised.value.put  # type: ignore[attr-defined]
    assert 40 <= put <= 64
    assert [int(text) for text in drained(queue)] == list(range(put))


def test_a_batch_waits_for_its_time_at_least(make: MakeQueue) -> None:
    queue = make(2)
    start = time.monotonic()
    with pytest.raises(standard.Full) as raised:
        queue.put_many(range(5), timeout=0.15)
    assert time.monotonic() - start >= 0.149
    assert raised.value.put == 2  # type: ignore[attr-defined]
    assert drained(queue) == [0, 1]


def test_a_batch_goes_in_bit_by_bit_as_room_comes(make: MakeQueue) -> None:
    queue = make(3)
    waiting = Call(queue.put_many, range(100))
    assert waiting.is_blocked()
    assert [queue.get(timeout=BOUND) for _ in range(100)] == list(range(100))
    assert waiting.result() == 100


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_negative_timeout_is_refused(queue: Queue, timeout: float) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        queue.put_many(["x"], timeout=timeout)
    with pytest.raises(ValueError, match="non-negative"):
        queue.get_many(timeout=timeout)
    assert queue.empty()


def test_a_generator_that_fails_is_heard(queue: Queue) -> None:
    class Broken(Exception):
        pass

    def items() -> Iterator[int]:
        yield from range(5000)
        raise Broken

    with pytest.raises(Broken) as raised:
        queue.put_many(items())
    put = raised.value.put  # type: ignore[attr-defined]
    assert put <= 5000
    assert drained(queue) == list(range(put))
    assert queue.put_many([1, 2]) == 2


def test_an_item_that_cannot_be_encoded_is_heard(queue: Queue) -> None:
    def local() -> None: ...

    with pytest.raises(ringpost.EncodeError) as raised:
        queue.put_many([0, 1, local, 3])
    put = raised.value.put  # type: ignore[attr-defined]
    assert put <= 2
    assert drained(queue) == list(range(put))


def test_an_item_that_can_never_fit_is_heard(make: MakeQueue) -> None:
    queue = make(capacity=SMALLEST)
    with pytest.raises(ringpost.MessageTooLarge) as raised:
        queue.put_many([b"0", b"1", bytes(SMALLEST), b"3"])
    put = raised.value.put  # type: ignore[attr-defined]
    assert put <= 2
    assert drained(queue) == [b"0", b"1"][:put]


def test_items_may_come_out_of_the_queue_itself(make: MakeQueue) -> None:
    queue = make(4)
    queue.put_many(range(4))
    assert queue.put_many(queue.get() for _ in range(4)) == 4
    assert drained(queue) == list(range(4))


def test_items_may_put_others_on_their_way(queue: Queue) -> None:
    def items() -> Iterator[str]:
        for number in range(3):
            queue.put(f"put {number}")
            yield f"given {number}"

    assert queue.put_many(items()) == 3
    taken = drained(queue)
    assert [item for item in taken if item.startswith("put")] == ["put 0", "put 1", "put 2"]
    assert [item for item in taken if item.startswith("given")] == ["given 0", "given 1", "given 2"]


# ---- getting -------------------------------------------------------------------------------------


def test_limits(queue: Queue) -> None:
    queue.put_many(range(2000))
    assert queue.get_many(1) == [0]
    assert queue.get_many(0) == []
    assert queue.get_many(3) == [1, 2, 3]
    assert queue.get_many() == list(range(4, 4 + DEFAULT_LIMIT))
    assert queue.get_many(None) == list(range(4 + DEFAULT_LIMIT, 2000))
    assert queue.empty()


@pytest.mark.parametrize("limit", [5000, 2**32 - 1, 2**32, 2**64, 10**30])
def test_a_limit_above_what_is_there(queue: Queue, limit: int) -> None:
    queue.put_many(range(5000))
    assert queue.get_many(limit) == list(range(5000))


@pytest.mark.parametrize("limit", [-1, -(2**40)])
def test_a_negative_limit_is_refused(queue: Queue, limit: int) -> None:
    queue.put("x")
    with pytest.raises(ValueError, match="non-negative"):
        queue.get_many(limit)
    assert drained(queue) == ["x"]


@pytest.mark.parametrize("limit", ["1", b"1", [1], object()], ids=["str", "bytes", "list", "object"])
def test_a_limit_is_a_number(queue: Queue, limit: Any) -> None:
    queue.put("x")
    with pytest.raises(TypeError):
        queue.get_many(limit)
    assert drained(queue) == ["x"]


def test_a_limit_of_nothing_does_not_wait(queue: Queue) -> None:
    assert Call(queue.get_many, 0).result() == []


def test_it_waits_for_the_first_only(queue: Queue) -> None:
    queue.put("x")
    assert Call(queue.get_many, 10).result() == ["x"]


def test_a_put_ends_a_waiting_batch(queue: Queue) -> None:
    waiting = Call(queue.get_many, 10)
    assert waiting.is_blocked()
    queue.put("x")
    assert waiting.result() == ["x"]


def test_batches_get_every_item_once(queue: Queue) -> None:
    waiting = [Call(queue.get_many, 1) for _ in range(6)]
    assert all(one.is_blocked() for one in waiting)
    queue.put_many(range(6))
    assert sorted(item for one in waiting for item in one.result()) == list(range(6))


def test_a_batch_makes_room_for_every_waiting_put(make: MakeQueue) -> None:
    queue = make(4)
    queue.put_many(["first"] * 4)
    waiting = [Call(queue.put, number) for number in range(4)]
    assert all(one.is_blocked() for one in waiting)
    assert queue.get_many(4) == ["first"] * 4
    for one in waiting:
        one.result()
    assert sorted(drained(queue)) == list(range(4))


def test_an_empty_queue_has_no_batch(queue: Queue) -> None:
    with pytest.raises(standard.Empty):
        queue.get_many(block=False)
    with pytest.raises(standard.Empty):
        queue.get_many(5, False, -1)
    with pytest.raises(standard.Empty):
        queue.get_many(timeout=0)
    start = time.monotonic()
    with pytest.raises(standard.Empty):
        queue.get_many(5, timeout=0.15)
    assert time.monotonic() - start >= 0.149


# ---- large and small together --------------------------------------------------------------------

MIXTURES = {
    "large only": [20_000, 30_000, 17_000],
    "large first": [20_000, 1, 2, 3],
    "large last": [1, 2, 3, 20_000],
    "large between": [1, 2, 20_000, 3, 30_000, 30_001, 4],
    "at the edge": [16_300, 16_384, 16_385, 16_400, 16_384],
    "empty ones": [0, 20_000, 0, 0, 20_000, 0],
}


@pytest.mark.parametrize("sizes", MIXTURES.values(), ids=MIXTURES)
def test_mixtures_keep_their_order(make: MakeQueue, sizes: list[int]) -> None:
    queue = make(capacity=1 << 20)
    items = [bytes([number]) * size for number, size in enumerate(sizes)]
    assert queue.put_many(items) == len(items)
    assert queue.qsize() == len(items)
    taken: list[bytes] = []
    while not queue.empty():
        batch = queue.get_many(block=False)
        assert batch
        taken += batch
    assert taken == items


def test_a_large_item_comes_in_a_batch_of_its_own(make: MakeQueue) -> None:
    queue = make(capacity=1 << 20)
    large = bytes(20_000)
    queue.put_many([b"a", b"b", large, b"c"])
    assert queue.get_many() == [b"a", b"b"]
    assert queue.get_many(1) == [large]
    assert queue.get_many() == [b"c"]


@pytest.mark.parametrize("capacity", [SMALLEST, 1 << 20])
def test_one_item_may_fill_the_pool(make: MakeQueue, capacity: int) -> None:
    queue = make(capacity=capacity)
    large = bytes(queue.capacity // 2 - 256)
    for _ in range(3):
        assert queue.put_many([b"before", large, b"after"], block=False) == 3
        with pytest.raises(standard.Full):
            queue.put_nowait(bytes(20_000))
        assert drained(queue) == [b"before", large, b"after"]


def test_a_batch_stops_where_the_pool_is_full(make: MakeQueue) -> None:
    queue = make(capacity=SMALLEST)
    large = bytes(30_000)
    with pytest.raises(standard.Full) as raised:
        queue.put_many([b"first", large, b"second", large, large, b"third"], block=False)
    assert raised.value.put == 3 + 1  # type: ignore[attr-defined]
    assert drained(queue) == [b"first", large, b"second", large]


def test_a_batch_of_large_items_goes_through_a_small_queue(make: MakeQueue) -> None:
    queue = make(capacity=SMALLEST)
    items = [bytes([number]) * (number * 1000) for number in range(50)]
    waiting = Call(queue.put_many, items, timeout=BOUND)
    taken: list[bytes] = []
    while len(taken) < len(items):
        taken += queue.get_many(7, timeout=BOUND)
    assert taken == items
    assert waiting.result() == len(items)


def test_maxsize_counts_large_items_too(make: MakeQueue) -> None:
    queue = make(2, capacity=1 << 20)
    with pytest.raises(standard.Full) as raised:
        queue.put_many([bytes(20_000)] * 3, block=False)
    assert raised.value.put == 2  # type: ignore[attr-defined]
    assert queue.qsize() == 2
    assert queue.full()


# ---- threads -------------------------------------------------------------------------------------


def test_threads_with_batches_lose_nothing(make: MakeQueue) -> None:
    queue = make(50)
    producers, each = 3, 2000

    def produce(who: int) -> None:
        for first in range(0, each, 40):
            queue.put_many([[who, number] for number in range(first, first + 40)], timeout=BOUND)

    def consume() -> list[list[int]]:
        taken: list[list[int]] = []
        while True:
            try:
                taken += queue.get_many(30, timeout=BOUND)
            except ringpost.ShutDown:
                return taken

    consumers = [Call(consume) for _ in range(3)]
    for one in [Call(produce, who) for who in range(producers)]:
        one.result()
    queue.shutdown()
    lots = [one.result() for one in consumers]
    assert sorted(item for lot in lots for item in lot) == [
        [who, number] for who in range(producers) for number in range(each)
    ]
    for lot in lots:
        for who in range(producers):
            numbers = [number for by, number in lot if by == who]
            assert numbers == sorted(numbers)
