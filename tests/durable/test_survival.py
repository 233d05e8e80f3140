"""What is still there after every process died, and after a reboot."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from crash.children import Nursery
from crash.fixtures import fork as fork

import ringpost
from durable.conftest import Reboot
from ringpost.engines.durable import DurableEngine

LARGE = 100_000  # bytes: travels through the pool


def drain(queue: ringpost.Queue[Any]) -> list[Any]:
    items: list[Any] = []
    while True:
        try:
            items += queue.get_many(block=False)
        except ringpost.Empty:
            return items


def test_what_was_put_is_there_after_a_reboot(durable: ringpost.Broker, reboot: Reboot) -> None:
    queue = durable.queue("jobs")
    items = ["text", b"bytes", 7, {"a": [1, 2.5, None]}, "ü" * 1000, b"x" * LARGE, ""]
    for item in items:
        queue.put(item)
    queue.put_many(range(5000))
    again = reboot().queue("jobs", create=False)
    assert again.qsize() == 5007
    assert drain(again) == [*items, *range(5000)]


def test_it_says_what_it_found(
    durable: ringpost.Broker, reboot: Reboot, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ringpost")
    durable.queue("jobs").put_many(range(10))
    assert caplog.messages == []
    assert durable.recovered() == ()
    again = reboot()
    again.queue("jobs")
    again.topic("new")
    assert again.recovered() == (("queue", "jobs", 10, 10),)
    (said,) = caplog.messages
    assert "queue 'jobs'" in said
    assert "goes on from disk at message 10; 10 wait in it" in said


def test_arrays_survive(durable: ringpost.Broker, reboot: Reboot) -> None:
    arrays = [np.arange(10), np.ones((200, 300), "f4"), np.zeros(0)]
    for array in arrays:
        durable.queue("arrays").put(array)
    again = reboot().queue("arrays")
    for array in arrays:
        found = again.get()
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)


def test_what_was_got_is_gone(durable: ringpost.Broker, reboot: Reboot) -> None:
    queue = durable.queue("jobs")
    queue.put_many(range(100))
    assert [queue.get() for _ in range(30)] == list(range(30))
    queue.flush()
    again = reboot().queue("jobs")
    assert drain(again) == list(range(30, 100))


def test_sequences_and_positions_go_on(durable: ringpost.Broker, reboot: Reboot) -> None:
    durable.queue("jobs").put_many(range(10))
    broker = durable
    for _ in range(3):
        broker = reboot()
        queue = broker.queue("jobs")
        queue.put("more")
    consumer = queue.consumer()
    assert [consumer.receive(0).sequence for _ in range(13)] == list(range(13))


def test_what_was_held_comes_again_and_what_was_acked_does_not(
    durable: ringpost.Broker, reboot: Reboot
) -> None:
    queue = durable.queue("jobs")
    queue.put_many(range(300))
    consumer = queue.consumer()
    messages = consumer.receive_many(200)
    consumer.ack_many([one for one in messages if one.body % 3])
    queue.put("commit")
    # the consumer's process is dead: nothing is given back
    consumer._ahead.clear()
    consumer._held.clear()
    again = reboot().queue("jobs").consumer()
    found = [again.receive(0) for _ in range(again._group.info()["ready"])]
    expected = [n for n in range(200) if n % 3 == 0] + list(range(200, 300))
    assert sorted(one.body for one in found[:-1]) == expected
    assert found[-1].body == "commit"
    assert all(one.deliveries == 2 for one in found[:-1] if one.body < 200)
    assert all(one.deliveries == 1 for one in found[:-1] if one.body >= 200)


def test_everybody_is_killed_and_nothing_is_lost_whatever_the_level(url: str, durable: Any) -> None:
    """The ring is still in shared memory."""
    names = ("memory", "interval", "commit")
    child = os.fork()
    if child == 0:
        broker = ringpost.connect(url)
        for name in names:
            broker.queue(name, durability=name).put_many(range(1000))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    for name in names:
        assert drain(durable.queue(name)) == list(range(1000))


def test_levels_say_what_a_reboot_takes(durable: ringpost.Broker, reboot: Reboot) -> None:
    for level in ("memory", "interval", "commit"):
        durable.queue(level, durability=level).put_many(range(10))
    mixed = durable.queue("mixed", durability="memory")
    mixed.put("not yet")
    mixed.put("and what was put before it", durability="commit")
    mixed.put("gone", durability="memory")
    durable.queue("flushed", durability="memory").put("x")
    durable.queue("flushed").flush()
    deadline = time.monotonic() + 20
    storage = durable.queue("interval")._log.storage
    while storage.stored.durable() < storage.stored.tail():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    broker = reboot()
    assert drain(broker.queue("memory")) == []
    assert drain(broker.queue("interval")) == list(range(10))
    assert drain(broker.queue("commit")) == list(range(10))
    assert drain(broker.queue("mixed")) == ["not yet", "and what was put before it"]
    assert drain(broker.queue("flushed")) == ["x"]


def test_settings_survive(durable: ringpost.Broker, reboot: Reboot) -> None:
    durable.queue("small", capacity=1 << 20, maxsize=50, durability="interval")
    again = reboot()
    queue = again.queue("small")
    assert (queue.capacity, queue.maxsize) == (1 << 20, 50)
    with pytest.raises(ringpost.SettingsMismatch, match="durability='interval'"):
        again.queue("small", durability="commit")
    with pytest.raises(ringpost.SettingsMismatch, match="maxsize=50"):
        again.queue("small", maxsize=51)
    assert again.list() == ["small"]


def test_maxsize_counts_what_is_on_disk(durable: ringpost.Broker, reboot: Reboot) -> None:
    queue = durable.queue("small", maxsize=3)
    queue.put_many("abc")
    with pytest.raises(ringpost.Full):
        queue.put_nowait("d")
    again = reboot().queue("small")
    with pytest.raises(ringpost.Full):
        again.put_nowait("d")
    assert again.get() == "a"
    again.put_nowait("d")
    assert drain(again) == ["b", "c", "d"]


def test_tasks_are_counted_on(durable: ringpost.Broker, reboot: Reboot) -> None:
    queue = durable.queue("jobs")
    queue.put_many(range(5))
    assert queue.get() == 0
    queue.task_done()
    queue.put("commit")
    again = reboot().queue("jobs")
    assert drain(again) == [1, 2, 3, 4, "commit"]
    with pytest.raises(TimeoutError):
        again.join(timeout=0.01)
    for _ in range(5):
        again.task_done()
    again.join(timeout=5)


def test_deleted_queues_stay_deleted(durable: ringpost.Broker, reboot: Reboot) -> None:
    durable.queue("jobs").put_many(range(1000))
    durable.queue("jobs").put(b"x" * LARGE)
    assert durable.delete("jobs")
    assert not durable.delete("jobs")
    broker = reboot()
    with pytest.raises(ringpost.QueueNotFound):
        broker.queue("jobs", create=False)
    assert broker.queue("jobs").qsize() == 0
    assert broker.list() == ["jobs"]


def test_priorities_survive(durable: ringpost.Broker, reboot: Reboot) -> None:
    queue = durable.queue("jobs", priorities=True)
    with queue.producer() as producer:
        for number in range(30):
            producer.send(number, priority=number % 3)
    again = reboot().queue("jobs")
    expected = sorted(range(30), key=lambda number: -(number % 3))
    assert [again.get(timeout=5) for _ in range(30)] == expected
    assert reboot().delete("jobs")


def test_delays_dedup_and_dead_letters_survive(durable: ringpost.Broker, reboot: Reboot) -> None:
    queue = durable.queue("jobs")
    with queue.producer(dedup_window=1000) as producer:
        assert producer.send("once", message_id="1")
        producer.send("later", delay=0.3)
    consumer = queue.consumer(max_deliveries=1)
    consumer.receive(5).reject("bad")
    queue.flush()
    broker = reboot()
    again = broker.queue("jobs")
    with again.producer(dedup_window=1000) as producer:
        assert not producer.send("once", message_id="1")
    assert again.get(timeout=5) == "later"
    ((death, letter),) = again.dead_letters()
    assert (letter.body, death.reason) == ("once", "bad")
    assert again.dead_letters().replay() == 1
    assert again.get(timeout=5) == "once"


def test_named_subscribers_keep_their_place(durable: ringpost.Broker, reboot: Reboot) -> None:
    topic = durable.topic("prices")
    subscriber = topic.subscribe("eu.*", name="audit")
    for number in range(100):
        topic.publish(number, subject="eu.dax" if number % 2 else "us.spx")
    for expected in (1, 3, 5):
        with subscriber.receive(5) as message:
            assert message.body == expected
    topic.publish("commit", subject="eu.end")
    again = reboot().topic("prices")
    assert again.subscribers() == ("audit",)
    late = again.subscribe("eu.*", name="audit")
    bodies = []
    while not bodies or bodies[-1] != "commit":
        with late.receive(5) as message:
            bodies.append(message.body)
    assert bodies == [*range(7, 100, 2), "commit"]


def test_the_last_values_survive(durable: ringpost.Broker, reboot: Reboot) -> None:
    topic = durable.topic("prices")
    topic.publish(1, subject="eu.dax", retain=True)
    topic.publish(2, subject="eu.dax", retain=True)
    with reboot().topic("prices").subscribe("#", retained=True) as subscriber:
        assert subscriber.receive(5).body == 2


def test_groups_of_a_queue_survive(durable: ringpost.Broker, reboot: Reboot) -> None:
    queue = durable.queue("jobs")
    copy = queue.consumer(group="copy")
    queue.put_many(range(10))
    with copy.receive(5) as message:
        assert message.body == 0
    assert drain(queue) == list(range(10))
    copy.close()
    queue.put("commit")
    again = reboot().queue("jobs")
    assert drain(again) == ["commit"]
    rest = again.consumer(group="copy")
    assert [rest.receive(5).body for _ in range(10)] == [*range(1, 10), "commit"]


class ActsAfter:
    """`inner`, and something that others do as soon as `name` has been called."""

    def __init__(self, inner: Any, name: str, act: Callable[[], object]) -> None:
        self._inner, self._name, self._act = inner, name, act

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._inner, name)
        if name != self._name:
            return attribute

        def call(*arguments: Any) -> Any:
            found = attribute(*arguments)
            self._act()
            return found

        return call


@pytest.mark.parametrize("stored_before", [True, False])
def test_a_group_that_acks_while_it_is_stored_finds_its_messages(
    url: str, reboot: Reboot, stored_before: bool
) -> None:
    """The group is stored as it was; so its messages must be, too."""
    child = os.fork()
    if child == 0:
        queue = ringpost.connect(url).queue("jobs")
        for number in range(3):
            queue.put(number, durability="commit" if stored_before else "memory")
        storage: Any = queue._log.storage  # type: ignore[attr-defined]
        storage.stored = ActsAfter(storage.stored, "groups", queue.get)
        queue.put(3, durability="commit")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    again = reboot().queue("jobs", create=False)
    assert drain(again) == [0, 1, 2, 3]


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("first", ["one that dies", "flush"])
def test_priorities_and_schedules_are_known_whoever_makes_the_ring_again(
    durable: ringpost.Broker,
    reboot: Reboot,
    fork: Nursery,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
) -> None:
    def open_and_die() -> None:
        monkeypatch.setattr(DurableEngine, "_note_what_was_recovered", die)
        again.queue("jobs")

    with durable.queue("jobs", priorities=True).producer() as producer:
        producer.send("urgent", priority=5)
        producer.send("later", delay=0.1)
    again = reboot()
    if first == "flush":
        again.flush()
    else:
        assert fork(open_and_die).wait() == -signal.SIGKILL
    queue = again.queue("jobs")
    assert [queue.get(timeout=5), queue.get(timeout=5)] == ["urgent", "later"]
