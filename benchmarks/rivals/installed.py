"""What of the rivals is installed here."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from platform import python_version

from benchmarks.rivals.base import Rival


def why_not(rival: Rival) -> str | None:
    """Why this rival cannot be measured here; None if it can."""
    if find_spec(rival.module) is None:
        return f"not installed: pip install {rival.distribution}"
    if rival.program is not None and shutil.which(rival.program) is None:
        return f"not installed: the program {rival.program}"
    return None


@cache
def version_of(rival: Rival) -> str:
    """The version of the rival's program or distribution, or of Python."""
    if rival.program is not None:
        return rival.program_version() or _version_of_program(rival.program)
    if rival.distribution is None:
        return python_version()
    try:
        return version(rival.distribution)
    except PackageNotFoundError:  # run from its source tree
        return str(getattr(import_module(rival.module), "__version__", "?"))


def _version_of_program(program: str) -> str:
    if shutil.which(program) is None:
        return "?"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else "?"
