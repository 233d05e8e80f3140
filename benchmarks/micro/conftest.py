"""Single calls in one process: what the library costs without any other side.

pytest benchmarks/micro
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import ringpost


@pytest.fixture
def queue() -> Iterator[Any]:
    """A named queue with default settings, gone afterwards."""
    with ringpost.connect(f"ring:micro-{os.getpid()}") as broker:
        try:
            yield broker.queue("micro")
        finally:
            broker.destroy()
