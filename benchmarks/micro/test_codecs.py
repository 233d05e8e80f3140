"""Objects to bytes and back, without any queue."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.micro.samples import Sample, each_sample
from benchmarks.micro.timing import calls
from ringpost.codecs import PickleCodec, StandardCodec

each_codec = pytest.mark.parametrize(
    "codec", [StandardCodec("micro"), PickleCodec("micro")], ids=["standard", "pickle"]
)


@each_codec
@each_sample
@pytest.mark.benchmark(group="encode: one message")
def test_encode(benchmark: Any, codec: Any, sample: Sample) -> None:
    """Before a put. The bindings skip it for bytes and ASCII str."""
    calls(benchmark, sample.count, codec.encode, sample.item)


@each_codec
@each_sample
@pytest.mark.benchmark(group="decode: one message")
def test_decode(benchmark: Any, codec: Any, sample: Sample) -> None:
    """After a get."""
    kind, buffer = codec.encode(sample.item)
    body = bytes(buffer)
    assert codec.decode(kind, body, 0) == sample.item
    calls(benchmark, sample.count, codec.decode, kind, body, 0)
