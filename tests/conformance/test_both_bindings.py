"""One queue, one process on each binding, both at once; and both bindings in one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest

import ringpost
from ringpost import _binding
from ringpost.codecs import StandardCodec

BOUND = 60.0  # seconds
TESTS = Path(__file__).parents[1]

Start = Callable[[str], "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def other() -> str:
    """The binding that is not this process's."""
    (name,) = set(_binding._MODULES) - {_binding.binding.NAME}
    try:
        _binding.load(name)
    except ImportError as error:
        pytest.skip(f"there is one binding only: {error}")
    return name


@pytest.fixture
def start(broker: ringpost.Broker, other: str) -> Iterator[Start]:
    """start(name): a process on the other binding, in other_side.name()."""
    started = []

    def start_one(name: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "RINGPOST_BINDING": other, "PYTHONPATH": str(TESTS)}
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "conformance.other_side", name, broker.url], env=environment
            )
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait(BOUND)


@pytest.fixture
def said(broker: ringpost.Broker) -> ringpost.Queue[Any]:
    return broker.queue("said")


def test_items_of_every_kind_there_and_back(
    broker: ringpost.Broker, start: Start, said: ringpost.Queue[Any], other: str
) -> None:
    there, back = broker.queue("there"), broker.queue("back")
    process = start("echo")
    assert said.get(timeout=BOUND) == other
    items = [
        b"",
        b"bytes",
        "text",
        "t\u00e4xt",
        None,
        {"a": [1, 2.5]},
        b"x" * 16_384,
        b"y" * 300_000,
        "z" * 50_000,
    ]
    for item in items:
        there.put(item)
    assert [back.get(timeout=BOUND) for _ in items] == items
    there.put_many(range(20_000))
    got: list[Any] = []
    while len(got) < 20_000:
        got += back.get_many(timeout=BOUND)
    assert got == list(range(20_000))
    there.shutdown()
    assert process.wait(BOUND) == 0


def test_consumers_of_one_queue_share_it(
    broker: ringpost.Broker, start: Start, said: ringpost.Queue[Any], other: str
) -> None:
    jobs = broker.queue("jobs")
    process = start("ack_all")
    assert said.get(timeout=BOUND) == other
    sent = 0
    mine: list[int] = []
    with jobs.consumer(prefetch=4) as consumer:
        while not mine or jobs.qsize():
            if not jobs.qsize():  # the other one has taken all, if there was any
                sent += jobs.put_many(range(sent, sent + 2000))
            try:
                message = consumer.receive(timeout=0)
            except ringpost.Empty:
                continue
            mine.append(message.body)
            message.ack()
    jobs.shutdown()
    theirs = said.get(timeout=BOUND)
    assert process.wait(BOUND) == 0
    assert sorted(mine + theirs) == list(range(sent))
    assert theirs


def test_what_a_killed_process_held_comes_again(
    broker: ringpost.Broker, start: Start, said: ringpost.Queue[Any]
) -> None:
    jobs = broker.queue("jobs")
    jobs.put_many([b"a", "b", b"c" * 100_000, "d"])
    process = start("hold")
    held = said.get(timeout=BOUND)
    assert held == [b"a", "b", b"c" * 100_000]
    process.send_signal(signal.SIGKILL)
    process.wait(BOUND)
    with jobs.consumer() as consumer:
        messages = [consumer.receive(timeout=BOUND) for _ in range(4)]
        again = {message.body: message.deliveries for message in messages}
        consumer.ack_many(messages)
    assert again == {b"a": 2, "b": 2, b"c" * 100_000: 2, "d": 1}


def test_killed_while_it_moves_messages(
    broker: ringpost.Broker, start: Start, said: ringpost.Queue[Any]
) -> None:
    """What it had taken for good is gone with it; nobody waits for it, and all that is put later comes."""
    there, back = broker.queue("there"), broker.queue("back")
    process = start("echo")
    said.get(timeout=BOUND)
    for number in range(500):
        there.put(number)
        if number == 250:
            process.kill()
    process.wait(BOUND)
    got = back.get_many(10_000, timeout=0) if back.qsize() else []
    assert got == list(range(len(got)))
    rest = there.get_many(10_000, timeout=0)
    assert rest == list(range(rest[0], 500))


def test_topics(broker: ringpost.Broker, start: Start, said: ringpost.Queue[Any], other: str) -> None:
    topic = broker.topic("news")
    process = start("subscribe")
    assert said.get(timeout=BOUND) == other
    for number in range(100):
        topic.publish(number, subject="a.x" if number % 2 else "b.x")
    topic.publish(b"l" * 40_000, subject="a.large")
    topic.publish("end", subject="a.end")
    assert said.get(timeout=BOUND) == [*range(1, 100, 2), b"l" * 40_000, "end"]
    assert process.wait(BOUND) == 0


def test_arrays_in_place(
    broker: ringpost.Broker, start: Start, said: ringpost.Queue[Any], other: str
) -> None:
    there, back = broker.queue("there"), broker.queue("back")
    process = start("double")
    assert said.get(timeout=BOUND) == other
    with there.producer().loan((100, 100), "f8") as array:
        array[:] = numpy.arange(10_000.0).reshape(100, 100)
    with back.consumer() as consumer, consumer.receive(timeout=BOUND) as message:
        assert (message.array == 2 * numpy.arange(10_000.0).reshape(100, 100)).all()
    assert process.wait(BOUND) == 0


def test_records(broker: ringpost.Broker, start: Start, said: ringpost.Queue[Any], other: str) -> None:
    there, back = broker.queue("there"), broker.queue("back")
    process = start("records")
    assert said.get(timeout=BOUND) == other
    sent = numpy.zeros(1000, [("number", "i8"), ("price", "f4")])
    sent["number"] = range(1000)
    there.put_many(sent)
    got = numpy.zeros(0, sent.dtype)
    while len(got) < 1000:
        got = numpy.concatenate([got, back.get_many(as_array=True, timeout=BOUND)])
    assert (got == sent).all()
    assert process.wait(BOUND) == 0


# ---- both in one process: two copies of the native core, two participants ------------------------------


@pytest.fixture
def pair(shm_dir: Path, binding: Any, other: str) -> Iterator[tuple[Any, Any]]:
    path = str(shm_dir / "both")
    codec = StandardCodec("a log")
    one = binding.create(path, "a log", codec, capacity=1 << 20)
    another: Any = _binding.load(other)
    yield one, another.attach(path, "a log", codec)
    binding.remove(path)


def test_each_is_a_participant(pair: tuple[Any, Any]) -> None:
    one, another = pair
    assert one.info()["participants"] == another.info()["participants"] == 2
    one.put("from one")
    another.put(b"l" * 100_000)
    assert (another.get(), one.get()) == ("from one", b"l" * 100_000)


def test_neither_takes_the_other_for_dead(pair: tuple[Any, Any]) -> None:
    one, another = pair
    one.put_many("abc")
    held = one.group().receive(2)
    assert [each.body for each in another.group().receive(5)] == ["c"]
    assert another.group().info()["in_flight"] == 3
    assert one.group().settle(held) == []


def test_a_forked_child_uses_both(pair: tuple[Any, Any]) -> None:
    one, another = pair
    child = os.fork()
    if child == 0:
        done = False
        try:
            one.put("through one")
            another.put("through another")
            done = one.info()["participants"] == 4
        finally:
            os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (another.get(timeout=BOUND), one.get(timeout=BOUND)) == ("through one", "through another")
    assert one.info()["participants"] == 2


def test_an_auto_deleted_log_goes_with_the_last(shm_dir: Path, binding: Any, other: str) -> None:
    path, codec = shm_dir / "both", StandardCodec("a log")
    one = binding.create(str(path), "a log", codec, capacity=128 << 10, auto_delete=True)
    another: Any = _binding.load(other).attach(str(path), "a log", codec)
    one.put("still there")
    del one
    assert path.exists()
    assert another.get(False) == "still there"
    del another
    assert not path.exists()
