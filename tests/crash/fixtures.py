"""For the conftest.py of whoever forks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from crash.children import Nursery


@pytest.fixture
def fork() -> Iterator[Nursery]:
    """fork(function, *arguments) runs it in a child; what still runs at the end is killed."""
    with Nursery() as nursery:
        yield nursery
