"""A stopped process that holds a lock: others end at their timeouts, told who it is; its death frees them.

A process cannot be stopped at a chosen instruction, so its name is written into the lock's word by hand.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from conformance.patience import BOUND, Call

import ringpost
from crash.children import Child, Nursery
from crash.segment_file import SegmentFile, path_of
from ringpost import aio

LOCKS = ("lock", "pool_lock", "group lock")
GRACE = 1.0  # seconds that a call which must not wait gives a holder
TAKEN_OVER = 2.0  # seconds after its death, at most

Queue = ringpost.Queue[Any]

# call, the lock it needs
CALLS: dict[str, tuple[str, Callable[..., object]]] = {
    "put": ("lock", lambda q, **when: q.put(b"x", **when)),
    "put_many": ("lock", lambda q, **when: q.put_many([b"x", b"y"], **when)),
    "put large": ("pool_lock", lambda q, **when: q.put(bytes(20_000), **when)),
    "commit large": ("lock", lambda q, **when: q.put(bytes(20_000), **when)),
    "get": ("group lock", lambda q, **when: q.get(**when)),
    "get_many": ("group lock", lambda q, **when: q.get_many(1, **when)),
}
each_call = pytest.mark.parametrize(("lock", "call"), CALLS.values(), ids=CALLS)
a_call_for_each_lock = pytest.mark.parametrize(
    ("lock", "call"), [CALLS[name] for name in ("put", "put large", "get")], ids=LOCKS
)


@pytest.fixture
def queue(broker: ringpost.Broker) -> Queue:
    queue = broker.queue("stopped", capacity=128 << 10)
    queue.put_many([b"one", b"two", b"three"])
    return queue


@pytest.fixture
def holder(queue: Queue, fork: Nursery) -> Child:
    """A participant that stands still."""
    return stopped_participant(queue, fork)


def stopped_participant(queue: Queue, fork: Nursery) -> Child:
    child = fork(lambda: (queue.qsize(), signal.pause()))
    child.wait_until_asleep()
    child.stop()
    return child


def hold(queue: Queue, lock: str, holder: Child) -> None:
    segment = SegmentFile(path_of(queue))
    owner = segment.owner(holder.pid)
    if lock == "group lock":
        segment.set_group("lock", owner)
    else:
        segment[lock] = owner


@each_call
def test_a_timeout_ends_the_call_and_names_the_holder(
    queue: Queue, holder: Child, lock: str, call: Callable[..., object]
) -> None:
    hold(queue, lock, holder)
    start = time.monotonic()
    with pytest.raises(ringpost.Stalled, match=rf"\b{holder.pid}\b"):
        call(queue, timeout=0.2)
    assert 0.2 <= time.monotonic() - start < GRACE


@each_call
def test_it_is_the_holder_of_the_lock_in_question_that_is_named(
    queue: Queue, holder: Child, fork: Nursery, lock: str, call: Callable[..., object]
) -> None:
    """Others hold the other locks, as busy processes do all the time."""
    another = stopped_participant(queue, fork)
    for other_lock in LOCKS:
        hold(queue, other_lock, holder if other_lock == lock else another)
    if call is CALLS["commit large"][1]:
        SegmentFile(path_of(queue))["pool_lock"] = 0
    with pytest.raises(ringpost.Stalled, match=rf"\b{holder.pid}\b"):
        call(queue, timeout=0.1)


@a_call_for_each_lock
def test_a_call_that_must_not_wait_ends_too(
    queue: Queue, holder: Child, lock: str, call: Callable[..., object]
) -> None:
    hold(queue, lock, holder)
    start = time.monotonic()
    with pytest.raises(ringpost.Stalled, match=rf"\b{holder.pid}\b"):
        call(queue, block=False)
    assert time.monotonic() - start < GRACE + 0.5


@a_call_for_each_lock
def test_a_call_that_must_not_wait_ends_while_signals_come(
    queue: Queue, holder: Child, lock: str, call: Callable[..., object]
) -> None:
    """A profiler's or a program's own timer: each tick interrupts the wait."""
    hold(queue, lock, holder)
    deadline = time.monotonic() + GRACE + 0.5

    def tick(*_: object) -> None:
        assert time.monotonic() < deadline, "it goes on for ever"

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        with pytest.raises(ringpost.Stalled):
            call(queue, block=False)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@each_call
def test_its_death_frees_the_lock(
    queue: Queue, holder: Child, lock: str, call: Callable[..., object]
) -> None:
    hold(queue, lock, holder)
    with pytest.raises(ringpost.Stalled):
        call(queue, timeout=0.05)
    holder.kill()
    start = time.monotonic()
    call(queue, timeout=TAKEN_OVER)
    assert time.monotonic() - start < TAKEN_OVER


@each_call
def test_its_death_frees_those_who_wait_already(
    queue: Queue, holder: Child, fork: Nursery, lock: str, call: Callable[..., object]
) -> None:
    hold(queue, lock, holder)
    waiting = [fork(call, queue) for _ in range(2)]
    for child in waiting:
        child.wait_until_asleep()
    holder.kill()
    assert [child.wait(TAKEN_OVER) for child in waiting] == [0, 0]


def test_looking_needs_no_lock(queue: Queue, holder: Child) -> None:
    for lock in LOCKS:
        hold(queue, lock, holder)
    assert (queue.qsize(), queue.empty(), queue.full()) == (3, False, False)
    assert not queue.is_shutdown
    queue.task_done()
    with pytest.raises(TimeoutError):
        queue.join(timeout=0.05)


def test_shutting_down_ends_too(queue: Queue, holder: Child) -> None:
    hold(queue, "lock", holder)
    with pytest.raises(ringpost.Stalled, match=rf"\b{holder.pid}\b"):
        queue.shutdown()
    holder.kill()
    queue.shutdown()
    assert list(queue) == [b"one", b"two", b"three"]


def test_deleting_needs_no_lock(queue: Queue, broker: ringpost.Broker, holder: Child, fork: Nursery) -> None:
    hold(queue, "group lock", holder)

    def get() -> None:
        with pytest.raises(ringpost.QueueDeleted):
            queue.get(timeout=5)

    waiting = fork(get)
    waiting.wait_until_asleep()
    assert broker.delete("stopped")
    holder.kill()
    assert waiting.wait(TAKEN_OVER) == 0


@pytest.mark.parametrize(("lock", "what"), [("group lock", "get"), ("lock", "put"), ("group lock", "ack")])
def test_an_event_loop_goes_on(queue: Queue, holder: Child, lock: str, what: str) -> None:
    """Only the task that needs the lock waits; its timeout ends it; it succeeds when the holder is gone."""

    async def main() -> None:
        mine = aio.Queue.of(queue)
        consumer = mine.consumer(prefetch=1)
        message = await consumer.receive()
        hold(queue, lock, holder)
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.005)
                turns += 1

        calls: dict[str, Callable[..., Any]] = {
            "get": lambda **when: mine.get(**when),
            "put": lambda **when: mine.put(b"x", **when),
            "ack": lambda **when: message.ack(),
        }
        other = asyncio.create_task(turn())
        if what != "ack":
            with pytest.raises(ringpost.Stalled):
                await calls[what](timeout=0.5)
        waiting = asyncio.create_task(calls[what]())
        await asyncio.sleep(0.5)
        assert not waiting.done()
        assert turns > 20  # of 100, or of 200
        holder.kill()
        await asyncio.wait_for(waiting, TAKEN_OVER)
        other.cancel()
        await consumer.close()
        await mine.close()

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [None, 3 * GRACE])
def test_waiting_in_a_consumer_goes_on_until_the_timeout(
    queue: Queue, holder: Child, timeout: float | None
) -> None:
    """However it looks around meanwhile."""
    consumer = queue.consumer()
    hold(queue, "group lock", holder)
    start = time.monotonic()
    call = Call(consumer.receive, timeout)
    call.join(2 * GRACE)
    assert call.is_alive()
    if timeout is not None:
        with pytest.raises(ringpost.Stalled, match=rf"\b{holder.pid}\b"):
            call.result()
        assert timeout <= time.monotonic() - start < timeout + GRACE
    SegmentFile(path_of(queue)).set_group("lock", 0)
    message = call.result() if timeout is None else consumer.receive(TAKEN_OVER)
    assert message.body == b"one"


def test_a_forgotten_consumer_waits_for_a_busy_lock(
    queue: Queue, holder: Child, fork: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringpost.consumer._BRIEFLY", BOUND)
    consumer = queue.consumer()
    consumer.receive(0)
    hold(queue, "group lock", holder)
    fork(lambda: (time.sleep(0.1), SegmentFile(path_of(queue)).set_group("lock", 0)))
    del consumer
    gc.collect()
    assert sorted(queue.get(timeout=GRACE) for _ in range(3)) == [b"one", b"three", b"two"]


def test_what_a_forgotten_consumer_had_comes_to_who_waits(queue: Queue, holder: Child) -> None:
    consumer, another = queue.consumer(), queue.consumer(prefetch=1)
    consumer.receive(0)
    hold(queue, "group lock", holder)
    del consumer
    gc.collect()
    call = Call(another.receive)
    assert call.is_blocked()
    SegmentFile(path_of(queue)).set_group("lock", 0)
    bodies = [call.result().body, *(another.receive(BOUND).body for _ in range(2))]
    assert sorted(bodies) == [b"one", b"three", b"two"]


def test_what_close_could_not_give_back_comes_to_others(queue: Queue, holder: Child) -> None:
    consumer, another = queue.consumer(), queue.consumer(prefetch=1)
    consumer.receive(0)
    hold(queue, "group lock", holder)
    with pytest.raises(ringpost.Stalled, match=rf"\b{holder.pid}\b"):
        consumer.close()
    SegmentFile(path_of(queue)).set_group("lock", 0)
    assert sorted(another.receive(BOUND).body for _ in range(3)) == [b"one", b"three", b"two"]
