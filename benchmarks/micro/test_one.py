"""One message a call."""

from __future__ import annotations

from queue import Empty
from typing import Any

import pytest

from benchmarks.micro.samples import Sample, each_sample
from benchmarks.micro.timing import calls, rounds


@each_sample
@pytest.mark.benchmark(group="put, then get: one message")
def test_put_get(benchmark: Any, queue: Any, sample: Sample) -> None:
    """What a message costs both sides together, in the cache."""

    def put_get() -> object:
        queue.put(sample.item)
        return queue.get()

    assert put_get() == sample.item
    calls(benchmark, sample.count, put_get)


@each_sample
@pytest.mark.benchmark(group="put: 1000 messages, or 5 of 1 MiB")
def test_put(benchmark: Any, queue: Any, sample: Sample) -> None:
    """The putting side alone; emptied between the rounds."""

    def puts() -> None:
        for _ in range(sample.count):
            queue.put(sample.item)

    def empty() -> None:
        while not queue.empty():
            queue.get_many()

    rounds(benchmark, puts, before=empty)
    assert queue.qsize() == sample.count


@each_sample
@pytest.mark.benchmark(group="get: 1000 messages, or 5 of 1 MiB")
def test_get(benchmark: Any, queue: Any, sample: Sample) -> None:
    """The taking side alone; filled between the rounds."""

    def gets() -> None:
        for _ in range(sample.count):
            queue.get()

    def fill() -> None:
        queue.put_many([sample.item] * sample.count)

    rounds(benchmark, gets, before=fill)
    assert queue.empty()


@pytest.mark.benchmark(group="get_nowait: nothing there")
def test_get_nowait_empty(benchmark: Any, queue: Any) -> None:
    """What looking in vain costs, with the exception."""

    def look() -> None:
        try:
            queue.get_nowait()
        except Empty:
            pass

    calls(benchmark, 1000, look)
