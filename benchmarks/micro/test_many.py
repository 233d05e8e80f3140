"""256 messages a call."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.micro.samples import SAMPLES, Sample
from benchmarks.micro.timing import calls

BATCH = 256

each_small_sample = pytest.mark.parametrize(
    "sample", [each for each in SAMPLES if each.count > BATCH], ids=lambda each: each.name
)


@each_small_sample
@pytest.mark.benchmark(group="put_many, then get_many: 256 messages")
def test_put_many_get_many(benchmark: Any, queue: Any, sample: Sample) -> None:
    """What a batch costs both sides together."""
    batch = [sample.item] * BATCH

    def put_get() -> object:
        queue.put_many(batch)
        return queue.get_many(BATCH)

    assert put_get() == batch
    calls(benchmark, 10, put_get)
