"""Consumers: what is received stays until it is settled, and every way to settle it."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue
from conformance.patience import BOUND, Call
from ringpost.errors import Crowded

Queue = ringpost.Queue[Any]


def test_a_message_says_all_about_itself(queue: Queue) -> None:
    before = datetime.now(timezone.utc).timestamp()
    queue.producer().send(
        {"a": 1}, headers={"h": [1]}, message_id="id-1", correlation_id="c", reply_to="r", content_type="x/y"
    )
    message = queue.consumer().receive(0)
    assert (message.body, message.headers, message.id) == ({"a": 1}, {"h": [1]}, "id-1")
    assert (message.correlation_id, message.reply_to, message.content_type) == ("c", "r", "x/y")
    assert (message.sequence, message.subject, message.deliveries) == (0, "", 1)
    assert not message.redelivered
    assert not message.settled
    assert abs(message.timestamp.timestamp() - before) < BOUND
    assert message.timestamp.tzinfo is timezone.utc
    assert "id-1" in repr(message)


def test_what_was_put_is_received_without_headers(queue: Queue) -> None:
    queue.put("plain")
    message = queue.consumer().receive(0)
    assert (message.body, message.headers, message.id) == ("plain", {}, "0")
    assert (message.key, message.correlation_id, message.reply_to) == (None, None, None)


def test_what_is_acked_is_gone(queue: Queue) -> None:
    queue.put_many("abc")
    with queue.consumer() as consumer:
        for expected in "abc":
            message = consumer.receive(0)
            assert message.body == expected
            message.ack()
            assert message.settled
    assert queue.qsize() == 0
    with pytest.raises(ringpost.Empty):
        queue.get_nowait()


def test_what_is_not_acked_is_there_after_close(queue: Queue) -> None:
    queue.put_many("abc")
    with queue.consumer() as consumer:
        consumer.receive(0).ack()
        consumer.receive(0)
    assert [queue.get_nowait() for _ in range(2)] == ["b", "c"]


def test_closing_counts_only_what_was_handed_out(queue: Queue) -> None:
    queue.put_many("abc")
    with queue.consumer(prefetch=3) as consumer:
        consumer.receive(0)
    with queue.consumer() as consumer:
        found = {(message.body, message.deliveries) for message in (consumer.receive(0) for _ in range(3))}
    assert found == {("a", 2), ("b", 1), ("c", 1)}


def test_the_block_acks_on_success_and_gives_back_on_failure(queue: Queue) -> None:
    queue.put_many("ab")
    with queue.consumer(prefetch=1) as consumer:
        with consumer.receive(0) as message:
            pass
        assert message.settled
        with pytest.raises(ZeroDivisionError), consumer.receive(0):
            1 / 0  # noqa: B018
        again = consumer.receive(0)
        assert (again.body, again.deliveries, again.redelivered) == ("b", 2, True)
        again.ack()


def test_what_was_settled_inside_the_block_is_left_alone(queue: Queue) -> None:
    queue.put_many("ab")
    with queue.consumer(prefetch=1) as consumer:
        with consumer.receive(0) as message:
            message.nack()
        with consumer.receive(0) as message:
            assert message.body == "a"
            message.reject()
        with consumer.receive(0) as message:
            assert message.body == "b"


def test_what_is_given_back_comes_first(queue: Queue) -> None:
    queue.put_many("abc")
    with queue.consumer(prefetch=1) as consumer:
        consumer.receive(0).nack()
        assert [consumer.receive(0).body for _ in range(3)] == ["a", "b", "c"]


def test_get_takes_what_was_given_back(queue: Queue) -> None:
    queue.put_many("abc")
    with queue.consumer(prefetch=3) as consumer:
        for message in [consumer.receive(0) for _ in range(3)]:
            message.nack()
    assert queue.get_many() == ["a", "b", "c"]
    assert queue.qsize() == 0


def test_a_delay_is_kept(queue: Queue) -> None:
    queue.put_many("ab")
    with queue.consumer(prefetch=1) as consumer:
        start = time.monotonic()
        consumer.receive(0).nack(delay=0.2)
        assert consumer.receive(0).body == "b"
        with pytest.raises(ringpost.Empty):
            consumer.receive(0)
        assert consumer.receive(BOUND).body == "a"
        assert time.monotonic() - start >= 0.19


class CrowdedGroup:
    """A group whose table of leases has no room, for so many calls."""

    def __init__(self, group: Any, calls: int) -> None:
        self._group = group
        self._calls = calls

    def give_back(self, *args: Any, **kwargs: Any) -> Any:
        self._calls -= 1
        if self._calls >= 0:
            raise Crowded("no room")
        return self._group.give_back(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)


@pytest.mark.parametrize("timeout", [None, BOUND])
def test_what_could_not_be_given_back_comes_to_who_waits(queue: Queue, timeout: float | None) -> None:
    queue.put("x")
    with queue.consumer() as consumer:
        consumer._group = CrowdedGroup(consumer._group, 2)  # type: ignore[assignment]
        consumer.receive(0).nack()
        assert Call(consumer.receive, timeout).result().body == "x"


def test_a_crowded_group_takes_back_what_it_gave(queue: Queue) -> None:
    queue.put_many(range(40))
    consumer = queue.consumer()
    for _ in range(5):
        consumer.receive(0)
    consumer._group = CrowdedGroup(consumer._group, 1)  # type: ignore[assignment]
    consumer.close()
    assert [queue.get_nowait() for _ in range(40)] == list(range(40))


@pytest.mark.parametrize("who", ["close", "receive"])
def test_what_close_could_not_give_back_is_given_back_later(queue: Queue, who: str) -> None:
    queue.put_many(range(40))
    with queue.consumer(prefetch=1) as another:
        consumer = queue.consumer()
        for _ in range(5):
            consumer.receive(0)
        consumer._group = CrowdedGroup(consumer._group, 2)  # type: ignore[assignment]
        with pytest.raises(Crowded):
            consumer.close()
        if who == "close":
            consumer.close()
        received = [another.receive(1) for _ in range(40)]
    assert sorted(each.body for each in received) == list(range(40))
    assert sum(each.redelivered for each in received) == 5


def test_what_is_given_back_by_close_keeps_its_order(queue: Queue) -> None:
    queue.put_many(range(300))
    with queue.consumer() as consumer:
        consumer.receive_many(200, 0)
    with queue.consumer() as consumer:
        assert [consumer.receive(0).body for _ in range(300)] == list(range(300))


def test_a_backoff_says_how_long(queue: Queue) -> None:
    queue.put("x")
    backoff = ringpost.Backoff(initial=0.05, factor=2, most=10, jitter=0)
    waits = []
    with queue.consumer(backoff=backoff) as consumer:
        for _ in range(3):
            start = time.monotonic()
            consumer.receive(BOUND).nack()
            waits.append(time.monotonic() - start)
        start = time.monotonic()
        consumer.receive(BOUND).ack()
        waits.append(time.monotonic() - start)
    assert waits[1] >= 0.045
    assert waits[2] >= 0.095
    assert waits[3] >= 0.19


def test_each_message_is_settled_once(queue: Queue) -> None:
    queue.put("x")
    message = queue.consumer().receive(0)
    message.ack()
    for settle in (message.ack, message.nack, message.reject, lambda: message.extend(1)):
        with pytest.raises(ringpost.LeaseLost, match="settled before"):
            settle()


def test_a_late_ack_acks_nobody_elses_delivery(queue: Queue) -> None:
    queue.put("x")
    slow, fast = queue.consumer(lease=0.1), queue.consumer()
    late = slow.receive(0)
    again = fast.receive(BOUND)
    assert (again.body, again.deliveries) == ("x", 2)
    for settle in (late.ack, late.nack, late.reject):
        late.settled = False
        with pytest.raises(ringpost.LeaseLost) as lost:
            settle()
        assert lost.value.messages == [late]
    again.ack()
    assert queue.stats().consumers.acked == 1
    for consumer in (slow, fast):
        consumer.close()


def test_ack_many_tells_which_were_lost(queue: Queue) -> None:
    queue.put_many("ab")
    with queue.consumer(lease=0.05) as slow, queue.consumer() as other:
        late = slow.receive_many(2, 0)
        with pytest.raises(ringpost.Empty):
            other.receive(0)
        again = other.receive_many(2, BOUND)
        with pytest.raises(ringpost.LeaseLost) as lost:
            slow.ack_many(late)
        assert lost.value.messages == late
        other.ack_many(again)


def test_ack_many_refuses_what_came_from_elsewhere(make: MakeQueue) -> None:
    queue, other = make(), make()
    queue.put_many("ab")
    other.put_many("xy")
    with queue.consumer() as consumer, other.consumer() as another, queue.consumer(group="audit") as audit:
        mine, foreign = consumer.receive(0), another.receive(0)
        queue.put("c")
        for stranger in (foreign, audit.receive(0)):
            with pytest.raises(ValueError, match="not received from"):
                consumer.ack_many([mine, stranger])
            assert (mine.settled, stranger.settled) == (False, False)
        assert queue.stats().consumers.acked == 0
        consumer.ack_many([mine])


def test_ack_many_acks_what_another_consumer_of_the_group_received(queue: Queue) -> None:
    queue.put_many("ab")
    with queue.consumer(prefetch=1) as consumer, queue.consumer(prefetch=1) as another:
        consumer.ack_many([consumer.receive(0), another.receive(0)])
    assert queue.qsize() == 0


def test_ack_many_takes_one_twice_as_one(queue: Queue) -> None:
    queue.put("x")
    with queue.consumer() as consumer:
        message = consumer.receive(0)
        consumer.ack_many([message, message])
    assert queue.qsize() == 0


def test_extend_keeps_it(queue: Queue) -> None:
    queue.put("x")
    with queue.consumer(lease=0.15) as consumer, queue.consumer() as other:
        message = consumer.receive(0)
        for _ in range(4):
            time.sleep(0.1)
            message.extend(0.15)
            with pytest.raises(ringpost.Empty):
                other.receive(0)
        message.extend(None)
        time.sleep(0.3)
        with pytest.raises(ringpost.Empty):
            other.receive(0)
        message.ack()


def test_without_a_lease_time_it_is_held_as_long_as_it_takes(queue: Queue) -> None:
    queue.put("x")
    with queue.consumer() as consumer, queue.consumer() as other:
        message = consumer.receive(0)
        with pytest.raises(ringpost.Empty):
            other.receive(0.3)
        message.ack()


def test_acks_come_in_any_order(make: MakeQueue) -> None:
    queue, count = make(capacity=8 << 20), 30_000
    queue.put_many(range(count))
    with queue.consumer() as consumer:
        messages: list[ringpost.Message] = []
        while len(messages) < count:
            messages += consumer.receive_many(1000, 0)
        assert [each.body for each in messages] == list(range(count))
        assert queue.stats().consumers.in_flight == count
        random.Random(1).shuffle(messages)
        half = count // 2
        consumer.ack_many(messages[:half])
        for message in messages[half:]:
            message.ack()
    stats = queue.stats()
    assert (stats.ready, stats.consumers.in_flight, stats.consumers.acked) == (0, 0, count)
    assert stats.used_bytes == 0


def fill(queue: Queue) -> str:
    """Put and get until there is no room. Returns what was said then."""
    try:
        while True:
            queue.put(bytes(1000), block=False)
            queue.get_nowait()
    except ringpost.Full as full:
        return str(full)


def test_one_held_for_long_stops_nobody_before_the_ring_is_full(make: MakeQueue) -> None:
    queue = make(capacity=256 << 10)
    queue.put("held")
    with queue.consumer(prefetch=1) as consumer:
        held = consumer.receive(0)
        for number in range(500):
            queue.put(number, timeout=0)
            with consumer.receive(0) as message:
                assert message.body == number
        assert "has held message 0" in fill(queue)
        held.ack()
        queue.put(bytes(1000), timeout=BOUND)


def test_receive_many_waits_for_the_first_only(queue: Queue) -> None:
    queue.put_many(range(10))
    with queue.consumer() as consumer:
        assert [each.body for each in consumer.receive_many(4, 0)] == [0, 1, 2, 3]
        assert [each.body for each in consumer.receive_many(100, 0)] == [4, 5, 6, 7, 8, 9]
        call = Call(consumer.receive_many, 100, BOUND)
        assert call.is_blocked()
        queue.put("late")
        assert [each.body for each in call.result()] == ["late"]


def test_large_messages_are_received_and_acked(make: MakeQueue) -> None:
    queue = make(capacity=1 << 20)
    with queue.consumer() as consumer:
        for number in range(20):
            body = bytes([number]) * 200_000
            queue.put(body, timeout=0)
            with consumer.receive(0) as message:
                assert message.body == body
    everything = bytes(512 << 10)
    queue.put(everything, timeout=0)
    assert queue.get_nowait() == everything


def test_timeouts_are_kept(queue: Queue) -> None:
    with queue.consumer() as consumer:
        start = time.monotonic()
        with pytest.raises(ringpost.Empty):
            consumer.receive(0.15)
        assert time.monotonic() - start >= 0.15
        with pytest.raises(ringpost.Empty):
            consumer.receive(0)
        with pytest.raises(ValueError, match="timeout"):
            consumer.receive(-1)


@pytest.mark.parametrize("receive", ["receive", "receive_many"])
def test_timeouts_longer_than_a_slice_are_kept_too(queue: Queue, receive: str) -> None:
    with queue.consumer() as consumer:
        start = time.monotonic()
        with pytest.raises(ringpost.Empty):
            getattr(consumer, receive)(timeout=1.3)
        assert 1.3 <= time.monotonic() - start < 3
        with pytest.raises(ValueError, match="timeout"):
            getattr(consumer, receive)(timeout=float("nan"))


def test_consumers_share_a_queue(queue: Queue) -> None:
    queue.put_many(range(1000))
    bodies: list[int] = []

    def work() -> None:
        with queue.consumer(prefetch=4) as consumer:
            for message in consumer:
                with message:
                    bodies.append(message.body)

    calls = [Call(work) for _ in range(4)]
    queue.join(BOUND)
    queue.shutdown()
    for call in calls:
        call.result()
    assert sorted(bodies) == list(range(1000))


def test_threads_share_a_consumer(queue: Queue) -> None:
    queue.put_many(range(2000))
    consumer, bodies = queue.consumer(prefetch=8), []

    def work() -> None:
        for message in consumer:
            with message:
                bodies.append(message.body)

    calls = [Call(work) for _ in range(4)]
    queue.join(BOUND)
    queue.shutdown()
    for call in calls:
        call.result()
    assert sorted(bodies) == list(range(2000))


def test_the_loop_ends_with_the_queue(queue: Queue) -> None:
    queue.put_many("ab")
    queue.shutdown()
    with queue.consumer() as consumer:
        bodies = []
        for message in consumer:
            bodies.append(message.body)
            if not message.redelivered:
                message.nack()
            else:
                message.ack()
    assert sorted(bodies) == ["a", "a", "b", "b"]


def test_closing_ends_a_loop_in_another_thread(queue: Queue) -> None:
    consumer = queue.consumer()
    call = Call(lambda: list(consumer))
    assert call.is_blocked()
    consumer.close()
    assert call.result() == []
    queue.put("for somebody else")
    assert queue.get(timeout=BOUND) == "for somebody else"


def test_a_closed_consumer_says_so(queue: Queue) -> None:
    consumer = queue.consumer()
    consumer.close()
    consumer.close()
    assert consumer.closed
    with pytest.raises(ValueError, match="closed"):
        consumer.receive(0)


def test_auto_ack_takes_for_good(queue: Queue) -> None:
    queue.put_many("ab")
    with queue.consumer(auto_ack=True) as consumer:
        message = consumer.receive(0)
        assert message.settled
        with message:
            pass
    assert queue.get_nowait() == "b"


@pytest.mark.parametrize("watched", [False, True])
def test_what_needs_no_ack_is_not_kept(queue: Queue, watched: bool) -> None:
    queue.put_many(range(100))
    with queue.consumer(auto_ack=True) as consumer:
        if watched:
            consumer.fileno()
        consumer.receive(0)
        alive = weakref.WeakSet(consumer.receive_many(10, 0))
        gc.collect()
        assert not alive


def test_a_group_of_its_own_gets_everything(queue: Queue) -> None:
    queue.put_many("ab")
    with queue.consumer(group="audit") as audit:
        assert [queue.get_nowait() for _ in range(2)] == ["a", "b"]
        queue.put("c")
        for expected in "abc":
            with audit.receive(0) as message:
                assert message.body == expected
        (stats,) = queue.stats().groups
        assert (stats.name, stats.acked, stats.ready) == ("audit", 3, 0)


def test_acked_messages_are_tasks_done(queue: Queue) -> None:
    queue.put_many("ab")
    call = Call(queue.join)
    with queue.consumer() as consumer:
        consumer.receive(0).ack()
        assert call.is_blocked()
        consumer.receive(0).ack()
    call.result()


def test_undecodable_bodies_are_raised_where_they_are_asked_for(queue: Queue) -> None:
    queue._log.send_raw(1, b"\xff\xfe")  # no UTF-8
    with queue.consumer() as consumer:
        message = consumer.receive(0)
        with pytest.raises(ringpost.DecodeError):
            message.body  # noqa: B018
        assert message.payload == b"\xff\xfe"
        message.ack()


def test_settings_out_of_range_are_refused(queue: Queue) -> None:
    for wrong in ({"prefetch": 0}, {"lease": 0}, {"lease": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            queue.consumer(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit"):
        queue.consumer().receive_many(0)


def test_an_anonymous_queue_has_no_dead_letters() -> None:
    with ringpost.Queue() as queue, pytest.raises(ValueError, match="anonymous"):
        queue.consumer(max_deliveries=1)


def test_a_consumer_that_is_forgotten_gives_back(queue: Queue) -> None:
    queue.put_many("abc")
    message = queue.consumer().receive(0)
    message.ack()  # it is ours as long as it is ours
    del message
    assert [queue.get(timeout=BOUND) for _ in range(2)] == ["b", "c"]
    queue.put("x")
    message = queue.consumer().receive(0)
    del message  # it knew its consumer, and that one knew it
    gc.collect()
    assert queue.get(timeout=BOUND) == "x"


def in_a_child(life: Callable[[], object]) -> None:
    """Which must not raise."""
    child = os.fork()
    if child == 0:
        try:
            life()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_child_gives_back_what_it_received_and_forgot(queue: Queue) -> None:
    queue.put_many("abc")
    consumers = [queue.consumer(prefetch=1)]
    held = [consumers[0].receive(0)]

    def life() -> None:
        held.clear()  # it knows its consumer
        consumer = consumers.pop()
        assert consumer.receive(0).body == "b"
        del consumer
        gc.collect()
        assert sorted(queue.get(timeout=1) for _ in range(2)) == ["b", "c"]

    in_a_child(life)
    held[0].ack()  # the child forgot it, and did not give it back
    assert queue.qsize() == 0


def test_a_place_is_not_given_up_by_a_forked_child(queue: Queue, broker: ringpost.Broker) -> None:
    topic = broker.topic("news")
    subscribers = [topic.subscribe()]

    def life() -> None:
        subscribers.pop()
        gc.collect()

    in_a_child(life)
    topic.publish("x")
    assert subscribers[0].receive(1).body == "x"


def test_closing_from_another_thread_gives_back(queue: Queue) -> None:
    queue.put("x")
    consumer = queue.consumer()
    consumer.receive(0)
    threading.Thread(target=consumer.close).start()
    assert queue.get(timeout=BOUND) == "x"
