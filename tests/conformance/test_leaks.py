"""No call keeps memory, items or handles, whether it returns or raises."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue

Queue = ringpost.Queue[Any]

LARGE = bytes(20_000)
TIMES = 300
PER_CALL = 4  # bytes: the smallest leaked object has more


class Item:
    """Neither kind of queue can encode one that is local."""


def unencodable() -> object:
    class Local:
        pass

    return Local


UNENCODABLE = unencodable()


def raising(error: type[BaseException], function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    with contextlib.suppress(error):
        function(*args, **kwargs)
        raise AssertionError(f"{function} does not raise {error}")


def failing_items() -> Any:
    yield "x"
    raise ZeroDivisionError


def put_what_fails(queue: Queue) -> None:
    raising(ZeroDivisionError, queue.put_many, failing_items())


def put_and_get_batch(queue: Queue) -> None:
    queue.put_many(["x", {"key": 1}, LARGE, b"y"])
    while not queue.empty():
        queue.get_many()


def put_until_full(queue: Queue) -> None:
    raising(ringpost.Full, queue.put_many, range(12), block=False)
    queue.get_many()


USES: dict[str, Callable[[Queue], object]] = {
    "a str": lambda queue: (queue.put("x"), queue.get()),
    "bytes": lambda queue: (queue.put(b"x"), queue.get()),
    "a dict": lambda queue: (queue.put({"key": [1, 2]}), queue.get()),
    "a large one": lambda queue: (queue.put(LARGE), queue.get()),
    "batches": put_and_get_batch,
    "Empty": lambda queue: raising(ringpost.Empty, queue.get_nowait),
    "Empty of a batch": lambda queue: raising(ringpost.Empty, queue.get_many, block=False),
    "Empty at a timeout": lambda queue: raising(ringpost.Empty, queue.get, timeout=0.0001),
    "Full": put_until_full,
    "EncodeError": lambda queue: raising(ringpost.EncodeError, queue.put, UNENCODABLE),
    "EncodeError of a batch": lambda queue: (
        raising(ringpost.EncodeError, queue.put_many, [LARGE, UNENCODABLE]) or queue.get()
    ),
    "MessageTooLarge": lambda queue: raising(ringpost.MessageTooLarge, queue.put, bytes(1 << 20)),
    "items that fail": put_what_fails,
    "no items": lambda queue: raising(TypeError, queue.put_many, 5),
    "a negative limit": lambda queue: raising(ValueError, queue.get_many, -1),
    "a negative timeout": lambda queue: raising(ValueError, queue.get, timeout=-1),
    "no number": lambda queue: raising(TypeError, queue.put, "x", True, "soon"),
    "task_done": lambda queue: raising(ValueError, lambda: [queue.task_done() for _ in range(10_000)]),
    "join at a timeout": lambda queue: (
        queue.put("x"),
        raising(TimeoutError, queue.join, 0.0001),
        queue.get(),
    ),
    "looking": lambda queue: (queue.qsize(), queue.full(), queue.empty(), queue.maxsize, queue.is_shutdown),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_no_memory_is_kept(make: MakeQueue, use: Callable[[Queue], object]) -> None:
    queue = make(10, capacity=256 << 10)
    tracemalloc.start()
    try:
        for _ in range(20):
            use(queue)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(TIMES):
            use(queue)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < TIMES * PER_CALL, f"{kept} bytes after {TIMES} times"


@pytest.mark.parametrize("item", ["text", b"bytes", LARGE, [1, "x"], {"key": 1}], ids=lambda i: repr(i)[:9])
def test_no_reference_to_an_item_is_kept(queue: Queue, item: Any) -> None:
    item = item * 2 if not isinstance(item, dict) else dict(item)  # no constant, which others refer to
    before = sys.getrefcount(item)
    queue.put(item)
    queue.put_many([item, item])
    assert sys.getrefcount(item) == before
    assert [queue.get() for _ in range(3)] == [item] * 3
    assert sys.getrefcount(item) == before


@pytest.mark.parametrize("call", ["put", "put_many"])
def test_no_reference_is_kept_after_a_failure(queue: Queue, call: str) -> None:
    item = unencodable()
    gone = weakref.ref(item)
    raising(ringpost.EncodeError, getattr(queue, call), item if call == "put" else [item])
    del item
    gc.collect()
    assert gone() is None


def test_what_comes_back_belongs_to_the_caller_alone(queue: Queue) -> None:
    queue.put_many([[1, 2], b"some bytes", "some text", LARGE])
    for item in (queue.get(), queue.get(), queue.get(), queue.get()):
        assert sys.getrefcount(item) <= 4  # the tuple, the loop's variable, the argument; one to spare


def mappings() -> int:
    return sum(".queue" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_handle_goes_with_its_last_reference(make: MakeQueue) -> None:
    gc.collect()
    descriptors, mapped = len(os.listdir("/proc/self/fd")), mappings()
    for _ in range(5):
        queue = make(capacity=128 << 10)
        queue.put("x")
        log = weakref.ref(queue._log)
        queue.close()
        gc.collect()
        assert log() is None
    assert mappings() == mapped
    assert len(os.listdir("/proc/self/fd")) <= descriptors
