"""Where storing fails after a message was put: who tries again confirms it, and puts no copy."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crash.children import Nursery
from crash.fixtures import fork as fork

import ringpost
from durable.conftest import Reboot
from ringpost import aio
from ringpost.scheduled import Schedule
from ringpost.sidestore import SideStore
from ringpost.store.log import StoredLog
from ringpost.store.writer import Writer

QUOTA = "2m"
PIECE = b"x" * 8000

Queue = ringpost.Queue[Any]


class Disk:
    """Fails on demand: for what waits for it, or for the side store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = self.side_is_full = False
        self.attempts = 0
        real_write, real_begin = Writer.write, SideStore.begin

        def write(writer: Writer, *logs: StoredLog, **more: Any) -> None:
            if self.is_full:
                self.attempts += 1
                raise ringpost.StorageFailed(errno.ENOSPC, "the disk is full")
            real_write(writer, *logs, **more)

        @contextlib.contextmanager
        def begin(store: SideStore) -> Iterator[Any]:
            with real_begin(store) as transaction:
                yield transaction
                if self.side_is_full:
                    self.attempts += 1
                    raise ringpost.StorageFailed(errno.ENOSPC, "the disk is full")

        monkeypatch.setattr(Writer, "write", write)
        monkeypatch.setattr(SideStore, "begin", begin)
        monkeypatch.setattr("ringpost.scheduled._RETRY", 1)  # ns
        monkeypatch.setattr("ringpost.consumer._LATER", 0.01)

    def fill(self, what: str) -> None:
        self.is_full, self.side_is_full = what == "the log's", what == "the side store's"

    def make_room(self) -> None:
        self.is_full = self.side_is_full = False


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def scheduled(queue: Queue) -> int:
    return Schedule(queue._log, queue._broker._engine.side_store).count()  # type: ignore[union-attr]


def fill(queue: Queue) -> int:
    """To the broker's quota. How many were confirmed."""
    for put in range(1000):
        try:
            queue.put(PIECE)
        except ringpost.StorageFailed:
            return put
    raise AssertionError("there is no quota")


def drain(queue: Queue) -> list[Any]:
    found: list[Any] = []
    with contextlib.suppress(ringpost.Empty):
        while True:
            found.append(queue.get(timeout=0.3))
    return found


def notes_of(shm_dir: Path) -> list[Path]:
    return list(shm_dir.rglob("*.notes"))


# ---- what is due ------------------------------------------------------------------------------


def test_a_queue_over_its_quota_can_be_emptied(durable: ringpost.Broker, url: str, shm_dir: Path) -> None:
    with ringpost.connect(f"{url}?max_bytes={QUOTA}") as broker:
        queue = broker.queue("jobs", capacity=256 << 10)
        queue.producer().send(b"due", delay=0.05)
        put = fill(queue)
        time.sleep(0.05)
        found = Counter(drain(queue))
        while scheduled(queue):  # until the next try
            found.update(drain(queue))
        assert found[b"due"] == 1
        assert found[PIECE] in (put, put + 1)
        assert scheduled(queue) == 0
        assert not notes_of(shm_dir)


@pytest.mark.parametrize("priority", [0, 3])
@pytest.mark.parametrize("what", ["the log's", "the side store's"])
def test_what_is_due_comes_once(
    durable: ringpost.Broker, disk: Disk, shm_dir: Path, what: str, priority: int
) -> None:
    queue = durable.queue("jobs", priorities=True)
    for number in range(3):
        queue.producer().send(number, delay=0.01, priority=priority)
    time.sleep(0.02)
    disk.fill(what)
    assert queue.get(timeout=5) == 0  # it is in the ring
    for _ in range(5):
        assert queue._log.on_alarm is not None
        queue._log.on_alarm()  # as every call that takes
    assert queue.qsize() == 2
    assert disk.attempts >= 3
    assert scheduled(queue) == 3
    disk.make_room()
    assert sorted(drain(queue)) == [1, 2]
    assert scheduled(queue) == 0
    assert not notes_of(shm_dir)


def test_other_processes_know_of_it(durable: ringpost.Broker, disk: Disk, monkeypatch: Any) -> None:
    """Notes lie in shared memory; where that is full, who put remembers."""
    queue = durable.queue("jobs")
    queue.producer().send("due", delay=0)
    disk.fill("the log's")
    assert queue.get(timeout=5) == "due"
    monkeypatch.setattr("ringpost.notes._here", {})  # as in another process
    disk.make_room()
    assert drain(queue) == []
    assert scheduled(queue) == 0


def test_full_shared_memory_leaves_notes_to_who_put(
    durable: ringpost.Broker, disk: Disk, monkeypatch: Any
) -> None:
    def fail(*unused: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("ringpost.notes.Notes._write", fail)
    queue = durable.queue("jobs")
    queue.producer().send("due", delay=0)
    disk.fill("the log's")
    assert queue.get(timeout=5) == "due"
    for _ in range(3):
        with pytest.raises(ringpost.Empty):
            queue.get(timeout=0.01)
    disk.make_room()
    assert drain(queue) == []
    assert scheduled(queue) == 0


def test_what_was_not_stored_comes_again_after_a_reboot(
    durable: ringpost.Broker, disk: Disk, reboot: Reboot
) -> None:
    durable.queue("jobs").producer().send("due", delay=0)
    disk.fill("the log's")
    with durable.queue("jobs").consumer() as consumer:
        assert consumer.receive(timeout=5).body == "due"
    disk.make_room()
    queue = reboot().queue("jobs")
    assert drain(queue) == ["due"]
    assert scheduled(queue) == 0


def test_notes_of_a_ring_that_was_lost_do_not_count(
    durable: ringpost.Broker, disk: Disk, reboot: Reboot, shm_dir: Path
) -> None:
    """RINGPOST_SHM_DIR may lie on a disk, and notes be there after a reboot whose ring is made anew."""
    durable.queue("jobs").producer().send("due", delay=0)
    disk.fill("the log's")
    with durable.queue("jobs").consumer() as consumer:
        assert consumer.receive(timeout=5).body == "due"
    (note,) = notes_of(shm_dir)
    kept = note.read_bytes()
    disk.make_room()
    broker = reboot()
    queue = broker.queue("jobs")
    note.write_bytes(kept)
    assert drain(queue) == ["due"]
    assert not notes_of(shm_dir)


@pytest.mark.parametrize("length", [0, 1, 20])
def test_half_a_note_is_none(durable: ringpost.Broker, disk: Disk, shm_dir: Path, length: int) -> None:
    """Its writer died: the message comes twice."""
    queue = durable.queue("jobs")
    queue.producer().send("due", delay=0)
    disk.fill("the log's")
    assert queue.get(timeout=5) == "due"
    (note,) = notes_of(shm_dir)
    note.write_bytes(note.read_bytes()[:length])
    disk.make_room()
    assert drain(queue) == ["due"]
    assert scheduled(queue) == 0


def test_notes_go_with_their_queue_and_with_their_broker(url: str, disk: Disk, shm_dir: Path) -> None:
    broker = ringpost.connect(url)
    for name in ("one", "another"):
        queue = broker.queue(name)
        queue.producer().send("due", delay=0)
        disk.fill("the log's")
        assert queue.get(timeout=5) == "due"
    disk.make_room()
    assert len(notes_of(shm_dir)) == 2
    broker.delete("one")
    assert len(notes_of(shm_dir)) == 1
    broker.destroy()
    broker.close()
    assert [each for each in shm_dir.rglob("*") if each.is_file()] == []


@pytest.mark.parametrize("priority", [0, 3])
@pytest.mark.parametrize("durability", ["memory", "interval"])
def test_what_was_scheduled_on_disk_stays_there_when_it_is_due(
    durable: ringpost.Broker, url: str, reboot: Reboot, fork: Nursery, durability: Any, priority: int
) -> None:
    def take_it_and_die() -> None:
        queue = ringpost.connect(url).queue("jobs", durability=durability, priorities=True)
        queue.producer().send("due", delay=0.01, priority=priority)
        assert queue.consumer().receive(timeout=20).body == "due"
        os.kill(os.getpid(), signal.SIGKILL)

    assert fork(take_it_and_die).wait() == -signal.SIGKILL
    assert drain(reboot().queue("jobs")) == ["due"]


# ---- what is sent once ------------------------------------------------------------------------


@pytest.mark.parametrize("priority", [0, 3])
@pytest.mark.parametrize("what", ["the log's", "the side store's"])
def test_an_id_is_sent_once(
    durable: ringpost.Broker, disk: Disk, shm_dir: Path, what: str, priority: int
) -> None:
    queue = durable.queue("jobs", priorities=True)
    producer = queue.producer(dedup_window=600)
    disk.fill(what)
    for _ in range(3):
        with pytest.raises(ringpost.StorageFailed):
            producer.send("once", message_id="1", priority=priority)
    assert queue.qsize() == 1
    disk.make_room()
    assert not producer.send("once", message_id="1")
    assert not notes_of(shm_dir)
    assert not producer.send("once", message_id="1", priority=priority)
    assert drain(queue) == ["once"]


def test_an_id_that_is_known_is_stored(durable: ringpost.Broker, disk: Disk, reboot: Reboot) -> None:
    producer = durable.queue("jobs").producer(dedup_window=600)
    disk.fill("the log's")
    with pytest.raises(ringpost.StorageFailed):
        producer.send("once", message_id="1")
    disk.make_room()
    assert not producer.send("once", message_id="1")
    queue = reboot().queue("jobs")
    assert not queue.producer(dedup_window=600).send("once", message_id="1")
    assert drain(queue) == ["once"]


def test_an_id_whose_message_a_reboot_took_away_is_sent(
    durable: ringpost.Broker, disk: Disk, reboot: Reboot
) -> None:
    disk.fill("the log's")
    with pytest.raises(ringpost.StorageFailed):
        durable.queue("jobs").producer(dedup_window=600).send("once", message_id="1")
    queue = reboot().queue("jobs")
    disk.make_room()
    queue = reboot().queue("jobs")
    assert queue.producer(dedup_window=600).send("once", message_id="1")
    assert drain(queue) == ["once"]


@pytest.mark.parametrize("priority", [0, 3])
@pytest.mark.parametrize("durability", ["memory", "interval"])
def test_an_id_that_did_not_wait_for_the_disk_goes_with_its_ring(
    durable: ringpost.Broker, url: str, reboot: Reboot, fork: Nursery, durability: Any, priority: int
) -> None:
    def send(broker: ringpost.Broker) -> bool:
        queue = broker.queue("jobs", durability=durability, priorities=True)
        return queue.producer(dedup_window=600).send("once", message_id="1", priority=priority)

    def send_and_die(is_new: bool) -> None:
        broker = ringpost.connect(url)
        assert [send(broker) for _ in range(2)] == [is_new, False]
        os.kill(os.getpid(), signal.SIGKILL)

    for is_new in (True, False):  # a death takes no ring away
        assert fork(send_and_die, is_new).wait() == -signal.SIGKILL
    broker = reboot()
    assert send(broker)
    assert not send(broker)
    assert set(drain(broker.queue("jobs"))) == {"once"}


def test_ids_that_did_not_wait_for_the_disk_expire(durable: ringpost.Broker) -> None:
    queue = durable.queue("jobs", durability="memory")
    producer = queue.producer(dedup_window=0.05)
    for number in range(3):
        assert producer.send(number, message_id=str(number))
    time.sleep(0.06)
    assert producer.send("last", message_id="last")
    assert rows(queue) == 2


def rows(queue: Queue) -> int:
    """Of ids that are remembered: two for each."""
    store = queue._broker._engine.side_store()  # type: ignore[union-attr]
    with store.read() as transaction:
        return int(transaction.stat(store.table(b"sent"))["entries"])


def test_the_next_one_has_all_of_them_stored(durable: ringpost.Broker, disk: Disk, shm_dir: Path) -> None:
    queue = durable.queue("jobs", priorities=True)
    producer = queue.producer(dedup_window=600)
    disk.fill("the log's")
    for number in range(3):
        with pytest.raises(ringpost.StorageFailed):
            producer.send(number, message_id=str(number), priority=number)
    assert producer.send("in memory", message_id="4", durability="memory")
    assert notes_of(shm_dir)
    disk.make_room()
    assert producer.send("next", message_id="5")
    assert not notes_of(shm_dir)
    assert not any(producer.send("", message_id=str(number)) for number in range(6) if number != 3)
    assert sorted(map(str, drain(queue))) == ["0", "1", "2", "in memory", "next"]


def test_a_window_that_is_over_is_over_for_what_was_noted(durable: ringpost.Broker, disk: Disk) -> None:
    queue = durable.queue("jobs")
    producer = queue.producer(dedup_window=0.05)
    disk.fill("the log's")
    with pytest.raises(ringpost.StorageFailed):
        producer.send("once", message_id="1")
    time.sleep(0.06)
    disk.make_room()
    assert producer.send("again", message_id="1")
    assert drain(queue) == ["once", "again"]


def test_nothing_is_noted_of_what_found_no_room(durable: ringpost.Broker, disk: Disk) -> None:
    """The ring is full of what cannot be stored: it is not in there."""
    queue = durable.queue("jobs", capacity=256 << 10)
    disk.fill("the log's")
    with pytest.raises(ringpost.StorageFailed):
        queue.put_many([PIECE] * 1000, durability="memory")
    producer = queue.producer(dedup_window=600)
    for _ in range(2):
        with pytest.raises(ringpost.StorageFailed):
            producer.send(PIECE, message_id="1")
    disk.make_room()
    assert producer.send(b"once", message_id="1")
    assert drain(queue)[-1] == b"once"


# ---- dead letters -----------------------------------------------------------------------------


def test_what_is_rejected_is_buried_once(durable: ringpost.Broker, disk: Disk) -> None:
    queue = durable.queue("jobs")
    queue.put("bad")
    letters = queue.dead_letters()
    with queue.consumer(dead_letters=True) as consumer:
        message = consumer.receive(timeout=5)
        assert len(letters) == 0
        disk.fill("the log's")
        for _ in range(3):
            with pytest.raises(ringpost.StorageFailed):
                message.reject()
        assert len(letters) == 1
        disk.make_room()
        message.reject()
        assert [each.body for _, each in letters.peek()] == ["bad"]
    assert queue.stats().unfinished == 0


@pytest.mark.parametrize("many", [False, True], ids=["receive", "receive_many"])
def test_what_is_expired_is_buried_once_and_others_come(
    durable: ringpost.Broker, disk: Disk, many: bool
) -> None:
    queue = durable.queue("jobs")
    queue.producer().send("expired", ttl=0.001)
    queue.put("good")
    letters = queue.dead_letters()
    assert len(letters) == 0
    time.sleep(0.01)
    disk.fill("the log's")
    with queue.consumer(dead_letters=True) as consumer:

        def receive() -> Any:
            return consumer.receive_many(1, timeout=0)[0] if many else consumer.receive(timeout=0)

        receive().ack()
        for _ in range(3):
            time.sleep(0.011)
            with pytest.raises(ringpost.Empty):
                receive()
        assert len(letters) == 1
        disk.make_room()
        time.sleep(0.011)
        with pytest.raises(ringpost.Empty):
            receive()
        assert queue.stats().unfinished == 0
    assert [each.body for _, each in letters.peek()] == ["expired"]


@pytest.mark.parametrize("many", [False, True], ids=["receive", "receive_many"])
def test_who_waits_for_messages_has_its_letters_stored_meanwhile(
    durable: ringpost.Broker, disk: Disk, many: bool
) -> None:
    queue = durable.queue("jobs")
    queue.producer().send("expired", ttl=0.001)
    letters = queue.dead_letters()
    assert len(letters) == 0
    time.sleep(0.01)
    disk.fill("the log's")
    with queue.consumer(dead_letters=True) as consumer:
        with pytest.raises(ringpost.Empty):
            consumer.receive(timeout=0)
        found: list[Any] = []

        def receive() -> None:
            found.extend(consumer.receive_many() if many else [consumer.receive()])

        waiting = threading.Thread(target=receive)
        waiting.start()
        disk.make_room()
        while queue.stats().unfinished:
            time.sleep(0.01)
        queue.put("good")
        waiting.join()
        assert [each.body for each in found] == ["good"]
    assert len(letters) == 1


def test_a_letter_that_found_no_room_is_written(durable: ringpost.Broker, disk: Disk) -> None:
    """The dead letters' ring is full of what cannot be stored: it is not in there."""
    queue = durable.queue("jobs")
    queue.put(PIECE)
    letters = queue.dead_letters()
    disk.fill("the log's")
    with pytest.raises(ringpost.StorageFailed):
        letters.queue.put_many([PIECE] * 10_000, durability="memory")
    before = len(letters)
    with queue.consumer(dead_letters=True) as consumer:
        message = consumer.receive(timeout=5)
        for _ in range(2):
            with pytest.raises(ringpost.StorageFailed):
                message.reject()
        disk.make_room()
        message.reject()
    assert len(letters) == before + 1
    assert queue.stats().unfinished == 0


def test_a_message_and_its_letter_are_not_both_lost(
    durable: ringpost.Broker, disk: Disk, reboot: Reboot
) -> None:
    queue = durable.queue("jobs")
    queue.put("bad")
    assert len(queue.dead_letters()) == 0
    with queue.consumer(dead_letters=True) as consumer:
        message = consumer.receive(timeout=5)
        disk.fill("the log's")
        with pytest.raises(ringpost.StorageFailed):
            message.reject()
        queue = reboot().queue("jobs")
        disk.make_room()
    assert "bad" in drain(queue) + [each.body for _, each in queue.dead_letters().peek()]


def test_a_letter_is_replayed_once(durable: ringpost.Broker, disk: Disk) -> None:
    queue = durable.queue("jobs")
    queue.put("bad")
    letters = queue.dead_letters()
    with queue.consumer(dead_letters=True) as consumer:
        consumer.receive(timeout=5).reject()
    disk.fill("the log's")
    for _ in range(3):
        with pytest.raises(ringpost.StorageFailed):
            letters.replay()
    assert queue.qsize() <= 1
    disk.make_room()
    assert letters.replay() == 1
    assert queue.qsize() <= 2


# ---- somebody is stopped at the door ----------------------------------------------------------


@pytest.fixture
def stall(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """So many commits come to their timeout, which is five seconds at least, at once."""
    real, left = StoredLog.commit_until, [0]

    def commit_until(log: StoredLog, position: int, timeout: float | None) -> None:
        if left[0]:
            left[0] -= 1
            raise ringpost.Stalled("a process holds the door")
        real(log, position, timeout)

    monkeypatch.setattr(StoredLog, "commit_until", commit_until)
    return lambda times: left.__setitem__(0, times)


Stall = Callable[[int], None]


def test_an_id_is_sent_once_by_who_was_stalled(durable: ringpost.Broker, stall: Stall) -> None:
    queue = durable.queue("jobs")
    producer = queue.producer(dedup_window=600)
    stall(1)
    with pytest.raises(ringpost.Stalled):
        producer.send("once", message_id="1")
    assert not producer.send("once", message_id="1")
    assert drain(queue) == ["once"]


@pytest.mark.parametrize("overflow", ["block", "drop-oldest"])
def test_a_task_sends_an_id_once(durable: ringpost.Broker, stall: Stall, overflow: Any) -> None:
    queue = durable.queue("jobs")

    async def send() -> None:
        producer = aio.Queue.of(queue).producer(overflow=overflow, dedup_window=600)
        assert await producer.send("first", message_id="0")
        stall(1)
        with pytest.raises(ringpost.Stalled):
            await producer.send("once", message_id="1")
        assert not await producer.send("once", message_id="1")

    asyncio.run(send())
    assert drain(queue) == ["first", "once"]


@pytest.mark.parametrize("window", [None, 600.0], ids=["", "dedup"])
def test_nothing_is_dropped_for_who_was_stalled(
    durable: ringpost.Broker, stall: Stall, window: float | None
) -> None:
    queue = durable.queue("jobs")
    producer = queue.producer(overflow="drop-oldest", dedup_window=window)
    queue.put("confirmed")
    stall(1)
    with pytest.raises(ringpost.Stalled) as caught:
        producer.send("new", message_id="1")
    assert caught.value.put == 1  # type: ignore[attr-defined]
    assert drain(queue) == ["confirmed", "new"]


def test_what_is_lent_is_sent_once(durable: ringpost.Broker, stall: Stall) -> None:
    pytest.importorskip("numpy")
    queue = durable.queue("jobs")
    loan = queue.producer(overflow="drop-oldest").loan(3, "u1")
    loan.array[:] = 7
    stall(1)
    with pytest.raises(ringpost.Stalled):
        loan.commit()
    assert not loan.open
    assert [list(each) for each in drain(queue)] == [[7, 7, 7]]


@pytest.mark.parametrize("strict", [False, True], ids=["", "somebody wants an error"])
@pytest.mark.parametrize("how", ["publish", "publish_many", "loan"])
def test_it_is_published_once(durable: ringpost.Broker, stall: Stall, how: str, strict: bool) -> None:
    topic = durable.topic("news")

    def publish() -> None:
        if how == "publish":
            topic.publish("one")
        elif how == "publish_many":
            topic.publish_many([("", "one")])
        else:
            pytest.importorskip("numpy")
            with topic.loan(3, "u1") as array:
                array[:] = 7

    with topic.subscribe(on_lag="error" if strict else "block") as subscriber:
        stall(1)
        with pytest.raises(ringpost.Stalled) as caught:
            publish()
        assert caught.value.put == 1  # type: ignore[attr-defined]
        assert len(subscriber.receive_many(timeout=5)) == 1
        with pytest.raises(ringpost.Empty):
            subscriber.receive(timeout=0.05)


def test_what_is_due_waits_for_who_is_stopped(durable: ringpost.Broker, disk: Disk, stall: Stall) -> None:
    queue = durable.queue("jobs")
    queue.producer().send("due", delay=0)
    stall(3)
    assert drain(queue) == ["due"]
    assert scheduled(queue) == 0


def test_a_letter_is_written_once_by_who_was_stalled(durable: ringpost.Broker, stall: Stall) -> None:
    queue = durable.queue("jobs")
    queue.put("bad")
    letters = queue.dead_letters()
    with queue.consumer(dead_letters=True) as consumer:
        message = consumer.receive(timeout=5)
        assert len(letters) == 0
        stall(1)
        with pytest.raises(ringpost.Stalled):
            message.reject()
        message.reject()
    assert len(letters) == 1
