"""Processes that die, stop or fork while they use the side store: the others go on with it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lmdb
import pytest

import ringpost
from crash.children import Flag, Nursery
from crash.workers import PATIENCE
from ringpost.scheduled import Schedule
from ringpost.sidestore import SideStore

Queue = ringpost.Queue[Any]


def store_of(broker: ringpost.Broker) -> SideStore:
    return broker._engine.side_store()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Fatal:
    """A log whose user dies before (an even number) or after the call with this number, counted by two."""

    def __init__(self, log: Any, at: int) -> None:
        self._log = log
        self._left = at

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._log, name)
        return partial(self._call, real) if name in ("send_raw", "set_alarm") else real

    def _call(self, real: Callable[..., object], *args: object) -> None:
        for step in (partial(real, *args), lambda: None):
            if self._left == 0:
                die()
            self._left -= 1
            step()


TOTAL = 3


@pytest.mark.parametrize("at", range(2 * (TOTAL + 1)))
def test_a_death_while_due_messages_are_moved_leaves_none_forgotten(
    broker: ringpost.Broker, fork: Nursery, at: int
) -> None:
    """All of them come, and what waits for a second time comes again, without anybody's doing."""
    queue = broker.queue("q")
    for number in range(TOTAL):
        queue.producer().send(number, delay=0)
    time.sleep(0.01)

    def move(log: Any) -> None:
        Schedule(log, lambda: store_of(broker)).move_due()

    assert fork(move, Fatal(queue._log, at)).wait() == -signal.SIGKILL
    found = set()
    while len(found) < TOTAL or Schedule(queue._log, lambda: store_of(broker)).count():
        found.add(queue.get(timeout=PATIENCE))
    assert found == set(range(TOTAL))


def test_nobody_hangs_on_a_stopped_writer(broker: ringpost.Broker, fork: Nursery) -> None:
    """Nor who opens the store only then."""
    queue, report, inside = broker.queue("q"), broker.queue("report"), Flag()
    queue.producer().send("due", delay=0)

    def write() -> None:
        with store_of(broker).write():
            inside.set()
            time.sleep(60)

    def use_it() -> None:
        with pytest.raises(ringpost.Empty):
            queue.get(timeout=0.1)
        with pytest.raises(ringpost.Stalled):
            queue.producer().send("later", delay=1)
        report.put("stalled")
        assert queue.get(timeout=30) == "due"

    writer = fork(write)
    inside.wait()
    writer.stop()
    user = fork(use_it)
    assert report.get(timeout=30) == "stalled"
    writer.kill()
    assert user.wait() == 0


def test_a_child_forked_while_another_thread_writes_can_write_too(
    broker: ringpost.Broker, fork: Nursery
) -> None:
    queue, stop = broker.queue("q", capacity=1 << 20), threading.Event()

    def write_on() -> None:
        number, producer = 0, queue.producer(overflow="drop-oldest", dedup_window=60)
        while not stop.is_set():
            producer.send("once", message_id=f"mine {number}")
            number += 1

    def write(number: int) -> None:
        assert queue.producer(overflow="drop-oldest", dedup_window=60).send("", message_id=f"child {number}")

    write(-1)  # so that nobody forks within an import
    thread = threading.Thread(target=write_on)
    thread.start()
    try:
        assert [fork(write, number).wait() for number in range(30)] == [0] * 30
    finally:
        stop.set()
        thread.join()


def test_killed_readers_leave_room_for_others(broker: ringpost.Broker, fork: Nursery) -> None:
    """More of them than LMDB has places for, by default."""
    topic = broker.topic("t")
    topic.publish("last", subject="a", retain=True)

    def read_and_die() -> None:
        with store_of(broker).read():
            die()

    for _ in range(150):
        assert fork(read_and_die).wait() == -signal.SIGKILL
    with topic.subscribe(retained=True) as subscriber:
        assert subscriber.receive(timeout=PATIENCE).body == "last"


def test_a_killed_reader_does_not_let_the_store_grow_for_ever(broker: ringpost.Broker, fork: Nursery) -> None:
    topic, inside = broker.topic("t"), Flag()

    def read() -> None:
        with store_of(broker).read():
            inside.set()
            time.sleep(60)

    topic.publish("last", subject="a", retain=True)
    reader = fork(read)
    inside.wait()
    reader.kill()

    def grow(count: int) -> int:
        retained = topic._retained()
        for number in range(count):
            retained.clear(f"{number % 10}".encode())
            topic.publish(bytes(2000), subject=f"{number % 10}", retain=True)
        return os.stat(store_of(broker)._place / "data.mdb").st_size

    before = grow(1000)
    assert grow(3000) == before


def test_a_full_store_holds_nobody_up_and_nothing_comes_twice(
    broker: ringpost.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/shm is full: what is due cannot be forgotten, and is taken all the same."""
    queue, real, is_full = broker.queue("q"), SideStore.begin, True
    for number in range(TOTAL):
        queue.producer().send(number, delay=0)

    @contextmanager
    def begin(store: SideStore) -> Iterator[Any]:
        with real(store) as transaction:
            yield transaction
            if is_full:
                raise ringpost.SegmentFull("no room")

    monkeypatch.setattr(SideStore, "begin", begin)
    monkeypatch.setattr("ringpost.scheduled._RETRY", 1)  # ns
    for number in range(TOTAL):
        assert queue.get(timeout=PATIENCE) == number
        time.sleep(0.02)  # the next one tries again
    producer = queue.producer(dedup_window=60)
    for _ in range(3):
        with pytest.raises(ringpost.SegmentFull):
            producer.send("once", message_id="1")
    is_full = False
    assert not producer.send("once", message_id="1")
    assert queue.get_many() == ["once"]
    assert Schedule(queue._log, lambda: store_of(broker)).count() == 0
    assert list(store_of(broker)._place.glob("*.notes")) == []


def test_it_is_opened_anew_after_a_failure(broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    queue.producer().send("due", delay=0)
    before = store_of(broker)._environment
    with pytest.raises(ringpost.SegmentFull), store_of(broker).write():
        raise lmdb.PanicError("a fatal error")
    assert queue.get(timeout=PATIENCE) == "due"
    assert store_of(broker)._environment is not before
