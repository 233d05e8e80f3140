"""Where a log ends is known after everything of it was acked and deleted, whoever stored it."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.patience import BOUND
from crash.children import Nursery
from crash.fixtures import fork as fork

import ringpost
from durable.conftest import Reboot, lose_shared_memory
from ringpost.store import format as form
from ringpost.store import transactions
from ringpost.store.blocks import AT_ONCE
from ringpost.store.transactions import Transactions
from ringpost.store.writer import Writer, _Plan


def blocks(broker: ringpost.Broker) -> int:
    environment = broker._engine._environment()  # type: ignore[attr-defined]
    with environment.read() as transaction:
        return int(transaction.stat(environment.table(form.BLOCKS))["entries"])


def ack_all(queue: ringpost.Queue[Any]) -> None:
    with queue.consumer() as consumer:
        while not queue.empty():
            consumer.ack_many(consumer.receive_many(1000, timeout=BOUND))
    queue.flush(BOUND)


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nothing(*_: Any, **__: Any) -> None:
    """Whoever comes next does it."""


def fail(*_: Any) -> None:
    raise ringpost.StorageFailed(errno.ENOSPC, "the disk is full")


@pytest.mark.parametrize("count", [10, AT_ONCE + 100])
def test_numbers_go_on_after_everything_was_acked(
    durable: ringpost.Broker, reboot: Reboot, count: int
) -> None:
    queue = durable.queue("jobs")
    for number in range(count):  # each in a block of its own
        queue.put(number)
    assert blocks(durable) >= count
    ack_all(queue)
    queue = reboot().queue("jobs")
    assert queue._log.info()["next_sequence"] == count
    assert queue.empty()
    queue.put("behind")
    queue = reboot().queue("jobs")
    assert queue.get(timeout=BOUND) == "behind"
    assert queue._log.info()["next_sequence"] == count + 1


def test_numbers_go_on_where_nothing_is_kept(durable: ringpost.Broker, reboot: Reboot) -> None:
    topic = durable.topic("news", retention=ringpost.Retention(bytes=0))
    with topic.subscribe(name="reader") as reader:
        for number in range(10):
            topic.publish(number)
            reader.receive(BOUND).ack()
        topic._log.flush(BOUND)
    topic = reboot().topic("news")
    assert topic._log.info()["next_sequence"] == 10


def test_who_has_seen_all_of_it_go_learns_of_what_others_store(
    durable: ringpost.Broker, reboot: Reboot, url: str, fork: Nursery
) -> None:
    """Its acks are stored, too."""

    def put() -> None:
        ringpost.connect(url).queue("jobs").put_many(["x"] * 10)

    queue = durable.queue("jobs")
    for _ in range(3):
        assert fork(put).wait() == 0
        ack_all(queue)
    assert reboot().queue("jobs").empty()


def decide(url: str, name: str) -> None:
    """A message is moved to this queue by a transaction; the process dies before it is."""
    broker = ringpost.connect(url)
    message = broker.queue("from " + name).consumer().receive(BOUND)
    transactions._put = die
    with broker.transaction() as tx:
        tx.ack(message)
        tx.send(name, "moved")


def test_what_was_decided_is_sent_once(
    url: str, durable: ringpost.Broker, shm_dir: Path, fork: Nursery
) -> None:
    """The machine reboots, and who carries it out then dies before it has noted that."""

    def prepare() -> None:
        broker = ringpost.connect(url)
        source, queue = broker.queue("from to"), broker.queue("to")
        source.put("one")
        for number in range(7):
            queue.put(bytes(100 + 16 * number))
        assert len(queue.get_many()) == 7
        decide(url, "to")

    def carry_out_and_die() -> None:
        Transactions._end = die  # type: ignore[method-assign]
        ringpost.connect(url).queue("to")

    def store() -> None:
        Transactions.finish_those_of_the_dead = nothing  # type: ignore[method-assign]
        ringpost.connect(url).queue("to").flush(BOUND)

    durable.close()
    assert fork(prepare).wait() == -signal.SIGKILL
    lose_shared_memory(shm_dir)
    assert fork(carry_out_and_die).wait() == -signal.SIGKILL
    assert fork(store).wait() == 0
    assert ringpost.connect(url).queue("to").get_many() == ["moved"]


def test_what_was_decided_acks_nothing_else(
    url: str, durable: ringpost.Broker, shm_dir: Path, fork: Nursery
) -> None:
    """After a reboot, when its record is all that is left, and cannot be carried out at once."""

    def prepare() -> None:
        broker = ringpost.connect(url)
        source, _ = broker.queue("from"), broker.queue("to")
        for number in range(5):
            source.put(f"old {number}")
        consumer = source.consumer()
        consumer.ack_many(consumer.receive_many(4, timeout=BOUND))
        message = consumer.receive(BOUND)

        def store_and_die(*_: Any) -> None:
            source.flush(BOUND)
            die()

        transactions._put = store_and_die
        with broker.transaction() as tx:
            tx.ack(message)
            tx.send("to", "moved")

    def put_new_ones() -> None:
        transactions._put = fail
        Transactions._end = fail  # type: ignore[method-assign]
        source = ringpost.connect(url).queue("from")
        for number in range(7):
            source.put(f"new {number}")

    durable.close()
    assert fork(prepare).wait() == -signal.SIGKILL
    lose_shared_memory(shm_dir)
    assert fork(put_new_ones).wait() == 0
    broker = ringpost.connect(url)
    assert broker.queue("to").get(timeout=BOUND) == "moved"
    assert broker.queue("from").get_many() == [f"new {number}" for number in range(7)]


def test_others_take_what_they_put_while_a_transaction_is_decided(
    url: str, durable: ringpost.Broker, fork: Nursery
) -> None:
    """Whoever carries it out finds what was put since, although nobody else needs it any more."""
    settings: dict[str, Any] = {"capacity": 256 << 10, "durability": "interval"}

    def between(log: Any) -> Callable[..., None]:
        real_write = Writer.write

        def write(self: Writer, *logs: Any, **more: Any) -> None:
            if more.get("then") is not None:
                for _ in range(3):
                    log.put(b"between", durability="memory")
                group = log.group()
                group.settle(group.receive(10, 0, False, None))
            real_write(self, *logs, **more)

        return write

    def decide_meanwhile() -> None:
        broker = ringpost.connect(url)
        broker.queue("from to").put("one")
        Writer.write = between(broker.queue("to", **settings)._log)  # type: ignore[method-assign]
        decide(url, "to")

    def go_on() -> None:
        Transactions.finish_those_of_the_dead = nothing  # type: ignore[method-assign]
        queue = ringpost.connect(url).queue("to", **settings)
        for _ in range(2):  # laps of the ring
            for _ in range(300):
                queue.put(bytes(3000))
                queue.get(timeout=BOUND)
            queue.flush(BOUND)

    durable.close()
    assert fork(decide_meanwhile).wait() == -signal.SIGKILL
    assert fork(go_on).wait() == 0
    assert ringpost.connect(url).queue("to", **settings).get(timeout=BOUND) == "moved"


# ---- what others have stored, and who does not know ---------------------------------------------------


def test_acks_are_stored_after_who_stored_the_message_died_before_he_said_so(
    durable: ringpost.Broker, reboot: Reboot, url: str, fork: Nursery
) -> None:
    def put_and_die() -> None:
        _Plan.publish = die  # type: ignore[method-assign]
        ringpost.connect(url).queue("jobs").put("x")

    queue = durable.queue("jobs")
    queue.put("first")
    ack_all(queue)  # and nothing is stored any more
    assert fork(put_and_die).wait() == -signal.SIGKILL
    with queue.consumer() as consumer:
        consumer.receive(BOUND).ack()
    queue.flush(BOUND)
    assert reboot().queue("jobs").empty()


def test_flush_waits_for_acks_that_are_being_stored(
    durable: ringpost.Broker, reboot: Reboot, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, store, begun = durable.queue("jobs"), _Plan.store, threading.Event()
    queue.put("x")
    committed: list[float] = []

    def slowly(self: _Plan, *args: Any) -> None:
        store(self, *args)
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            time.sleep(0.3)
            committed.append(time.monotonic())

    monkeypatch.setattr(_Plan, "store", slowly)
    with queue.consumer() as consumer:
        consumer.receive(BOUND).ack()
    assert begun.wait(BOUND)
    queue.flush(BOUND)
    assert committed
    assert committed[0] < time.monotonic()
    monkeypatch.undo()
    assert reboot().queue("jobs").empty()


def test_numbers_go_on_although_everything_was_consumed_before_it_was_stored(
    durable: ringpost.Broker, reboot: Reboot
) -> None:
    queue = durable.queue("jobs", durability="memory")
    queue.put_many(range(10))
    ack_all(queue)
    assert reboot().queue("jobs")._log.info()["next_sequence"] == 10


def test_who_gave_up_a_place_has_given_it_up_after_a_reboot(
    durable: ringpost.Broker, reboot: Reboot, url: str, fork: Nursery
) -> None:
    def give_up() -> None:
        topic = ringpost.connect(url).topic("news")
        assert topic.unsubscribe("audit")
        topic.publish("behind")

    topic = durable.topic("news")
    topic.subscribe(name="audit", start="earliest").close()
    topic.publish("before")
    assert fork(give_up).wait() == 0
    assert reboot().topic("news").subscribers() == ()


def test_a_place_that_was_given_up_and_made_anew_elsewhere_is_there_after_a_reboot(
    durable: ringpost.Broker, reboot: Reboot, url: str, fork: Nursery
) -> None:
    def give_up() -> None:
        topic = ringpost.connect(url).topic("news")
        topic.publish(1)
        topic.unsubscribe("audit")
        topic.publish(2)

    def take() -> None:
        ringpost.connect(url).topic("news").subscribe(name="audit", start="earliest").close()
        os._exit(0)

    topic = durable.topic("news")
    topic.subscribe(name="audit", start="earliest").close()
    topic.publish(0)
    assert fork(give_up).wait() == 0
    assert fork(take).wait() == 0
    topic.publish("important")
    with reboot().topic("news").subscribe(name="audit") as audit:
        assert audit.receive_many(10, timeout=BOUND)[-1].body == "important"


@pytest.mark.parametrize("published", [0, 3])
def test_a_place_is_there_when_subscribe_has_returned(
    durable: ringpost.Broker, reboot: Reboot, published: int
) -> None:
    topic, queue = durable.topic("news"), durable.queue("jobs")
    for number in range(published):
        topic.publish(number)
        queue.put(number)
    topic.subscribe(name="audit").close()
    queue.consumer(group="audit").close()
    broker = reboot()
    broker.topic("news").publish("important")
    broker.queue("jobs").put("important")
    with broker.topic("news").subscribe(name="audit") as audit:
        assert audit.receive(BOUND).body == "important"
    with broker.queue("jobs").consumer(group="audit") as audit:
        assert [audit.receive(BOUND).body for _ in range(published + 1)][-1] == "important"


def test_who_was_forked_within_a_commit_is_told_so(
    durable: ringpost.Broker, url: str, fork: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB lets nobody use what a parent has begun."""
    queue = durable.queue("jobs")
    environment = durable._engine._environment()  # type: ignore[attr-defined]

    def put() -> None:
        with pytest.raises(ringpost.StorageFailed, match="forked while its parent"):
            queue.put("from the child")
        with pytest.raises(ringpost.StorageFailed, match="forked while its parent"):
            ringpost.connect(url).queue("others")

    monkeypatch.setattr("ringpost.store.environment._FORK", 0.05)
    with environment.alone(), environment.begin():
        child = fork(put)
    assert child.wait() == 0
    queue.put("from the parent")
