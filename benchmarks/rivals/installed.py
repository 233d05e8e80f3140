"""What of the rivals is installed here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from platform import python_version

from benchmarks.rivals.base import Rival


def why_not(rival: Rival) -> str | None:
    """Why this rival cannot be measured here; None if it can."""
    if find_spec(rival.module) is None:
        return f"not installed: pip install {rival.distribution}"
    return None


def version_of(rival: Rival) -> str:
    """The version of the rival's distribution, or of Python."""
    if rival.distribution is None:
        return python_version()
    try:
        return version(rival.distribution)
    except PackageNotFoundError:
        return "?"
