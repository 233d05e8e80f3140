"""kill -9 at each point of crash_points.py, and in each system call of LMDB's commits; then others account.

Each point must be hit: the process that is to die there, and does not, fails its test.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.patience import BOUND

import ringpost
from durable.conftest import lose_shared_memory
from durable.crash_points import POINTS, Point, arm, die_together
from ringpost.engines import Kind
from ringpost.engines.durable import DurableEngine
from ringpost.store import format as form
from ringpost.store.registry import Registry

STRIDE = int(os.environ.get("CRASH_POINT_STRIDE", "7"))  # of the system calls
BEFORE = [b"%d" % i for i in range(5)]
NEW = [b"new", b"x" * 100_000, b"newer"]
TO_REMOVE = [(0, b"0" * 30_000), (9, b"9"), (4, b"4" * 300_000)]
SMALL = 256 << 10


# ---- what is done: all or nothing -------------------------------------------------------------


def commit(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    queue = broker.queue("jobs")
    armed()
    queue.put_many(NEW)


def transaction(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    jobs, results = broker.queue("jobs"), broker.queue("results")
    message = jobs.consumer().receive(BOUND)
    results.put(b"first")
    armed()
    with broker.transaction() as tx:
        tx.ack(message)
        tx.send(results, b"result")


def finish(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    """What a dead process decided."""
    run_and_die(Point("", "transaction", "store.transactions:_put", False), broker.url)
    armed()
    with ringpost.connect(broker.url) as other, other.queue("jobs").consumer() as consumer:
        message = consumer.receive(BOUND)
        with other.transaction() as tx:
            tx.send("unrelated", b"")
        message.nack()


def compaction(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    topic = broker.topic("prices", capacity=SMALL, retention=ringpost.Retention(compact=True))
    armed()
    for turn in range(200):
        topic.publish_many([(f"k{i}", b"%d " % turn + bytes(3000)) for i in range(4)])


def retention(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    topic = broker.topic("news", capacity=SMALL, retention=ringpost.Retention(messages=10))
    for _ in range(50):
        topic.publish(bytes(10_000))
    armed()
    topic.publish(b"last")


def registry(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    armed()
    broker.queue("another").put(b"")


def removal(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    """Of a queue with priorities, in more than one step."""
    queue = broker.queue("another", priorities=True)
    producer = queue.producer()
    for priority, body in TO_REMOVE:
        producer.send(body, priority=priority)
    armed()
    broker.delete("another")


def scheduling(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    producer = broker.queue("jobs").producer()
    armed()
    producer.send(b"late", delay=0.1)


def moving(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    """What is due is put by who waits."""
    broker.queue("jobs").producer().send(b"late", delay=0.1)
    consumer = broker.queue("jobs").consumer()
    assert len(consumer.receive_many(len(BEFORE), BOUND)) == len(BEFORE)
    armed()
    consumer.receive(BOUND)


def sending_once(broker: ringpost.Broker, armed: Callable[[], None]) -> None:
    producer = broker.queue("jobs").producer(dedup_window=600)
    armed()
    producer.send(b"once", message_id="its id")


SCENES = {
    each.__name__: each
    for each in (
        *(commit, transaction, finish, compaction, retention, registry, removal),
        *(scheduling, moving, sending_once),
    )
}


def run_and_die(point: Point, url: str) -> None:
    """Do the point's scene in a process that dies at it."""
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: none outlives the test
        try:
            SCENES[point.scene](ringpost.connect(url), lambda: arm(point))
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"{point.name} was not hit"


# ---- what survivors find ----------------------------------------------------------------------


def drain(broker: ringpost.Broker, name: str) -> list[Any]:
    found: list[Any] = []
    with contextlib.suppress(ringpost.Empty):
        while True:
            found += broker.queue(name).get_many(block=False)
    return found


def drain_what_was_held(broker: ringpost.Broker, name: str) -> list[Any]:
    """What the dead held comes back within a fraction of a second."""
    found = []
    with broker.queue(name).consumer() as consumer, contextlib.suppress(ringpost.Empty):
        while True:
            message = consumer.receive(0.25)
            found.append(message.body)
            message.ack()
    return found


def check(broker: ringpost.Broker, point: Point) -> None:
    """All of it or nothing; all of it once it was decided."""
    results = drain(broker, "results")
    if point.scene in ("transaction", "finish"):
        jobs = drain_what_was_held(broker, "jobs")
        happened = b"result" in results
        assert sorted(jobs) == (BEFORE[1:] if happened else BEFORE)
        assert results == ([b"first", b"result"] if happened else [b"first"])
        assert happened or not point.decided
    elif point.scene in ("scheduling", "moving"):
        jobs = drain_what_was_held(broker, "jobs")  # twice, if who put it died before he noted it
        assert sorted(set(jobs)) in (BEFORE, [*BEFORE, b"late"])
        assert b"late" in jobs or not point.decided
        assert len(jobs) <= len(BEFORE) + 2
    elif point.scene == "sending_once":
        again = broker.queue("jobs").producer(dedup_window=600).send(b"once", message_id="its id")
        jobs = drain(broker, "jobs")
        assert jobs[:5] == BEFORE
        assert jobs[5:] == [b"once"] or (jobs[5:] == [b"once"] * 2 and not point.decided)
        assert again != point.decided
    elif point.scene == "removal":
        check_removal(broker, point)
    else:
        jobs = drain(broker, "jobs")
        assert jobs in (BEFORE, BEFORE + NEW)
        assert len(jobs) > len(BEFORE) or not point.decided
    topics = {"compaction": "prices", "retention": "news"}
    if point.scene in topics:
        check_replay(broker, topics[point.scene])
    broker.queue("another").put(b"later")
    assert drain(broker, "another")[-1] == b"later"
    broker.queue("jobs").put(b"later")
    assert drain(broker, "jobs") == [b"later"]


def check_removal(broker: ringpost.Broker, point: Point) -> None:
    """Whoever makes it anew finds nothing of it, and nothing of it is stored."""
    is_there = "another" in broker.list()
    assert is_there != point.decided
    broker.queue("another", priorities=True)
    found = drain(broker, "another")
    assert sorted(found) == (sorted(body for _, body in TO_REMOVE) if is_there else [])
    assert is_there or len(broker._engine.list_logs(Kind.LEVEL)) == 0
    assert drain(broker, "jobs") == BEFORE
    engine = broker._engine
    assert isinstance(engine, DurableEngine)
    registry, environment = Registry(engine._environment()), engine._environment()
    known = {form.number_key(record.number) for _, _, record in registry.all()}
    with environment.read() as reading:
        for table in (form.PROGRESS, form.GROUPS, form.PAYLOADS, form.BLOCKS):
            with reading.cursor(environment.table(table)) as cursor:
                rows = {bytes(key[:4]) for key, _ in cursor if bytes(key) not in form.TABLES}
            assert rows <= known
    assert registry.removed() == []


def check_replay(broker: ringpost.Broker, name: str) -> None:
    """Of each key the last; or whole messages, to the end."""
    options = ringpost.Retention(compact=True) if name == "prices" else ringpost.Retention(messages=10)
    topic = broker.topic(name, capacity=SMALL, retention=options)
    topic.publish(b"end")
    turns: dict[str, int] = {}
    with topic.subscribe(start="earliest") as subscriber:
        while (message := subscriber.receive(BOUND)).body != b"end":
            if name == "prices":
                turn, _, rest = message.body.partition(b" ")
                assert rest == bytes(3000)
                turns[str(message.key or message.subject)] = int(turn)
            else:
                assert message.body in (bytes(10_000), b"last")
    assert len(turns) in (0, 4)
    assert len(set(turns.values())) <= 1


def prepare(url: str, jobs: list[bytes] = BEFORE) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            with ringpost.connect(url) as broker:
                broker.queue("jobs").put_many(jobs)
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("reboot", [False, True], ids=["", "reboot"])
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_killed_at(point: Point, reboot: bool, url: str, shm_dir: Path) -> None:
    prepare(url)
    run_and_die(point, url)
    if reboot:
        lose_shared_memory(shm_dir)
    with ringpost.connect(url) as broker:
        try:
            check(broker, point)
            assert not ringpost.verify(url.removeprefix("ring://")).problems
        finally:
            broker.destroy()


# ---- several at once --------------------------------------------------------------------------

OTHERS = 3
CONFIRMED = 8  # batches or transactions, before the last of which they die
JOBS = [b"job %d" % i for i in range(2000)]


def put_batches(url: str, number: int, told: int, point: Point | None) -> None:
    """Batches of three, each told of once it is confirmed."""
    with ringpost.connect(url) as broker:
        queue = broker.queue("jobs")
        if point is not None:
            arm(point._replace(turn=CONFIRMED), die_together)
        for turn in range(10_000):
            queue.put_many([b"%d %d %d" % (number, turn, i) for i in range(3)])
            os.write(told, b"%d %d\n" % (number, turn))


def carry_out(url: str, number: int, told: int, point: Point | None) -> None:
    """Transactions that take a job and put its result, each told of once it is confirmed."""
    with ringpost.connect(url) as broker, broker.queue("jobs").consumer() as consumer:
        if point is not None:
            arm(point._replace(turn=CONFIRMED), die_together)
        while True:
            message = consumer.receive(BOUND)
            with broker.transaction() as tx:
                tx.ack(message)
                tx.send("results", message.body)
            os.write(told, message.body + b"\n")


def die_at_once(url: str, point: Point, work: Callable[[str, int, int, Point | None], None]) -> list[bytes]:
    """Processes of one group, all of which die when one of them comes to the point. What they were told."""
    reading, told = os.pipe()
    first = 0
    pids = []
    for number in range(1 + OTHERS):
        pid = os.fork()
        if pid == 0:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            try:
                os.setpgid(0, first)
                work(url, number, told, None if number < OTHERS else point)
            finally:
                os._exit(1)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, first)
        first = first or pid
        pids.append(pid)
    os.close(told)
    said = b""
    while piece := os.read(reading, 1 << 16):
        said += piece
    os.close(reading)
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, (
            f"{point.name} was not hit"
        )
    return said.splitlines()


def points_of(scene: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "point", [point for point in POINTS if point.scene == scene], ids=lambda point: point.name
    )


@pytest.mark.parametrize("reboot", [False, True], ids=["", "reboot"])
@points_of("commit")
def test_all_are_killed_at_once(point: Point, reboot: bool, url: str, shm_dir: Path) -> None:
    """One at the point, the others wherever they are: at the door, in it, between two stores in the ring."""
    prepare(url)
    told = die_at_once(url, point, put_batches)
    if reboot:
        lose_shared_memory(shm_dir)
    with ringpost.connect(url) as broker:
        try:
            found = drain(broker, "jobs")
            assert found[: len(BEFORE)] == BEFORE
            batches = [found[at : at + 3] for at in range(len(BEFORE), len(found), 3)]
            whole = [batch[0].rpartition(b" ")[0] for batch in batches]
            assert batches == [[b"%s %d" % (name, i) for i in range(3)] for name in whole]
            assert len(set(whole)) == len(whole)
            assert set(told) <= set(whole)
            assert len(told) >= CONFIRMED - 2
            broker.queue("jobs").put(b"later")
            assert drain(broker, "jobs") == [b"later"]
            assert not ringpost.verify(url.removeprefix("ring://")).problems
        finally:
            broker.destroy()


@pytest.mark.parametrize("reboot", [False, True], ids=["", "reboot"])
@points_of("transaction")
def test_all_are_killed_at_once_in_transactions(point: Point, reboot: bool, url: str, shm_dir: Path) -> None:
    """Each job is still there or its result is, never both: also of transactions that nobody but the dead
    knew of."""
    prepare(url, JOBS)
    told = die_at_once(url, point, carry_out)
    if reboot:
        lose_shared_memory(shm_dir)
    with ringpost.connect(url) as broker:
        try:
            jobs, results = drain_what_was_held(broker, "jobs"), drain(broker, "results")
            assert sorted(jobs + results) == sorted(JOBS)
            assert set(told) <= set(results)
            assert told  # how many: a transaction comes to some points more than once, and for others, too
            assert not ringpost.verify(url.removeprefix("ring://")).problems
        finally:
            broker.destroy()


# ---- inside of LMDB ---------------------------------------------------------------------------

PROGRAM = """
import sys, ringpost
from durable.test_crash_points import BEFORE, NEW

with ringpost.connect(sys.argv[1]) as broker:
    jobs = broker.queue("jobs")
    jobs.put_many(BEFORE)
    print("before", flush=True)
    jobs.put_many(NEW)
    print("new", flush=True)
    consumer = jobs.consumer()
    message = consumer.receive(5)
    with broker.transaction() as tx:
        tx.ack(message)
        tx.send("results", b"result")
    print("result", flush=True)
"""


def die_in_call(recorder: Path, place: Path, number: int, how: str, log: Path) -> tuple[int, str]:
    environment = os.environ | {
        "LD_PRELOAD": str(recorder),
        "RECORDER_LOG": str(log),
        "FAIL_HOW": how,
        "FAIL_AT": str(number),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    command = [sys.executable, "-c", PROGRAM, f"ring://{place}"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stdout


def check_said(broker: ringpost.Broker, said: str) -> None:
    results, jobs = drain(broker, "results"), drain_what_was_held(broker, "jobs")
    gone = BEFORE[:1] if results else []
    assert results in ([], [b"result"])
    assert sorted(gone + jobs) in ([], sorted(BEFORE), sorted(BEFORE + NEW))
    assert len(results) == 1 or "result" not in said
    assert len(gone + jobs) >= len(BEFORE) or "before" not in said
    assert len(gone + jobs) > len(BEFORE) or "new" not in said
    broker.queue("jobs").put(b"later")
    assert drain(broker, "jobs") == [b"later"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["kill", "torn"])
def test_killed_in_each_write_and_flush(how: str, recorder: Path, tmp_path: Path, shm_dir: Path) -> None:
    """With a reboot after each second one. Until the program comes to its end alive."""
    deaths = 0
    for number in range(1, 1000, STRIDE):
        place = tmp_path / str(number)
        status, said = die_in_call(recorder, place, number, how, tmp_path / "log")
        if status == 0:
            lose_shared_memory(shm_dir)
            break
        assert status == -signal.SIGKILL
        deaths += 1
        if number % 2:
            lose_shared_memory(shm_dir)
        with ringpost.connect(f"ring://{place}") as broker:
            check_said(broker, said)
            assert not ringpost.verify(place).problems
            broker.destroy()
        lose_shared_memory(shm_dir)  # made by who died before the broker's own record was there: nobody's
    assert deaths >= 3


def test_the_names_are_all_different() -> None:
    names = [point.name for point in POINTS]
    assert len(names) == len(set(names))
    assert {point.scene for point in POINTS} == set(SCENES)
