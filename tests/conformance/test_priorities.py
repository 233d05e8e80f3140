"""Priorities: the highest first, first-in first-out within one, over every way to send and to receive."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, Call, eventually

Queue = ringpost.Queue[Any]


@pytest.fixture
def queue(binding: Any, broker: ringpost.Broker) -> Queue:
    return broker.queue("jobs", priorities=True, capacity=256 << 10)


def test_the_highest_comes_first_and_each_in_order(queue: Queue) -> None:
    producer, sent = queue.producer(), []
    for number in range(200):
        priority = random.Random(number).randrange(10)
        producer.send((priority, number), priority=priority)
        sent.append([priority, number])
    assert queue.qsize() == 200
    assert [queue.get_nowait() for _ in sent] == sorted(sent, key=lambda each: (-each[0], each[1]))


def test_what_has_no_priority_has_the_lowest(queue: Queue) -> None:
    queue.put("plain")
    queue.put_many(["one", "two"])
    queue.producer().send("first", priority=1)
    assert queue.get_many() == ["first"]
    assert queue.get_many() == ["plain", "one", "two"]


def test_a_batch_and_send_many_have_priorities(queue: Queue) -> None:
    producer = queue.producer()
    with producer.batch() as batch:
        batch.send("b1", priority=2)
        batch.send("a1", priority=5)
        batch.send("b2", priority=2)
    assert producer.send_many(["a2", "a3"], priority=5) == 2
    assert [queue.get_nowait() for _ in range(5)] == ["a1", "a2", "a3", "b1", "b2"]


def test_a_message_says_its_priority(queue: Queue) -> None:
    queue.producer().send("x", priority=7, headers={"a": 1})
    queue.producer().send("y")
    with queue.consumer() as consumer:
        first, second = consumer.receive(0), consumer.receive(0)
        assert (first.priority, first.headers, second.priority) == (7, {"a": 1}, 0)
        consumer.ack_many([first, second])
    assert queue.qsize() == 0


def test_what_is_given_back_keeps_its_priority(queue: Queue) -> None:
    queue.producer().send("high", priority=9)
    queue.put("low")
    with queue.consumer(prefetch=1) as consumer, consumer.receive(0) as message:
        message.nack()
        again = consumer.receive(0)
        assert (again.body, again.deliveries) == ("high", 2)
        again.ack()
        assert consumer.receive(0).body == "low"


def test_a_closed_consumer_gives_back_every_priority(queue: Queue) -> None:
    producer = queue.producer()
    for priority in range(10):
        producer.send(priority, priority=priority)
    with queue.consumer() as consumer:
        assert [consumer.receive(0).body for _ in range(10)] == list(range(9, -1, -1))
    assert queue.stats().consumers.in_flight in (0, 10)  # returned: in nobody's hands
    assert [queue.get_nowait() for _ in range(10)] == list(range(9, -1, -1))


def test_messages_of_several_priorities_are_acked_together(queue: Queue) -> None:
    producer = queue.producer()
    for number in range(30):
        producer.send(number, priority=number % 3)
    with queue.consumer() as consumer:
        messages = [consumer.receive(0) for _ in range(30)]
        consumer.ack_many(random.Random(1).sample(messages, 30))
    with pytest.raises(ringpost.Empty):
        queue.get_nowait()
    assert queue.stats().consumers.acked == 30


@pytest.mark.parametrize("priority", [0, 1, 9])
def test_a_sleeper_is_woken_by_any_priority(queue: Queue, priority: int) -> None:
    for take in (queue.get, lambda: queue.consumer().receive().body):
        call = Call(take)
        assert call.is_blocked()
        queue.producer().send("wake up", priority=priority)
        assert call.result() == "wake up"


def test_a_priority_used_first_by_another_process_is_found(queue: Queue, broker: ringpost.Broker) -> None:
    call = Call(queue.get)
    assert call.is_blocked()
    child = os.fork()
    if child == 0:
        try:
            ringpost.connect(broker.url).queue("jobs").producer().send("from elsewhere", priority=6)
        finally:
            os._exit(0)
    assert call.result() == "from elsewhere"
    os.waitpid(child, 0)


def test_closing_ends_a_loop_in_another_thread(queue: Queue) -> None:
    consumer = queue.consumer()
    call = Call(lambda: list(consumer))
    assert call.is_blocked()
    consumer.close()
    assert call.result() == []


def test_timeouts_are_kept(queue: Queue) -> None:
    queue.producer().send("x", priority=3)
    queue.get_nowait()
    start = time.monotonic()
    with pytest.raises(ringpost.Empty):
        queue.get(timeout=0.15)
    assert time.monotonic() - start >= 0.15
    with pytest.raises(ValueError, match="timeout"):
        queue.get(timeout=-1)


def test_shutdown_leaves_what_is_there_and_then_ends(queue: Queue) -> None:
    producer = queue.producer()
    producer.send("left", priority=4)
    call = Call(lambda: list(queue))
    eventually(lambda: queue.qsize() == 0)
    producer.send("right", priority=8)
    queue.shutdown()
    assert call.result() == ["left", "right"]
    for priority in (0, 4, 5):
        with pytest.raises(ringpost.ShutDown):
            producer.send("late", priority=priority)
    with pytest.raises(ringpost.ShutDown):
        queue.get()


def test_shutdown_at_once_discards_every_priority(queue: Queue) -> None:
    queue.producer().send("x", priority=4)
    queue.put("y")
    queue.shutdown(immediate=True)
    with pytest.raises(ringpost.ShutDown):
        queue.get()


@pytest.mark.parametrize("immediate", [False, True])
def test_a_shutdown_whose_process_died_over_it_is_finished_by_who_takes(
    queue: Queue, broker: ringpost.Broker, immediate: bool
) -> None:
    producer = queue.producer()
    producer.send("left", priority=4)
    child = os.fork()
    if child == 0:
        levels: Any = ringpost.connect(broker.url).queue("jobs")._log
        levels.logs = lambda: os.kill(os.getpid(), 9)
        levels.shutdown(immediate)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    assert queue.get() == "left"
    call = Call(queue.get)
    with pytest.raises(ringpost.ShutDown):
        call.result()
    for priority in (0, 4, 5):
        with pytest.raises(ringpost.ShutDown):
            producer.send("late", priority=priority)
    with pytest.raises(ringpost.ShutDown):
        queue.get_nowait()


def test_join_waits_for_every_priority(queue: Queue) -> None:
    queue.producer().send("x", priority=4)
    queue.put("y")
    call = Call(queue.join)
    for _ in range(2):
        assert call.is_blocked()
        queue.get()
        queue.task_done()
    call.result()
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()
    queue.put("z")
    with pytest.raises(TimeoutError):
        queue.join(0.05)


def test_scheduled_messages_keep_their_priority(queue: Queue) -> None:
    queue.producer().send("later", delay=0.05, priority=9)
    queue.put("low")
    time.sleep(0.1)
    assert queue.get(timeout=BOUND) == "later"
    assert queue.get(timeout=BOUND) == "low"


def test_dead_letters_go_back_to_their_priority(queue: Queue) -> None:
    queue.producer().send("poison", priority=9)
    with queue.consumer(max_deliveries=1) as consumer:
        consumer.receive(0).nack()
    queue.producer().send("middle", priority=5)
    assert queue.dead_letters().replay() == 1
    assert queue.get_nowait() == "poison"


def test_a_further_group_gets_every_priority(queue: Queue) -> None:
    producer = queue.producer()
    producer.send("early", priority=1)
    with queue.consumer(group="audit") as audit:
        producer.send("high", priority=9)  # a level made after the group
        queue.put("low")
        assert [queue.get_nowait() for _ in range(3)] == ["high", "early", "low"]
        bodies = []
        for _ in range(3):
            with audit.receive(0) as message:
                bodies.append(message.body)
        assert bodies == ["high", "early", "low"]
        assert [each.name for each in queue.stats().groups] == ["audit"]
        assert queue.stats().groups[0].acked == 3


def test_each_priority_has_its_own_bound(binding: Any, broker: ringpost.Broker) -> None:
    producer = broker.queue("small", maxsize=2, priorities=True).producer(overflow="raise")
    for priority in (0, 5):
        producer.send("a", priority=priority)
        producer.send("b", priority=priority)
        with pytest.raises(ringpost.Full):
            producer.send("c", priority=priority)
    dropping = broker.queue("small").producer(overflow="drop-oldest")
    dropping.send("c", priority=5)
    assert [broker.queue("small").get_nowait() for _ in range(4)] == ["b", "c", "a", "b"]


def test_priorities_must_be_asked_for(binding: Any, broker: ringpost.Broker) -> None:
    plain = broker.queue("plain")
    with pytest.raises(ringpost.Unsupported, match="priorities=True"):
        plain.producer().send("x", priority=1)
    plain.producer().send("x", priority=0)
    with pytest.raises(ringpost.SettingsMismatch):
        broker.queue("plain", priorities=True)
    broker.queue("levels", priorities=True)
    with pytest.raises(ringpost.SettingsMismatch):
        broker.queue("levels", priorities=False)


@pytest.mark.parametrize("priority", [-1, 10, 1.5, "high"])
def test_only_0_to_9(queue: Queue, priority: Any) -> None:
    with pytest.raises(ValueError, match="0 to 9"):
        queue.producer().send("x", priority=priority)
    assert queue.qsize() == 0


def test_a_deleted_queue_takes_its_priorities_with_it(broker: ringpost.Broker, queue: Queue) -> None:
    producer = queue.producer()
    producer.send("x", priority=5)
    call = Call(lambda: (queue.get(), queue.get()))
    assert call.is_blocked()
    broker.delete("jobs")
    with pytest.raises(ringpost.QueueDeleted):
        call.result()
    for priority in (0, 5, 6):
        with pytest.raises(ringpost.QueueDeleted):
            producer.send("late", priority=priority)
    again = broker.queue("jobs", priorities=True)
    again.producer().send("new", priority=5)
    assert again.qsize() == 1
    assert broker.list() == ["jobs"]


def test_a_killed_consumer_loses_none_of_any_priority(queue: Queue, broker: ringpost.Broker) -> None:
    producer = queue.producer()
    for priority in range(10):
        producer.send(priority, priority=priority)
    child = os.fork()
    if child == 0:
        consumer = ringpost.connect(broker.url).queue("jobs").consumer()
        for _ in range(10):
            consumer.receive(0)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    with queue.consumer() as consumer:
        messages = [consumer.receive(BOUND) for _ in range(10)]
        assert sorted(each.body for each in messages) == list(range(10))
        assert all(each.redelivered for each in messages)
        consumer.ack_many(messages)


@pytest.mark.parametrize("disk", [False, True], ids=["memory", "disk"])
def test_a_group_gets_what_is_sent_to_a_level_that_its_maker_left_half_made(
    binding: Any, broker: ringpost.Broker, tmp_path: Any, disk: bool
) -> None:
    with ringpost.connect(f"ring://{tmp_path}/shop" if disk else broker.url) as shop:
        queue = shop.queue("jobs", priorities=True)
        queue.consumer(group="audit").close()
        child = os.fork()
        if child == 0:
            die_before_the_groups_have_places(ringpost.connect(shop.url).queue("jobs"))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
        with pytest.raises(ringpost.Empty):
            queue.get_nowait()  # it has heard of the level
        queue.producer().send_many(range(3), priority=5)
        assert [queue.get_nowait() for _ in range(3)] == [0, 1, 2]
        with queue.consumer(group="audit") as audit:
            messages = [audit.receive(0) for _ in range(3)]
            assert [each.body for each in messages] == [0, 1, 2]
            audit.ack_many(messages)
        if disk:
            shop.destroy()


def die_before_the_groups_have_places(queue: Queue) -> None:
    levels: Any = queue._log

    class Base:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def groups(self) -> None:
            os.kill(os.getpid(), 9)

    real, levels._base = levels._base, Base()
    queue.producer().send("x", priority=5)
