"""Containers that share a queue: who is alive is seen across pid namespaces, where numbers mean nothing."""

from __future__ import annotations

import mmap
import os
import signal
import time
from typing import Any

import pytest

import ringpost
from crash.children import Flag, Nursery
from crash.namespaces import Container, enter_time_namespace, skip_without_pid_namespaces
from crash.segment_file import SegmentFile, path_of

BOUND = 5.0

Queue = ringpost.Queue[Any]


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    skip_without_pid_namespaces()


@pytest.fixture
def queue(broker: ringpost.Broker) -> Queue:
    return broker.queue("q", capacity=128 << 10)


def use(queue: Queue) -> None:
    queue.put(b"message", timeout=BOUND)
    assert queue.get(timeout=BOUND) == b"message"


def take_part(queue: Queue, joined: Flag) -> None:
    queue.qsize()
    joined.set()
    signal.pause()


def test_a_death_inside_is_seen_outside(queue: Queue, fork: Nursery) -> None:
    joined = Flag()
    container = Container(fork, lambda: take_part(queue, joined))
    joined.wait()
    segment = SegmentFile(path_of(queue))
    segment["lock"] = segment.owner(1)
    with pytest.raises(ringpost.Stalled) as caught:
        queue.put(b"x", timeout=0.2)
    assert f"process {container.pid} (1 in its own pid namespace, a container's)" in str(caught.value)
    container.kill()
    use(queue)


def test_a_death_outside_is_seen_inside(queue: Queue, fork: Nursery) -> None:
    joined, stalled, killed = Flag(), Flag(), Flag()
    holder = fork(take_part, queue, joined)
    joined.wait()
    segment = SegmentFile(path_of(queue))
    segment.set_group("lock", segment.owner(holder.pid))

    def inside() -> None:
        queue.put(b"message", timeout=BOUND)
        with pytest.raises(ringpost.Stalled) as caught:
            queue.get(timeout=0.2)
        assert f"process {holder.pid} of another pid namespace (" in str(caught.value)
        stalled.set()
        killed.wait()
        assert queue.get(timeout=BOUND) == b"message"

    container = Container(fork, inside)
    stalled.wait()
    holder.kill()
    killed.set()
    assert container.outside.wait() == 0


def test_one_number_two_processes(queue: Queue, fork: Nursery) -> None:
    """Both are process 1 of theirs: the death of one is not the death of the other."""
    joined = [Flag(), Flag()]
    first = Container(fork, lambda: take_part(queue, joined[0]))
    joined[0].wait()
    segment = SegmentFile(path_of(queue))
    owner = segment.owner(1)
    second = Container(fork, lambda: take_part(queue, joined[1]))
    joined[1].wait()
    second.kill()
    segment["lock"] = owner
    with pytest.raises(ringpost.Stalled, match=rf"process {first.pid} \(1 in"):
        queue.put(b"x", timeout=0.2)
    first.kill()
    use(queue)


@pytest.mark.parametrize("with_proc", [False, True], ids=["the machine's /proc", "its own /proc"])
def test_killed_with_messages_in_its_hands(queue: Queue, fork: Nursery, with_proc: bool) -> None:
    """The next container gets them, at once."""
    queue.put_many([b"one", b"two"])
    taken, done = Flag(), Flag()

    def take() -> None:
        assert len([queue.consumer(prefetch=2).receive(timeout=BOUND) for _ in range(1)]) == 1
        taken.set()
        signal.pause()

    def go_on() -> None:
        with queue.consumer() as consumer:
            for body in (b"one", b"two"):
                with consumer.receive(timeout=BOUND) as message:
                    assert message.body == body
                    assert message.deliveries == (2 if body == b"one" else message.deliveries)
        done.set()

    first = Container(fork, take, with_proc)
    taken.wait()
    (holding,) = {each.pid for each in queue.stats().holdings}
    assert holding == 1
    first.kill()
    second = Container(fork, go_on, with_proc)
    done.wait()
    assert second.outside.wait() == 0


def test_what_keeps_a_ring_full_is_named(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("small", capacity=128 << 10)
    queue.put(b"held")
    taken = Flag()

    def take() -> None:
        message = queue.consumer(prefetch=1).receive(timeout=BOUND)
        assert message.body == b"held"
        taken.set()
        signal.pause()

    container = Container(fork, take)
    taken.wait()
    with pytest.raises(ringpost.Full) as caught:  # noqa: PT012
        while True:
            queue.put(bytes(10_000), block=False)
    assert f"process {container.pid} (1 in its own" in str(caught.value)
    container.kill()


def move(queue: Queue, there: Queue) -> None:
    """Until it is killed, whatever it holds."""
    with queue.consumer(prefetch=HANDS) as consumer, there.producer() as out:
        for message in consumer:
            with message:
                out.send(message.body)


HANDS = 8


def test_a_storm_across_containers(broker: ringpost.Broker, fork: Nursery) -> None:
    """Each process is number 1 of its own. Nothing is lost; what comes twice was in the hands of a dead
    one."""
    queue, there = broker.queue("from", capacity=1 << 20), broker.queue("to", capacity=1 << 20)
    rounds, each, kills = 8, 300, 0
    got: list[int] = []
    alive: list[Container] = []
    for number in range(rounds):
        alive += [Container(fork, lambda: move(queue, there)) for _ in range(2)]
        queue.put_many(range(number * each, (number + 1) * each))
        got.append(there.get(timeout=20))  # they are at work
        while len(alive) > 1:
            alive.pop(0).kill()
            kills += 1
    while len(set(got)) < rounds * each:
        got += there.get_many(1000, timeout=20)
    alive.pop().kill()
    got += there.get_many(1000, block=False) if there.qsize() else []
    assert set(got) == set(range(rounds * each))
    assert len(got) <= rounds * each + kills * HANDS


# ---- what is kept aside ------------------------------------------------------------------------


def test_delayed_and_deduplicated_between_processes_of_one_number(queue: Queue, fork: Nursery) -> None:
    """Both are process 1: LMDB, left to itself, would take one for the other."""
    sent = Flag()

    def send() -> None:
        with queue.producer(dedup_window=60) as out:
            for number in range(50):
                assert out.send(number, message_id=f"id-{number}")
                assert not out.send(number, message_id=f"id-{number}")
                out.send(number + 50, delay=0.2)
        sent.set()
        signal.pause()

    def receive() -> None:
        sent.wait()
        with queue.producer(dedup_window=60) as out:
            assert not any(out.send(number, message_id=f"id-{number}") for number in range(50))
        assert sorted(queue.get(timeout=BOUND) for _ in range(100)) == list(range(100))

    sender = Container(fork, send)
    receiver = Container(fork, receive)
    assert receiver.outside.wait() == 0
    sender.kill()


# ---- time namespaces ---------------------------------------------------------------------------


DAY = 86_400


@pytest.mark.parametrize("ahead", [DAY, -60])
def test_leases_mean_the_same_in_every_time_namespace(queue: Queue, fork: Nursery, ahead: int) -> None:
    """The clock of a container that was moved here shows another time."""
    taken, when = Flag(), memoryview(mmap.mmap(-1, 8)).cast("d")

    def elsewhere() -> None:
        before = time.monotonic()
        enter_time_namespace(ahead)
        take = fork(lambda: (check_clock(before), take_both()))
        os._exit(take.wait())

    def check_clock(before: float) -> None:
        assert abs(time.monotonic() - before - ahead) < 30

    def take_both() -> None:
        consumer = queue.consumer(lease=1, prefetch=1)
        when[0] = time.time()
        messages = [consumer.receive(timeout=BOUND) for _ in range(2)]
        messages[1].nack(delay=1)
        taken.set()
        signal.pause()

    queue.put_many(["leased", "delayed"])
    fork(elsewhere)
    taken.wait()
    assert all(each.seconds < 20 and (each.remaining or 0) <= 1 for each in queue.stats().holdings)
    with queue.consumer(prefetch=1) as consumer:
        bodies = set()
        while len(bodies) < 2:
            with consumer.receive(timeout=BOUND) as message:
                bodies.add(message.body)
                assert time.time() - when[0] > 0.9, (message.body, message.deliveries, queue.stats().holdings)
    assert bodies == {"leased", "delayed"}
