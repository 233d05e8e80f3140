"""Containers with little memory: an error that says so, before the out-of-memory killer comes; and whom it
kills has promised nothing that is not kept."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringpost
from crash.children import Flag, Nursery
from crash.segment_file import SegmentFile, path_of
from ringpost.mounts import mounts

BOUND = 10.0
MiB = 1 << 20
LIMIT = 48 * MiB


def _parent_group() -> Path | None:
    """Where a control group with a limit of memory can be made."""
    for mount in mounts():
        point = Path(mount.point)
        if mount.kind == "cgroup" and "memory" in mount.options.split(","):
            return point
        if mount.kind == "cgroup2" and "memory" in _words(point / "cgroup.subtree_control"):
            return point
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group whose processes may have 48 MiB together."""
    parent = _parent_group()
    if parent is None:
        pytest.skip("no control group with the memory controller is mounted")
    group = parent / f"ringpost-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"making a control group is not permitted ({error}); root?")
    try:
        _limit(group)
        yield group
    finally:
        ringpost.connect("ring:limited").destroy()  # who was killed against expectation has left it
        deadline = time.monotonic() + BOUND
        while group.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                group.rmdir()  # as soon as its processes are gone
            time.sleep(0.01)


def _limit(group: Path) -> None:
    names = (
        ("memory.max", "memory.swap.max") if (group / "memory.max").exists() else ("memory.limit_in_bytes",)
    )
    (group / names[0]).write_text(str(LIMIT))
    for name in names[1:]:
        if (group / name).exists():
            (group / name).write_text("0")
    if (group / "memory.swappiness").exists():
        (group / "memory.swappiness").write_text("0")


def enter(group: Path) -> None:
    gc.disable()  # it would write to all that was inherited, and so make this process as large as its parent
    (group / "cgroup.procs").write_text(str(os.getpid()))


def eat() -> None:
    """Until the killer comes."""
    eaten = []
    while True:
        eaten.append(os.urandom(MiB))


def test_a_queue_that_is_larger_than_the_limit_allows(small_group: Path, fork: Nursery) -> None:
    def make() -> None:
        enter(small_group)
        broker = ringpost.connect("ring:limited")
        for attempt in (
            lambda: broker.queue("jobs", capacity=64 * MiB),
            lambda: broker.topic("news", capacity=64 * MiB),
            lambda: ringpost.Queue(capacity=64 * MiB),
        ):
            with pytest.raises(ringpost.SegmentFull) as caught:
                attempt()
            assert caught.value.errno == errno.ENOMEM
            for advice in ("limit", "48 MiB", "capacity", "--memory", "MemoryMax", "resources.limits"):
                assert advice in str(caught.value)
        queue = broker.queue("jobs", capacity=8 * MiB)
        queue.put(bytes(MiB))
        assert queue.get() == bytes(MiB)
        broker.destroy()

    assert fork(make).wait() == 0


FILL = """
import contextlib, os, sys
import ringpost

MiB = 1 << 20
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
broker = ringpost.connect("ring:limited")
queues = []
with contextlib.suppress(ringpost.SegmentFull):
    while len(queues) < 20:
        queues.append(broker.queue(f"jobs-{len(queues)}", capacity=4 * MiB))
assert 2 <= len(queues) < 20
for queue in queues:
    queue.put(bytes(MiB))
    assert queue.get() == bytes(MiB)
broker.destroy()
"""


def test_queues_until_the_limit_is_reached(small_group: Path) -> None:
    """Nobody is killed, and all can be filled. By a process that copies nothing of a large parent."""
    subprocess.run([sys.executable, "-c", FILL, str(small_group)], check=True, timeout=60)


@pytest.mark.parametrize("holds", ["lock", "messages", "loan"])
def test_killed_for_its_memory(broker: ringpost.Broker, small_group: Path, fork: Nursery, holds: str) -> None:
    """The others go on, whatever it had in its hands."""
    queue: ringpost.Queue[Any] = broker.queue("jobs", capacity=MiB)
    queue.put_many(["one", "two"])
    ready = Flag()

    def work() -> None:
        enter(small_group)
        if holds == "lock":
            segment = SegmentFile(path_of(queue))
            queue.qsize()
            segment["lock"] = segment.owner(os.getpid())
        elif holds == "messages":
            kept = [queue.consumer().receive(timeout=BOUND)]
        else:
            kept = [queue.producer().loan((100_000,), "uint8")]
        ready.set()
        eat()
        del kept

    victim = fork(work)
    ready.wait()
    assert victim.wait() == -signal.SIGKILL
    queue.put("three", timeout=BOUND)
    with queue.consumer() as consumer:
        bodies = []
        for _ in range(3):
            with consumer.receive(timeout=BOUND) as message:
                bodies.append(message.body)
    assert sorted(bodies) == ["one", "three", "two"]
    queue.put(bytes(queue.capacity // 2 - 20_000), block=False)  # all of the pool
