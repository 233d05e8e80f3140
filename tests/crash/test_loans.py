"""Who lends or looks is killed: nothing half-written is seen, and the memory comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import numpy
import pytest

import ringpost
from crash.children import Nursery

CAPACITY = 1 << 20
POOL = CAPACITY // 2
LARGE = 300_000  # bytes: the pool holds one
ROUNDS = 40

Queue = ringpost.Queue[Any]


@pytest.fixture
def queue(broker: ringpost.Broker) -> Queue:
    return broker.queue("loans", capacity=CAPACITY)


def write_and_die(queue: Queue, part: float) -> None:
    array = queue.producer().loan(LARGE, "u1").array
    array[: int(LARGE * part)] = 7
    os.kill(os.getpid(), signal.SIGKILL)


def lend_for_ever(queue: Queue) -> None:
    producer = queue.producer()
    number = 0
    while True:
        with producer.loan((3, 10_000), "u1") as array:
            for row in range(3):
                array[row] = number
        del array
        number = (number + 1) % 251


def look_and_wait(queue: Queue, told: Queue) -> None:
    consumer = queue.consumer()
    message = consumer.receive()
    view = message.array
    message.ack()
    del message
    told.put("looking")
    while view[0] == 1:
        time.sleep(0.01)


@pytest.mark.parametrize("part", [0, 0.5, 1])
def test_killed_while_writing(queue: Queue, fork: Nursery, part: float) -> None:
    child = fork(write_and_die, queue, part)
    assert child.wait() == -signal.SIGKILL
    assert queue.empty()
    with queue.producer().loan(LARGE, "u1", timeout=5) as array:  # there is no other room for it
        array[...] = 1
    assert (queue.get(timeout=5) == 1).all()
    assert queue.empty()


def look_at_one(consumer: ringpost.Consumer[Any], timeout: float) -> None:
    """It is whole, also after somebody else might have had its memory."""
    message = consumer.receive(timeout=timeout)
    view = message.array
    assert view.min() == view.max()
    message.ack()
    assert view.min() == view.max()


def test_killed_at_any_time(queue: Queue, fork: Nursery) -> None:
    """Whatever comes is whole, and the pool stays whole, with loaners that die in the middle of things."""
    seen = 0
    for delay in range(ROUNDS):
        child = fork(lend_for_ever, queue)
        with queue.consumer() as consumer:
            look_at_one(consumer, timeout=20)  # it has begun, however busy the machine
            seen += 1
            end = time.monotonic() + delay / 2000
            while time.monotonic() < end:
                with contextlib.suppress(ringpost.Empty):
                    look_at_one(consumer, timeout=0.01)
                    seen += 1
        child.kill()
        while not queue.empty():
            queue.get_nowait()
    assert seen > ROUNDS, "all of them died at their first message"
    queue.put(b"x" * POOL, timeout=5)


def test_a_view_dies_with_its_process(broker: ringpost.Broker, queue: Queue, fork: Nursery) -> None:
    told = broker.queue("told")
    with queue.producer().loan(LARGE, "u1") as array:
        array[...] = 1
    del array
    child = fork(look_and_wait, queue, told)
    assert told.get(timeout=20) == "looking"
    with pytest.raises(ringpost.Full):
        queue.producer(overflow="raise").loan(LARGE, "u1")
    child.kill()
    loan = queue.producer().loan(LARGE, "u1", timeout=5)
    loan.array[...] = 2
    loan.commit()
    assert (queue.get(timeout=5) == numpy.full(LARGE, 2)).all()


def test_a_view_of_the_living_is_not_written_over(queue: Queue, fork: Nursery) -> None:
    """A loaner that waits for room gets it when the view ends, and not before."""
    with queue.producer().loan(LARGE, "u1") as array:
        array[...] = 1
    del array
    with queue.consumer() as consumer:
        message = consumer.receive(timeout=0)
        view = message.array
        message.ack()
        del message
        child = fork(lend_two, queue)
        time.sleep(0.2)
        assert (view == 1).all()
        assert queue.empty()
        del view
        got = consumer.receive(timeout=20)
        assert (got.array == 2).all()
        got.ack()
        del got
        assert child.wait() == 0


def lend_two(queue: Queue) -> None:
    with queue.producer().loan(LARGE, "u1", timeout=30) as array:
        array[...] = 2
