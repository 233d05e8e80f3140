"""kill -9 of producers, consumers and whoever commits, at random; reboots in between; full accounting.

Producers write down what was confirmed after put() returned, consumers what they handled before they ack.
Every line is one write to a file that outlives its process: what is written down has happened.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conformance.patience import BOUND
from crash.children import Nursery
from crash.fixtures import fork as fork
from crash.segment_file import SegmentFile, path_of

import ringpost
from durable.conftest import lose_shared_memory
from ringpost.store import environment

SMALL = 256 << 10  # bytes: a ring of 128 KiB, so that most is read from disk
LEAST = 15  # kills
LONGEST = 15.0  # seconds
SIZES = (10, 200, 3000, 40_000)


class Ledger:
    """Lines of numbers, appended by any process; what a kill tore counts for nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, *numbers: int) -> None:
        with self._path.open("ab", buffering=0) as file:
            file.write(b"\n" + b"".join(b"%d;\n" % number for number in numbers))

    def read(self) -> list[int]:
        lines = self._path.read_bytes().split() if self._path.exists() else []
        return [int(line[:-1]) for line in lines if line.endswith(b";")]


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: none outlives the test
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def produce(url: str, first: int, confirmed: Ledger, level: str) -> None:
    chance = random.Random(first)
    with ringpost.connect(url) as broker:
        queue = broker.queue("jobs", capacity=SMALL)
        number = first
        while True:
            batch = [number + i for i in range(chance.choice((1, 1, 1, 20)))]
            queue.put_many([body(each) for each in batch], durability=level)  # type: ignore[arg-type]
            confirmed.write(*batch)
            number += len(batch)


def body(number: int) -> bytes:
    return b"%d " % number + bytes(SIZES[number % len(SIZES)])


def consume(url: str, handled: Ledger) -> None:
    with ringpost.connect(url) as broker, broker.queue("jobs", capacity=SMALL).consumer() as consumer:
        while True:
            messages = consumer.receive_many(random.choice((1, 10, 50)))
            for message in messages:
                number = int(message.body.partition(b" ")[0])
                assert message.body == body(number)
                handled.write(number)
            consumer.ack_many(messages)


def drain(url: str, handled: Ledger) -> None:
    with ringpost.connect(url) as broker, broker.queue("jobs", capacity=SMALL).consumer() as consumer:
        while True:
            try:
                messages = consumer.receive_many(100, timeout=1)
            except ringpost.Empty:
                return
            handled.write(*(int(one.body.partition(b" ")[0]) for one in messages))
            consumer.ack_many(messages)


@pytest.mark.parametrize(
    ("level", "reboots"), [("memory", False), ("interval", False), ("commit", False), ("commit", True)]
)
def test_nothing_confirmed_is_lost(
    url: str, place: Path, tmp_path: Path, shm_dir: Path, level: str, reboots: bool
) -> None:
    chance = random.Random(f"{level} {reboots}")
    confirmed, handled = Ledger(tmp_path / "confirmed"), Ledger(tmp_path / "handled")
    numbers = iter(range(0, 10**9, 10**5))

    def make_producer() -> int:
        first = next(numbers)
        return child(partial(produce, url, first, confirmed, level))

    def make_consumer() -> int:
        return child(partial(consume, url, handled))

    makers = (make_producer, make_consumer)
    alive: dict[int, Callable[[], int]] = {}
    kills = 0
    deadline = time.monotonic() + LONGEST
    try:
        while kills < LEAST and time.monotonic() < deadline:
            while len(alive) < 5:
                make = makers[len(alive) % 2]
                alive[make()] = make
            time.sleep(chance.uniform(0.02, 0.25))
            victims = list(alive) if chance.random() < 0.15 else [chance.choice(list(alive))]
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            for pid in victims:
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                assert status == -signal.SIGKILL, status
                del alive[pid]
                kills += 1
            if reboots and not alive:
                lose_shared_memory(shm_dir)
    finally:
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if reboots:
        lose_shared_memory(shm_dir)
    last = child(partial(drain, url, handled))
    assert os.waitstatus_to_exitcode(os.waitpid(last, 0)[1]) == 0
    said, done = confirmed.read(), Counter(handled.read())
    missing = [number for number in said if number not in done]
    assert kills >= LEAST or time.monotonic() >= deadline
    assert len(said) > 100
    assert missing == []
    assert ringpost.verify(place).ok
    with ringpost.connect(url) as broker:
        assert broker.queue("jobs", capacity=SMALL).empty()
        broker.destroy()


def test_whoever_commits_may_die(url: str, tmp_path: Path) -> None:
    """Many putters of single messages: at any moment one of them writes for all."""
    confirmed, handled = Ledger(tmp_path / "confirmed"), Ledger(tmp_path / "handled")
    with ringpost.connect(url) as broker:
        broker.queue("jobs", capacity=SMALL)
    for round_ in range(8):
        pids = [child(partial(produce, url, (round_ * 8 + i) * 10**5, confirmed, "commit")) for i in range(6)]
        time.sleep(random.uniform(0.1, 0.3))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    pid = child(partial(drain, url, handled))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    done = Counter(handled.read())
    assert [number for number in confirmed.read() if number not in done] == []
    assert max(done.values()) == 1
    with ringpost.connect(url) as broker:
        broker.destroy()


def test_a_stopped_writer_holds_nobody_for_longer_than_a_timeout(url: str) -> None:
    """SIGSTOP within a commit: the others' puts raise Stalled, which names it; then all goes on."""
    with ringpost.connect(url) as broker:
        queue = broker.queue("jobs")
        queue.put("before")
        ready, told = os.pipe()

        def stop_inside() -> None:
            with ringpost.connect(url) as mine:
                mine.queue("jobs")
                with mine._engine._environment().alone():  # type: ignore[attr-defined]
                    os.write(told, b"x")
                    os.kill(os.getpid(), signal.SIGSTOP)

        pid = child(stop_inside)
        os.read(ready, 1)
        os.waitpid(pid, os.WUNTRACED)
        try:
            with pytest.raises(ringpost.Stalled, match=f"process {pid}"):
                queue.put_nowait("stalled")
            queue.put("in memory", durability="memory", timeout=0.2)
        finally:
            os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)
        queue.put("after", timeout=BOUND)
        assert [queue.get() for _ in range(4)] == ["before", "stalled", "in memory", "after"]
        broker.destroy()
    os.close(ready)
    os.close(told)


def test_who_opens_it_is_told_who_was_stopped_within_a_commit(
    url: str, fork: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB's own lock has no timeout."""

    def stop_within() -> None:
        with ringpost.connect(url) as mine:
            mine.queue("jobs").put("before")
            store = mine._engine._environment()  # type: ignore[attr-defined]
            with store.alone(), store.begin():
                os.kill(os.getpid(), signal.SIGSTOP)

    def open_it() -> None:
        with ringpost.connect(url) as mine:
            assert mine.queue("jobs").get() == "before"
            mine.destroy()

    def be_told() -> None:
        for _ in range(2):
            with pytest.raises(ringpost.Stalled, match=rf"\b{stopped.pid}\b"):
                open_it()

    monkeypatch.setattr(environment, "PATIENCE", 0.3)
    stopped = fork(stop_within)
    os.waitpid(stopped.pid, os.WUNTRACED)
    assert fork(be_told).wait() == 0
    os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.wait() == 0
    assert fork(open_it).wait() == 0


LARGE_PUTS: dict[str, Callable[[ringpost.Queue[Any], float], object]] = {
    "put": lambda queue, timeout: queue.put(bytes(20_000), timeout=timeout),
    "loan": lambda queue, timeout: queue.producer().loan(20_000, "u1", timeout=timeout),
}


@pytest.mark.parametrize("put", LARGE_PUTS.values(), ids=LARGE_PUTS)
def test_who_holds_the_pool_is_waited_for_until_the_timeout(
    durable: ringpost.Broker, fork: Nursery, put: Callable[[ringpost.Queue[Any], float], object]
) -> None:
    """First without waiting: storage might make room."""
    queue = durable.queue("jobs")
    holder = fork(lambda: (queue.qsize(), signal.pause()))
    holder.wait_until_asleep()
    holder.stop()
    segment = SegmentFile(path_of(queue))
    segment["pool_lock"] = segment.owner(holder.pid)
    start = time.monotonic()
    with pytest.raises(ringpost.Stalled, match=rf"\b{holder.pid}\b"):
        put(queue, 2.0)
    assert time.monotonic() - start >= 2.0
