"""Every test gets a fresh place in shared memory, and must leave neither a file nor a process behind."""

from __future__ import annotations

import faulthandler
import gc
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringpost

PATIENCE = 10.0  # seconds for what is on its way out to be gone

faulthandler.enable()


@pytest.fixture(scope="session", autouse=True)
def shm_dir() -> Iterator[Path]:
    """All queues of this session, its child processes' too, live below this directory."""
    place = Path(tempfile.mkdtemp(prefix="ringpost-tests-", dir="/dev/shm"))
    os.environ["RINGPOST_SHM_DIR"] = str(place)
    yield place
    del os.environ["RINGPOST_SHM_DIR"]
    shutil.rmtree(place)


@pytest.fixture(autouse=True)
def nothing_left_behind(shm_dir: Path) -> Iterator[None]:
    before = processes_of(shm_dir)
    yield
    deadline = time.monotonic() + PATIENCE
    while (left := leftovers(shm_dir, before)) and time.monotonic() < deadline:
        gc.collect()  # a traceback may hold a queue
        time.sleep(0.02)
    assert left == []


def leftovers(place: Path, before: set[int]) -> list[str]:
    files = [str(path) for path in place.rglob("*") if not path.is_dir()]
    processes = [describe(pid) for pid in sorted(processes_of(place) - before)]
    return files + processes


def processes_of(place: Path) -> set[int]:
    """Processes, other than this one, that inherited this session's environment or are our children."""
    mine = f"RINGPOST_SHM_DIR={place}".encode()
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = Path("/proc", entry, "environ").read_bytes().split(b"\0")
            parent = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue  # gone meanwhile
        if mine in environment or parent == os.getpid():
            found.add(int(entry))
    return found


def describe(pid: int) -> str:
    try:
        command = Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        command = "gone"
    return f"process {pid}: {command}"


@pytest.fixture
def broker(shm_dir: Path) -> Iterator[ringpost.Broker]:
    """A memory broker; with RINGPOST_TEST_BROKER=durable one that stores everything, so that each test
    becomes one of storage."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    is_durable = os.environ.get("RINGPOST_TEST_BROKER") == "durable"
    with ringpost.connect(f"ring://{shm_dir}/disk/{name}" if is_durable else f"ring:{name}") as fresh:
        yield fresh
        fresh.destroy()


@pytest.fixture
def queue(broker: ringpost.Broker) -> Iterator[ringpost.Queue[object]]:
    with broker.queue("jobs") as fresh:
        yield fresh
