"""What becomes of the messages in the hands of a process that is killed, stopped, or forks."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import pytest

import ringpost
from crash.children import Child, Flag, Nursery
from crash.workers import PATIENCE

Queue = ringpost.Queue[Any]


def hold(queue: Queue, count: int, ready: Flag, **settings: Any) -> None:
    consumer = queue.consumer(**settings)
    held = [consumer.receive(timeout=PATIENCE) for _ in range(count)]
    assert held
    ready.set()
    time.sleep(60)


def holder(fork: Nursery, queue: Queue, count: int, **settings: Any) -> Child:
    ready = Flag()
    child = fork(lambda: hold(queue, count, ready, **settings))
    ready.wait()
    return child


def receive_in_a_child(fork: Nursery, queue: Queue, report: Queue) -> Child:
    def receive() -> None:
        with queue.consumer().receive(timeout=30) as message:
            report.put((message.body, message.deliveries))

    return fork(receive)


@pytest.mark.parametrize("prefetch", [1, 32])
def test_a_sleeper_gets_what_the_killed_one_held(
    broker: ringpost.Broker, fork: Nursery, prefetch: int
) -> None:
    queue, report = broker.queue("q"), broker.queue("report")
    queue.put("work")
    victim = holder(fork, queue, 1, prefetch=prefetch)
    sleeper = receive_in_a_child(fork, queue, report)
    sleeper.wait_until_asleep()
    with pytest.raises(ringpost.Empty):
        report.get(timeout=0.3)
    victim.kill()
    assert report.get(timeout=PATIENCE) == ["work", 2]
    assert sleeper.wait() == 0
    assert queue.stats().consumers.redelivered == 1


def test_what_was_only_fetched_ahead_comes_again_too(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q")
    queue.put_many(range(100))
    holder(fork, queue, 1, prefetch=100).kill()
    with queue.consumer() as consumer:
        bodies = []
        for _ in range(100):
            with consumer.receive(timeout=PATIENCE) as message:
                bodies.append(message.body)
    assert sorted(bodies) == list(range(100))


def test_several_dead_consumers_lose_nothing(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q")
    queue.put_many(range(60))
    victims = [holder(fork, queue, 10, prefetch=10) for _ in range(3)]
    for victim in victims:
        victim.kill()
    with queue.consumer() as consumer:
        messages = [consumer.receive(timeout=PATIENCE) for _ in range(60)]
        assert sorted(each.body for each in messages) == list(range(60))
        assert sum(each.redelivered for each in messages) == 30
        consumer.ack_many(messages)


def test_a_stopped_process_keeps_what_it_holds(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q")
    queue.put("work")
    child = holder(fork, queue, 1)
    child.stop()
    with queue.consumer() as consumer:
        with pytest.raises(ringpost.Empty):
            consumer.receive(timeout=0.5)
        child.kill()
        assert consumer.receive(timeout=PATIENCE).body == "work"


def test_a_stopped_process_whose_lease_ends_finds_it_lost(broker: ringpost.Broker, fork: Nursery) -> None:
    queue, report, ready, go = broker.queue("q"), broker.queue("report"), Flag(), Flag()
    queue.put("work")

    def ack_late() -> None:
        message = queue.consumer(lease=0.2).receive(timeout=PATIENCE)
        ready.set()
        go.wait(30)
        try:
            message.ack()
        except ringpost.LeaseLost as lost:
            report.put([each.body for each in lost.messages])

    child = fork(ack_late)
    ready.wait()
    child.stop()
    with queue.consumer() as consumer:
        message = consumer.receive(timeout=PATIENCE)
        assert (message.body, message.deliveries) == ("work", 2)
        go.set()
        child.proceed()
        assert report.get(timeout=PATIENCE) == ["work"]
        message.ack()
    assert child.wait() == 0
    assert (queue.qsize(), queue.stats().consumers.acked) == (0, 1)


def test_a_forked_child_holds_nothing(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q")
    queue.put_many(["mine", "ours"])
    consumer = queue.consumer(prefetch=1)
    message = consumer.receive(timeout=PATIENCE)

    def try_to_ack() -> None:
        with pytest.raises(ringpost.LeaseLost):
            message.ack()
        with consumer.receive(timeout=PATIENCE) as other:
            assert other.body == "ours"
        consumer.close()

    assert fork(try_to_ack).wait() == 0
    message.ack()
    assert queue.stats().consumers.acked == 2


def test_ctrl_c_in_receive_loses_nothing(broker: ringpost.Broker, fork: Nursery) -> None:
    queue, report = broker.queue("q"), broker.queue("report")

    def interrupted() -> None:
        consumer = queue.consumer(prefetch=4)
        while True:
            try:
                consumer.receive(timeout=PATIENCE).ack()
                report.put("acked")
            except KeyboardInterrupt:
                report.put("interrupted")

    child = fork(interrupted)
    for _ in range(5):
        child.wait_until_asleep()
        child.send(signal.SIGINT)
        assert report.get(timeout=PATIENCE) == "interrupted"
    queue.put_many(range(10))
    assert [report.get(timeout=PATIENCE) for _ in range(10)] == ["acked"] * 10
    child.kill()


def test_a_message_is_in_the_queue_or_in_the_dead_letters(broker: ringpost.Broker, fork: Nursery) -> None:
    """Killed while it gives messages up: perhaps in both, never in neither."""
    queue, letters = broker.queue("q"), broker.queue("q.dead")

    def reject_all() -> None:
        with queue.consumer(prefetch=1, dead_letters=True) as consumer:
            while queue.stats().ready or queue.stats().consumers.in_flight:
                consumer.receive(timeout=PATIENCE).reject("tried")

    total = 400
    queue.put_many(range(total))
    for _ in range(30):
        child = fork(reject_all)
        time.sleep(random.uniform(0.002, 0.02))
        child.kill()
    reject_all()
    found = set()
    with letters.consumer(prefetch=1) as consumer:
        while letters.qsize():
            message = consumer.receive(timeout=PATIENCE)
            found.add(message.body)
            message.ack()
    assert found == set(range(total))


def test_the_pid_of_a_holder_is_told(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q")
    queue.put_many(range(5))
    child = holder(fork, queue, 3, prefetch=1)
    holdings = queue.stats().holdings
    assert {each.pid for each in holdings} == {child.pid}
    assert sum(each.messages for each in holdings) == 3
    assert os.getpid() != child.pid
