"""Messages have filled the disk: consuming them makes room again, and what was decided is carried out."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.patience import BOUND
from crash.children import Nursery
from crash.fixtures import fork as fork
from crash.namespaces import mount_tmpfs, skip_without_mounts

import ringpost
from durable.conftest import lose_shared_memory
from ringpost.store import transactions
from ringpost.store.writer import _Plan

DISK = 16 << 20  # bytes
SIZES = (100, 3000, 40_000)


@pytest.fixture
def on_small_disk(place: Path, fork: Nursery) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Do this in a child, with a disk of its own for the broker."""
    skip_without_mounts(str(place.parent))

    def do(what: Callable[[], None]) -> None:
        def in_child() -> None:
            mount_tmpfs(str(place.parent), f"size={DISK},mode=700")
            what()

        assert fork(in_child).wait() == 0

    return do


def body(number: int) -> bytes:
    return b"%d " % number + bytes(SIZES[number % len(SIZES)])


def fill(queue: ringpost.Queue[bytes], first: int = 0) -> int:
    """How many were put, the last of them in vain: it is in the queue, and not confirmed."""
    for number in range(first, 1_000_000):
        try:
            queue.put(body(number), durability="commit", timeout=BOUND)
        except ringpost.StorageFailed as error:
            if error.errno != errno.ENOSPC:
                raise
            return number + 1 - first
    raise AssertionError("it never gets full")


def drain(queue: ringpost.Queue[bytes], limit: int = 50) -> list[bytes]:
    found: list[bytes] = []
    with queue.consumer() as consumer, contextlib.suppress(ringpost.Empty):
        while True:
            messages = consumer.receive_many(limit, timeout=0)
            found += [message.body for message in messages]
            consumer.ack_many(messages)
    return found


@pytest.mark.parametrize("level", ["memory", "interval", "commit"])
def test_it_can_be_emptied_again_and_again(url: str, on_small_disk: Any, level: Any) -> None:
    def run() -> None:
        with ringpost.connect(url) as broker:
            queue, other = (broker.queue(name, capacity=1 << 20, durability=level) for name in ("a", "b"))
            other.put(b"it holds nothing up", durability="commit")
            put = []
            for turn in range(4):
                put.append(fill(queue, turn))
                assert drain(queue) == [body(number) for number in range(turn, turn + put[-1])]
                queue.flush(BOUND)
            assert min(put) > put[0] / 3  # what is freed lies in pieces
            assert other.get(timeout=BOUND) == b"it holds nothing up"
            broker.destroy()

    on_small_disk(run)


def test_it_can_be_emptied_by_who_comes_later(
    url: str, shm_dir: Path, on_small_disk: Any, fork: Nursery
) -> None:
    """The process that has filled it was killed, and the machine has rebooted."""

    def run() -> None:
        with ringpost.connect(url) as broker:
            put = fill(broker.queue("jobs", capacity=1 << 20))
        lose_shared_memory(shm_dir)
        with ringpost.connect(url) as broker:
            queue = broker.queue("jobs")
            assert drain(queue) in ([body(number) for number in range(put + more)] for more in (-1, 0))
            assert fill(queue) > put / 3
            broker.destroy()

    on_small_disk(run)


def test_a_transaction_is_refused_before_it_is_decided(url: str, on_small_disk: Any) -> None:
    def run() -> None:
        with ringpost.connect(url) as broker:
            jobs = broker.queue("jobs", capacity=1 << 20)
            put = fill(jobs)
            with jobs.consumer() as consumer:
                message = consumer.receive(BOUND)
                tx = broker.transaction()
                tx.ack(message)
                tx.send("results", bytes(1 << 20))
                with pytest.raises(ringpost.StorageFailed, match="consume messages"):
                    tx.__exit__(None, None, None)
            assert len(drain(jobs)) == put
            with broker.transaction() as tx:
                tx.send("results", bytes(1 << 20))
            assert broker.queue("results").get(timeout=BOUND) == bytes(1 << 20)
            broker.destroy()

    on_small_disk(run)


def test_what_was_decided_is_carried_out(
    url: str, on_small_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anybody makes room: the rest of the disk is for that, too."""
    put_them, failures = transactions._put, [ringpost.StorageFailed(errno.ENOSPC, "the disk is full")]

    def put_in_vain(*args: Any) -> None:
        if failures:
            raise failures.pop()
        put_them(*args)

    def run() -> None:
        with ringpost.connect(url) as broker:
            jobs, results = broker.queue("jobs", capacity=1 << 20), broker.queue("results", capacity=1 << 20)
            jobs.put(b"first")
            message = jobs.consumer().receive(BOUND)
            monkeypatch.setattr(transactions, "_put", put_in_vain)
            with broker.transaction() as tx:
                tx.ack(message)
                tx.send(results, b"its result")
            assert results.empty()
            put = fill(results)
            found = drain(results)
            while b"its result" not in found:
                found.append(results.get(timeout=BOUND))
            assert sorted(found) == sorted([b"its result", *map(body, range(put))])
            assert jobs.empty()
            broker.destroy()

    on_small_disk(run)


def test_what_is_kept_aside_leaves_the_rest(url: str, on_small_disk: Any) -> None:
    def run() -> None:
        with ringpost.connect(url) as broker:
            jobs, prices = broker.queue("jobs", capacity=1 << 20), broker.topic("prices", capacity=1 << 20)
            put = fill(jobs)
            for more in (
                lambda: jobs.producer().send(bytes(300_000), delay=100),
                lambda: prices.publish(bytes(300_000), subject="a", retain=True),
            ):
                with pytest.raises(ringpost.StorageFailed, match="consume messages"):  # noqa: PT012
                    for _ in range(10):
                        more()
            assert len(drain(jobs)) == put
            jobs.put(b"there is room again")
            broker.destroy()

    on_small_disk(run)


def test_others_have_filled_it(url: str, place: Path, on_small_disk: Any) -> None:
    """To the last byte: only they can make room. What is there can be taken meanwhile."""

    def run() -> None:
        filler = place.parent / "filler"
        with ringpost.connect(url) as broker:
            queue = broker.queue("jobs", capacity=1 << 20)
            for number in range(100):
                queue.put(body(number))
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            put = fill(queue, 100)
            assert drain(queue) == [body(number) for number in range(100 + put)]
            filler.unlink()
            queue.put(b"there is room again")
            assert queue.get(timeout=BOUND) == b"there is room again"
            broker.destroy()

    on_small_disk(run)


@pytest.mark.parametrize("at", ["store", "remember"])
def test_who_stores_acks_on_a_full_disk_is_killed(
    url: str, shm_dir: Path, on_small_disk: Any, at: str
) -> None:
    """Before LMDB's commit, or right behind it; then the machine reboots. What was confirmed is there, or
    acked; and it can be emptied again."""

    def take_some_and_die(pipe: int) -> None:
        queue = ringpost.connect(url).queue("jobs")
        with queue.consumer() as consumer:
            messages = consumer.receive_many(300, timeout=BOUND)
            os.write(pipe, b"%d" % len(messages))
            real = getattr(_Plan, at)

            def die(self: _Plan, *args: Any) -> None:
                real(self, *args)
                os.kill(os.getpid(), signal.SIGKILL)

            setattr(_Plan, at, die)
            consumer.ack_many(messages)
            queue.flush(BOUND)

    def run() -> None:
        with ringpost.connect(url) as broker:
            put = fill(broker.queue("jobs", capacity=1 << 20))
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            take_some_and_die(writing)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        acked = int(os.read(reading, 100))
        lose_shared_memory(shm_dir)
        with ringpost.connect(url) as broker:
            queue = broker.queue("jobs")
            found = drain(queue)
            begins = acked if at == "remember" else 0
            assert found in ([body(number) for number in range(begins, put + more)] for more in (-1, 0))
            assert fill(queue) > put / 3
            broker.destroy()

    on_small_disk(run)
