"""Where it was measured: numbers mean little without."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def load() -> float:
    """The load average of the last minute: what else the machine does."""
    return os.getloadavg()[0]


def describe() -> dict[str, object]:
    """The machine, for the JSON."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return "unknown"
