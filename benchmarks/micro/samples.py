"""What is put: one of each kind, and how many of it fit well into a queue with default settings."""

from __future__ import annotations

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Sample:
    """A kind of message."""

    name: str
    item: object
    count: int = 1000


SMALL = Sample("bytes-64", bytes(range(64)))

SAMPLES = (
    SMALL,
    Sample("str", "the quick brown fox jumps over the lazy dog, and once more"),
    Sample("dict", {"id": 4711, "path": "/var/log/syslog", "size": 123456, "tags": ["a", "b"]}),
    Sample("bytes-1MiB", bytes(range(256)) * 4096, count=5),
)

each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=[sample.name for sample in SAMPLES])
