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
        "cpu": _line_of("/proc/cpuinfo", ("model name", "Model")),
        "cores": cores(),
        "memory": _line_of("/proc/meminfo", ("MemTotal",)),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _line_of(file: str, keys: tuple[str, ...]) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return "unknown"
