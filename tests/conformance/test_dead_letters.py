"""Dead letters: what nobody could handle lies in a queue of its own, says why, and can go back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND
from ringpost import aio

Queue = ringpost.Queue[Any]


@pytest.fixture
def queue(binding: Any, broker: ringpost.Broker) -> Queue:
    return broker.queue("jobs")


def fail(queue: Queue, times: int, **settings: Any) -> None:
    with queue.consumer(prefetch=1, **settings) as consumer:
        for _ in range(times):
            consumer.receive(BOUND).nack()


def test_after_so_many_deliveries_it_is_given_up(queue: Queue) -> None:
    queue.producer().send("poison", headers={"a": 1}, message_id="id-7")
    fail(queue, 3, max_deliveries=3)
    assert (queue.qsize(), len(queue.dead_letters())) == (0, 1)
    ((death, letter),) = queue.dead_letters().peek()
    assert (death.reason, death.queue, death.deliveries, death.sequence) == ("max_deliveries", "jobs", 3, 0)
    assert death.pid == os.getpid()
    assert death.sent_ns <= death.died_ns <= time.time_ns()
    assert (letter.body, letter.id, letter.headers["a"]) == ("poison", "id-7", 1)
    assert queue.stats().dead_lettered == 1


def test_it_is_given_up_too_if_its_consumers_die_of_it(queue: Queue, broker: ringpost.Broker) -> None:
    queue.put("poison")
    for _ in range(2):
        child = os.fork()
        if child == 0:
            queue.consumer().receive(BOUND)
            os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
    queue.put("good")
    with queue.consumer(max_deliveries=2) as consumer:
        assert consumer.receive(BOUND).body == "good"
        with pytest.raises(ringpost.Empty):
            consumer.receive(0.3)
    assert [letter.body for _, letter in queue.dead_letters()] == ["poison"]


def test_a_rejected_one_says_why(queue: Queue) -> None:
    queue.put_many("ab")
    with queue.consumer(dead_letters=True) as consumer:
        consumer.receive(0).reject("no such customer")
        consumer.receive(0).nack(requeue=False)
    assert [death.reason for death, _ in queue.dead_letters()] == ["no such customer", "nacked"]
    assert queue.stats().consumers.rejected == 2


def test_without_dead_letters_it_goes_away(queue: Queue, broker: ringpost.Broker) -> None:
    queue.put("x")
    with queue.consumer() as consumer:
        consumer.receive(0).reject()
    assert broker.list() == ["jobs"]
    assert queue.stats().dead_lettered == 0


def test_an_expired_one_is_a_dead_letter(queue: Queue) -> None:
    queue.producer().send("late", ttl=0.01)
    queue.producer().send("in time", ttl=60)
    time.sleep(0.05)
    with queue.consumer(dead_letters=True) as consumer:
        assert consumer.receive(0).body == "in time"
    ((death, letter),) = queue.dead_letters().peek()
    assert (death.reason, letter.body) == ("expired", "late")
    assert queue.stats().consumers.expired == 1


def test_a_queue_of_any_name_holds_them(queue: Queue, broker: ringpost.Broker) -> None:
    queue.put("x")
    with queue.consumer(dead_letters="morgue") as consumer:
        consumer.receive(0).reject()
    assert len(queue.dead_letters("morgue")) == 1
    assert "morgue" in broker.list()


def test_replay_puts_them_back_as_they_were(queue: Queue) -> None:
    for number in range(5):
        queue.producer().send(number, headers={"n": number})
    fail(queue, 5, max_deliveries=1)
    letters = queue.dead_letters()
    assert letters.replay(2) == 2
    assert (len(letters), queue.qsize()) == (3, 2)
    assert letters.replay() == 3
    assert letters.replay() == 0
    with queue.consumer() as consumer:
        messages = [consumer.receive(0) for _ in range(5)]
        assert [each.body for each in messages] == list(range(5))
        assert [each.headers for each in messages] == [{"n": number} for number in range(5)]
        assert not any(each.redelivered for each in messages)


def test_looking_takes_nothing(queue: Queue) -> None:
    queue.put_many("abc")
    fail(queue, 3, max_deliveries=1)
    letters = queue.dead_letters()
    assert [letter.body for _, letter in letters.peek(2)] == ["a", "b"]
    assert [letter.body for _, letter in letters] == ["a", "b", "c"]
    assert len(letters) == 3
    assert "jobs" in repr(letters)


def test_a_large_one_goes_there_and_back(queue: Queue) -> None:
    body = bytes(300_000)
    queue.put(body)
    fail(queue, 1, max_deliveries=1)
    assert queue.dead_letters().replay() == 1
    assert queue.get_nowait() == body


def test_what_cannot_be_decoded_goes_there_and_back(queue: Queue) -> None:
    queue._log.send_raw(1, b"\xff")
    fail(queue, 1, max_deliveries=1)
    assert queue.dead_letters().replay() == 1
    with pytest.raises(ringpost.DecodeError):
        queue.get_nowait()


def test_full_dead_letters_lose_nothing(queue: Queue, broker: ringpost.Broker) -> None:
    broker.queue("jobs.dead", maxsize=1)
    queue.put_many("ab")
    with queue.consumer(prefetch=1, max_deliveries=1) as consumer:
        consumer.receive(0).nack()
        message = consumer.receive(0)
        with pytest.raises(ringpost.Full):
            message.nack()
        assert not message.settled
    assert queue.get(timeout=BOUND) == "b"


def give_up(queue: Queue, bodies: Iterable[object]) -> None:
    """At once."""
    count = queue.put_many(bodies)
    with queue.consumer(max_deliveries=1) as consumer:
        for _ in range(count):
            consumer.receive(0).nack()


def test_one_that_is_acked_in_a_loop_over_them_is_gone(queue: Queue) -> None:
    give_up(queue, range(10))
    for _, letter in queue.dead_letters():
        if letter.body % 2:
            letter.ack()
    assert [letter.body for _, letter in queue.dead_letters()] == [0, 2, 4, 6, 8]
    for _, letter in queue.dead_letters():
        letter.ack()
        break
    assert [letter.body for _, letter in queue.dead_letters()] == [2, 4, 6, 8]


def test_all_of_them_are_seen_however_many(queue: Queue) -> None:
    give_up(queue, range(3000))
    letters = queue.dead_letters()
    assert [letter.body for _, letter in letters] == list(range(3000))
    assert sorted(letter.body for _, letter in letters.peek(3000)) == list(range(3000))
    assert len(letters.peek(2500)) == 2500
    assert letters.peek(0) == []
    assert len(letters) == 3000


def test_a_replay_without_room_says_how_far_it_came(binding: Any, broker: ringpost.Broker) -> None:
    queue: Queue = broker.queue("small", maxsize=3)
    give_up(queue, "abc")
    queue.put("in the way")
    with pytest.raises(ringpost.Full) as full:
        queue.dead_letters().replay()
    assert full.value.put == 2  # type: ignore[attr-defined]
    assert [queue.get_nowait() for _ in range(3)] == ["in the way", "a", "b"]
    assert queue.dead_letters().replay() == 1
    assert queue.get_nowait() == "c"


def test_a_replay_of_a_queue_that_has_ended_keeps_them(queue: Queue) -> None:
    give_up(queue, "ab")
    queue.shutdown()
    with pytest.raises(ringpost.ShutDown):
        queue.dead_letters().replay()
    assert [letter.body for _, letter in queue.dead_letters()] == ["a", "b"]


def test_one_that_fails_again_after_a_replay_is_back_with_its_newest_death(queue: Queue) -> None:
    letters = queue.dead_letters()
    give_up(queue, ["poison"])
    ((first, _),) = letters.peek()
    letters.replay()
    with queue.consumer(dead_letters=True) as consumer:
        consumer.receive(0).reject("once more")
    ((second, letter),) = letters.peek()
    assert (first.reason, second.reason) == ("max_deliveries", "once more")
    assert first.died_ns <= second.died_ns
    assert second.sequence == first.sequence + 1
    assert list(letter.headers) == ["x-death"]


def test_deleting_them_empties_them_for_consumers_at_work_too(queue: Queue, broker: ringpost.Broker) -> None:
    queue.put_many("ab")
    letters = queue.dead_letters()
    with queue.consumer(max_deliveries=1, prefetch=1) as consumer:
        consumer.receive(0).nack()
        broker.delete("jobs.dead")
        assert len(letters) == 0
        consumer.receive(0).nack()
    assert [letter.body for _, letter in letters] == ["b"]
    assert [letter.body for _, letter in queue.dead_letters()] == ["b"]


def test_one_that_expired_in_a_consumers_hands_is_given_up_when_it_comes_back(queue: Queue) -> None:
    queue.producer().send("slow", ttl=0.1)
    with queue.consumer(dead_letters=True) as consumer:
        message = consumer.receive(0)
        time.sleep(0.12)
        assert message.expired
        message.nack()
        with pytest.raises(ringpost.Empty):
            consumer.receive(0)
    assert [death.reason for death, _ in queue.dead_letters()] == ["expired"]


def test_one_that_is_acked_late_but_in_hand_is_no_dead_letter(queue: Queue) -> None:
    queue.producer().send("slow", ttl=0.1)
    with queue.consumer(dead_letters=True) as consumer, consumer.receive(0):
        time.sleep(0.12)
    assert len(queue.dead_letters()) == 0
    assert queue.stats().consumers.acked == 1


def test_it_may_be_told_to_throw_away(queue: Queue, broker: ringpost.Broker) -> None:
    queue.put("x")
    with queue.consumer(max_deliveries=1, dead_letters=False) as consumer:
        consumer.receive(0).nack()
        with pytest.raises(ringpost.Empty):
            consumer.receive(0)
    assert broker.list() == ["jobs"]
    queue.join(0)


def test_giving_up_is_a_task_done(queue: Queue) -> None:
    queue.put_many("abc")
    with queue.consumer(prefetch=1, dead_letters=True) as consumer:
        for _ in range(3):
            consumer.receive(0).reject()
        queue.join(0)


def test_a_replay_keeps_priorities(binding: Any, broker: ringpost.Broker) -> None:
    queue: Queue = broker.queue("ranked", priorities=True)
    for priority in (0, 9, 5):
        queue.producer().send(priority, priority=priority)
    with queue.consumer(prefetch=1, dead_letters=True) as consumer:
        for _ in range(3):
            consumer.receive(0).reject()
    assert queue.dead_letters().replay() == 3
    assert [queue.get_nowait() for _ in range(3)] == [9, 5, 0]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_what_waits_behind_one_that_kills_is_not_given_up(queue: Queue, most: int) -> None:
    queue.put("poison")
    queue.put_many(range(10))
    for _ in range(most):
        child = os.fork()
        if child == 0:
            queue.consumer(max_deliveries=most, dead_letters=False).receive(BOUND)
            os.kill(os.getpid(), 9)
        os.waitpid(child, 0)
    with queue.consumer(max_deliveries=most, dead_letters=False) as consumer:
        received = set()
        with contextlib.suppress(ringpost.Empty):
            while True:
                received.add(consumer.receive(0.2).body)
    assert received - {"poison"} == set(range(10))


def test_what_was_delivered_before_keeps_its_order(queue: Queue) -> None:
    queue.put_many(range(40))
    with queue.consumer() as consumer:
        for message in consumer.receive_many(20, 0):
            message.nack()
    with queue.consumer(max_deliveries=3) as consumer:
        for number in range(40):
            with consumer.receive(0) as message:
                assert (message.body, message.deliveries) == (number, 1 + (number < 20))


def refuse_letters(broker: ringpost.Broker, how: str) -> ringpost.Queue[Any]:
    """Dead letters of "jobs" that take none."""
    if how == "full":
        letters: Queue = broker.queue("jobs.dead", maxsize=1)
        letters.put("in the way")
    elif how == "too small":
        letters = broker.queue("jobs.dead", capacity=128 << 10)
    else:
        letters = broker.queue("jobs.dead")
        letters.shutdown()
    return letters


@pytest.mark.parametrize("how", ["full", "too small", "shut down"])
def test_one_without_a_letter_leaves_the_others_of_its_batch_alone(
    queue: Queue, broker: ringpost.Broker, how: str
) -> None:
    refuse_letters(broker, how)
    with queue.consumer(prefetch=1) as consumer:
        queue.put(bytes(1 << 20))
        consumer.receive(0).nack()
        consumer.receive(0).nack()
    queue.put_many(range(10))
    with queue.consumer(max_deliveries=2) as consumer:
        received = consumer.receive_many(20, 0)
        assert [each.body for each in received] == list(range(10))
        consumer.ack_many(received)
        with pytest.raises(ringpost.Empty):
            consumer.receive(0)
    with queue.consumer() as consumer:
        assert consumer.receive(BOUND).deliveries >= 3  # it is there still


def test_a_loop_goes_on_though_dead_letters_have_ended(queue: Queue, broker: ringpost.Broker) -> None:
    refuse_letters(broker, "shut down")
    queue.producer().send("late", ttl=0.01)
    queue.put("last")
    time.sleep(0.05)
    received = []
    with queue.consumer(dead_letters=True) as consumer:
        for message in consumer:
            received.append(message.body)
            message.ack()
            if message.body == "last":
                break
    assert received == ["last"]


def test_what_came_with_one_that_raises_is_for_the_next_call(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = queue.producer()
    for number in range(10):
        out.send(number, ttl=0.01 if number == 4 else 60)
    time.sleep(0.05)
    with queue.consumer(dead_letters=True) as consumer:
        with monkeypatch.context() as patch:
            patch.setattr(consumer, "_bury", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                consumer.receive_many(20, 0)
        again = consumer.receive_many(20, 0)
        assert [each.body for each in again] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        consumer.ack_many(again)
    assert queue.qsize() == 1


@pytest.mark.parametrize("how", ["full", "too small", "shut down"])
def test_the_error_in_a_block_goes_on_though_there_is_no_room_for_a_letter(
    queue: Queue, broker: ringpost.Broker, how: str
) -> None:
    refuse_letters(broker, how)
    queue.put(bytes(1 << 20))
    with queue.consumer(max_deliveries=1, dead_letters=True) as consumer:
        with pytest.raises(ZeroDivisionError), consumer.receive(0) as message:
            raise ZeroDivisionError
        assert message.settled
        with pytest.raises(ringpost.Empty):  # it was handed out as often as it may be
            consumer.receive(1.5)
    with queue.consumer() as consumer:
        assert consumer.receive(BOUND).deliveries == 2


def test_the_error_in_a_tasks_block_goes_on_too(queue: Queue, broker: ringpost.Broker) -> None:
    refuse_letters(broker, "full")
    queue.put("x")

    async def main() -> None:
        async with aio.connect(broker.url) as ours:
            jobs: aio.Queue[Any] = await ours.queue("jobs")
            async with jobs.consumer(max_deliveries=1) as consumer, await consumer.receive(0):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    with queue.consumer() as consumer:
        assert consumer.receive(BOUND).deliveries == 2
