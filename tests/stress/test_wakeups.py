"""Who sleeps is woken by what it waits for, not by the end of a time slice; and told no lies."""

from __future__ import annotations

import statistics
import time
from collections import Counter

import pytest
from crash import stepping
from crash.children import Flag, Nursery
from crash.workers import Site, Work, consume, produce

import ringpost

ROUNDS = 15
SLICE = 0.1  # seconds: a wake-up that went missing costs half of it on average
CAPACITY = 128 << 10


def test_a_wake_up_is_passed_on_while_messages_are_left(broker: ringpost.Broker, fork: Nursery) -> None:
    """One is woken and takes its time; meanwhile more is put, and a third one takes a part of it."""
    if reason := stepping.why_not():
        pytest.skip(reason)
    delays: list[float] = []
    while not delays or (min(delays) >= SLICE / 4 and len(delays) < ROUNDS):  # a busy machine is late, too
        queue = broker.queue(str(len(delays)), capacity=CAPACITY)
        slow = stepping.Held(fork, queue.get)
        other = fork(queue.get)
        time.sleep(SLICE / 3)  # the other one sleeps too now, and will for twice as long
        queue.put("wakes the slow one")
        slow.wait_until_woken()
        queue.put("seen by the third one, who takes the first")
        queue.get()
        queue.put("for the other one")
        start = time.monotonic()
        slow.release()
        assert (slow.child.wait(), other.wait()) == (0, 0)
        delays.append(time.monotonic() - start)
    assert min(delays) < SLICE / 4, sorted(delays)  # else each is what is left of a slice, half of it or more


def test_one_put_wakes_one_of_many_at_once(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q", capacity=CAPACITY)
    reply = broker.queue("reply", capacity=CAPACITY)

    def answer() -> None:
        for item in queue:
            reply.put(item)

    sleepers = [fork(answer) for _ in range(4)]
    for sleeper in sleepers:
        sleeper.wait_until_asleep()
    delays = []
    for number in range(ROUNDS * 4):
        start = time.monotonic()
        queue.put(number)
        assert reply.get(timeout=10) == number
        delays.append(time.monotonic() - start)
        time.sleep(0.002)
    queue.shutdown()
    assert [sleeper.wait() for sleeper in sleepers] == [0] * 4
    assert statistics.median(delays) < SLICE / 4, sorted(delays)


def test_nobody_is_called_stopped_who_is_only_busy(broker: ringpost.Broker, fork: Nursery) -> None:
    """A timeout of 0 meets locks that are held for a microsecond."""
    site = Site(broker.queue("q", capacity=CAPACITY), Work())
    queue, ledger, stop = site.queue, site.ledger, Flag()
    producer = fork(produce, site, ledger.new_life(), stop)
    consumer = fork(consume, site, ledger.new_journal())
    message = site.work.cargo.make(ledger.new_life(), 0)
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for call in (lambda: queue.put(message, timeout=0), lambda: queue.get(timeout=0)):
            try:
                call()
                outcomes["done"] += 1
            except (ringpost.Empty, ringpost.Full) as error:
                outcomes[type(error).__name__] += 1
    stop.set()
    assert producer.wait() == 0
    queue.shutdown()
    assert consumer.wait() == 0
    assert outcomes["done"]
    assert not outcomes["Stalled"], outcomes
