"""A place in shared memory that a test has for itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch, shm_dir: Path) -> Iterator[Path]:
    """RINGPOST_SHM_DIR for this test: empty, and taken away with all that was put there."""
    place = Path(tempfile.mkdtemp(prefix="own-", dir=shm_dir))
    monkeypatch.setenv("RINGPOST_SHM_DIR", str(place))
    yield place
    shutil.rmtree(place)
