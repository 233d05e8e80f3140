"""Containers that share a disk: one pid namespace and one shared memory at a time, or refused with the
reason."""

from __future__ import annotations

import json
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conformance.patience import Call
from crash.children import Flag, Nursery
from crash.namespaces import (
    Container,
    bind,
    mount_tmpfs,
    new_mount_namespace,
    skip_without_mounts,
    skip_without_pid_namespaces,
)

import ringpost
from ringpost.store import domain

BOUND = 10.0
Attempt = Callable[[], None]


@pytest.fixture
def fork() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


def used(url: str) -> Attempt:
    def use() -> None:
        with ringpost.connect(url) as broker:
            queue = broker.queue("jobs")
            queue.put("x")
            assert queue.get(timeout=BOUND) == "x"

    return use


def refused(url: str, *texts: str) -> Attempt:
    def attempt() -> None:
        with pytest.raises(ringpost.Unsupported) as caught:
            ringpost.connect(url).queue("jobs")
        for text in texts:
            assert text in str(caught.value)

    return attempt


def held_open(url: str, opened: Flag) -> Attempt:
    def hold() -> None:
        queue = ringpost.connect(url).queue("jobs")
        opened.set()
        signal.pause()
        del queue

    return hold


# ---- pid namespaces ----------------------------------------------------------------------------


@pytest.fixture
def pid_namespaces() -> None:
    skip_without_pid_namespaces()


@pytest.mark.usefixtures("pid_namespaces")
def test_another_pid_namespace_is_refused(url: str, fork: Nursery) -> None:
    """In both directions, and only as long as somebody has it open; the other ones go on."""
    opened = Flag()
    inside = Container(fork, held_open(url, opened))
    opened.wait()
    advice = ("--pid=container:NAME", "shareProcessNamespace")
    outside = fork(refused(url, f"open in another pid namespace, by process {inside.pid}", *advice))
    assert outside.wait() == 0
    inside.kill()
    opened = Flag()
    holder = fork(held_open(url, opened))
    opened.wait()
    told = refused(url, f"by process {holder.pid} of another pid namespace", *advice)
    assert Container(fork, told).outside.wait() == 0
    assert fork(used(url)).wait() == 0  # one of the same
    holder.kill()
    assert Container(fork, used(url)).outside.wait() == 0
    ringpost.connect(url).destroy()


@pytest.mark.usefixtures("pid_namespaces")
def test_a_child_in_another_pid_namespace_is_refused(durable: ringpost.Broker, fork: Nursery) -> None:
    """It has the handle, and its parent goes on."""
    queue = durable.queue("jobs")

    def use() -> None:
        with pytest.raises(ringpost.Unsupported, match="another pid namespace"):
            queue.put("x")

    assert Container(fork, use).outside.wait() == 0
    while not queue.empty():  # it is in the ring, and not confirmed
        queue.get_nowait()
    queue.put("mine")
    assert queue.get(timeout=BOUND) == "mine"


@pytest.mark.usefixtures("pid_namespaces")
@pytest.mark.timeout(60)
def test_two_at_the_same_moment(url: str, fork: Nursery) -> None:
    """One gets in, one does not; never both, never neither."""
    assert fork(used(url)).wait() == 0
    for _ in range(15):
        start, both = Flag(), [Flag(), Flag()]
        results = [Flag(), Flag()]

        def race(which: int, start: Flag = start, both: list = both, results: list = results) -> None:
            start.wait()
            try:
                queue = ringpost.connect(url).queue("jobs")
                results[which].set()
            except ringpost.Unsupported:
                queue = None
            both[which].set()
            both[not which].wait()
            del queue

        racers = [Container(fork, lambda which=which: race(which)) for which in range(2)]
        for racer in racers:
            racer.started.wait()
        start.set()
        assert [racer.outside.wait() for racer in racers] == [0, 0]
        assert bool(results[0]) != bool(results[1])
    ringpost.connect(url).destroy()


@pytest.mark.parametrize(
    "left", [b'{"pid_namespace": 1, "memory": [1, 2], "memory_path": "/x", "pid": 3}', os.urandom(1024), b""]
)
def test_what_the_dead_wrote_does_not_count(url: str, place: Path, fork: Nursery, left: bytes) -> None:
    """As after a reboot, when numbers of namespaces mean others: also noise."""

    def put() -> None:
        ringpost.connect(url).queue("jobs").put("stored")

    def get() -> None:
        assert ringpost.connect(url).queue("jobs").get(timeout=BOUND) == "stored"
        told = json.loads((place / domain.NAME).read_bytes())
        assert told["pid_namespace"] == os.stat("/proc/self/ns/pid").st_ino
        ringpost.connect(url).destroy()

    assert fork(put).wait() == 0
    (place / domain.NAME).write_bytes(left)
    assert fork(get).wait() == 0


def test_a_damaged_word_of_the_living_is_refused(url: str, place: Path, fork: Nursery) -> None:
    opened = Flag()
    holder = fork(held_open(url, opened))
    opened.wait()
    (place / domain.NAME).write_bytes(b"noise")
    assert fork(refused(url, "its file domain is damaged")).wait() == 0
    holder.kill()
    assert fork(used(url)).wait() == 0
    ringpost.connect(url).destroy()


# ---- shared memory -----------------------------------------------------------------------------


def test_another_shared_memory_is_refused(url: str, fork: Nursery, tmp_path: Path) -> None:
    """Containers that share the disk, but not /dev/shm, would make two rings for one queue."""
    skip_without_mounts(str(tmp_path))
    opened = Flag()
    holder = fork(held_open(url, opened))
    opened.wait()
    shm = os.environ["RINGPOST_SHM_DIR"]

    def elsewhere(attempt: Attempt) -> None:
        mount_tmpfs(shm, "size=64m,mode=700")
        attempt()

    told = (
        f"open with another shared memory, by process {holder.pid}",
        "RINGPOST_SHM_DIR",
        "--ipc=container",
    )
    assert fork(elsewhere, refused(url, *told)).wait() == 0
    holder.kill()
    assert fork(elsewhere, used(url)).wait() == 0
    assert fork(used(url)).wait() == 0
    ringpost.connect(url).destroy()


def test_one_directory_by_two_names(url: str, place: Path, fork: Nursery, tmp_path: Path) -> None:
    """A bind mount, or a link: it is the same broker."""
    skip_without_mounts(str(tmp_path))
    with ringpost.connect(url) as broker:
        broker.queue("jobs").put("from the first name")
        other, link = tmp_path / "other", tmp_path / "link"
        other.mkdir(mode=0o700)
        link.symlink_to(place)

        def use(by: Path) -> None:
            if by == other:
                new_mount_namespace()
                bind(str(place), str(other))
            queue = ringpost.connect(f"ring://{by}").queue("jobs")
            assert queue.get(timeout=BOUND) == "from the first name"
            queue.put("from the first name")

        for by in (other, link, other):
            assert fork(use, by).wait() == 0
        assert broker.queue("jobs").get(timeout=BOUND) == "from the first name"
        broker.destroy()


# ---- how it ends -------------------------------------------------------------------------------


@contextmanager
def left_by_its_parent(fork: Nursery, use: Callable[[], object]) -> Iterator[None]:
    """A child that does nothing was forked by a process that did this, and was killed then."""
    pid = memoryview(mmap.mmap(-1, 8)).cast("Q")

    def be_parent() -> None:
        kept = use()
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            signal.pause()
        pid[0] = child
        signal.pause()
        del kept  # until now

    parent = fork(be_parent)
    while not pid[0]:
        time.sleep(0.01)
    parent.kill()
    try:
        yield
    finally:
        os.kill(pid[0], signal.SIGKILL)


@pytest.mark.usefixtures("pid_namespaces")
def test_a_forked_child_that_uses_nothing_keeps_nobody_out(url: str, fork: Nursery) -> None:
    def open_queue() -> object:
        queue = ringpost.connect(url).queue("jobs")
        queue.qsize()
        return queue

    with left_by_its_parent(fork, open_queue):
        assert Container(fork, used(url)).outside.wait() == 0
    ringpost.connect(url).destroy()


# ---- who makes its files -----------------------------------------------------------------------


def test_who_waited_for_one_that_destroyed_it_locks_the_next_one(tmp_path: Path) -> None:
    """Else two could be at it: one with the lock that is gone, one with the new one."""
    first = domain.lock_makers(tmp_path, 0o600, tmp_path, BOUND)
    waiting = Call(domain.lock_makers, tmp_path, 0o600, tmp_path, BOUND)
    assert waiting.is_blocked()
    (tmp_path / "domain").unlink()
    second = domain.lock_makers(tmp_path, 0o600, tmp_path, BOUND)
    domain.unlock_makers(first)
    assert waiting.is_blocked()
    domain.unlock_makers(second)
    domain.unlock_makers(waiting.result())
    assert os.listdir(tmp_path) == ["domain"]


def test_two_that_make_the_lock_have_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, locks = os.link, list[int]()

    def be_late(*names: object) -> None:
        monkeypatch.setattr(os, "link", original)
        locks.append(domain.lock_makers(tmp_path, 0o600, tmp_path, BOUND))
        original(*names)

    monkeypatch.setattr(os, "link", be_late)
    late = Call(domain.lock_makers, tmp_path, 0o600, tmp_path, BOUND)
    assert late.is_blocked()
    domain.unlock_makers(locks[0])
    domain.unlock_makers(late.result())
    assert os.listdir(tmp_path) == ["domain"]


def test_a_child_that_was_forked_meanwhile_keeps_nobody_waiting(tmp_path: Path, fork: Nursery) -> None:
    """Its parent died."""
    with left_by_its_parent(fork, lambda: domain.lock_makers(tmp_path, 0o600, tmp_path, BOUND)):
        domain.unlock_makers(domain.lock_makers(tmp_path, 0o600, tmp_path, 1.0))


def test_a_maker_that_does_not_run(tmp_path: Path) -> None:
    lock = domain.lock_makers(tmp_path, 0o600, tmp_path, BOUND)
    with pytest.raises(ringpost.Stalled, match=f"makes the broker in {tmp_path}.*continue or kill it"):
        domain.lock_makers(tmp_path, 0o600, tmp_path, 0.1)
    domain.unlock_makers(lock)
