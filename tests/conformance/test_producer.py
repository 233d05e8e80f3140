"""Producers: what they say with a message, and what they do without room."""

from __future__ import annotations

import os
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

import ringpost
from conformance.conftest import MakeQueue
from conformance.patience import BOUND, Call, eventually

Queue = ringpost.Queue[Any]


def received(queue: Queue) -> list[Any]:
    with queue.consumer(auto_ack=True) as consumer:
        try:
            return [each.body for each in consumer.receive_many(1000, 0)]
        except ringpost.Empty:
            return []


def test_what_was_sent_is_there(queue: Queue) -> None:
    with queue.producer() as producer:
        for body in (b"bytes", "text", {"a": [1, None]}, bytes(100_000)):
            assert producer.send(body) is True
            assert queue.get_nowait() == body


def test_a_closed_producer_sends_nothing_and_closes_nothing(queue: Queue) -> None:
    producer = queue.producer()
    producer.close()
    for call in (producer.send, lambda _: producer.send_many([]), lambda _: producer.batch()):
        with pytest.raises(ValueError, match="closed"):
            call("x")
    queue.put("still open")


def test_send_many_keeps_the_order_and_the_headers(queue: Queue) -> None:
    assert queue.producer().send_many((str(n) for n in range(500)), headers={"all": True}) == 500
    with queue.consumer() as consumer:
        messages = consumer.receive_many(500, 0)
        assert [each.body for each in messages] == [str(n) for n in range(500)]
        assert all(each.headers == {"all": True} for each in messages)


def test_a_batch_is_sent_at_its_end(queue: Queue) -> None:
    with queue.producer().batch() as batch:
        batch.send("a", headers={"n": 1}, key="k")
        batch.send("b", message_id="two")
        assert queue.qsize() == 0
    with queue.consumer() as consumer:
        first, second = consumer.receive_many(2, 0)
        assert (first.body, first.headers, first.key, second.id) == ("a", {"n": 1}, "k", "two")


def test_nothing_of_a_batch_is_sent_after_an_exception(queue: Queue) -> None:
    def fail() -> None:
        with queue.producer().batch() as batch:
            batch.send("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert queue.qsize() == 0


def test_an_expired_message_is_not_delivered(queue: Queue) -> None:
    producer = queue.producer(ttl=0.01)
    producer.send("gone")
    producer.send("stays", ttl=60)
    time.sleep(0.05)
    assert queue.get(timeout=BOUND) == "stays"
    producer.send("gone too")
    time.sleep(0.05)
    with pytest.raises(ringpost.Empty):
        queue.get_nowait()
    assert received(queue) == []


@pytest.mark.parametrize("ttl", [-1, float("nan"), 5e6])
def test_a_ttl_out_of_range_is_refused(queue: Queue, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        queue.producer().send("x", ttl=ttl)


def test_headers_that_cannot_be_sent_are_refused(queue: Queue) -> None:
    with pytest.raises(ringpost.EncodeError, match="headers"):
        queue.producer().send("x", headers={"f": object()})
    assert queue.qsize() == 0


@pytest.mark.parametrize(
    "said",
    [{"message_id": 5}, {"key": b"k"}, {"headers": {1: "x"}}, {"correlation_id": 1.5}, {"priority": True}],
    ids=str,
)
def test_what_could_not_be_read_is_refused_with_all_that_was_said(queue: Queue, said: dict[str, Any]) -> None:
    with pytest.raises((ringpost.EncodeError, ringpost.Unsupported)):
        queue.producer().send("x", **{"headers": {"a": 1}, **said})
    assert queue.qsize() == 0


@pytest.mark.parametrize("size", [0, 100, 5_000, 70_000, 300_000])
def test_headers_of_any_size_arrive(queue: Queue, size: int) -> None:
    headers = {"a": "h" * size, "deep": {"list": [1, None, {"b": b"bytes"}]}}
    queue.producer().send("body", headers=headers)
    message = queue.consumer().receive(0)
    assert (message.body, message.headers) == ("body", headers)


def test_without_room_it_raises_if_told_to(make: MakeQueue) -> None:
    producer = make(2).producer(overflow="raise")
    assert producer.send_many("ab") == 2
    with pytest.raises(ringpost.Full):
        producer.send("c")
    with pytest.raises(ringpost.Full):
        producer.send_many("cd")


def test_without_room_it_waits(make: MakeQueue) -> None:
    queue = make(1)
    producer = queue.producer()
    producer.send("a")
    with pytest.raises(ringpost.Full):
        producer.send("b", timeout=0.05)
    call = Call(producer.send, "b")
    assert call.is_blocked()
    assert queue.get_nowait() == "a"
    call.result()
    assert queue.get_nowait() == "b"


def test_the_oldest_goes_where_that_was_asked_for(make: MakeQueue) -> None:
    queue = make(3)
    producer = queue.producer(overflow="drop-oldest")
    for number in range(10):
        producer.send(number)
    assert queue.qsize() == 3
    assert queue.stats().consumers.dropped == 7
    assert producer.send_many([10, 11]) == 2
    assert received(queue) == [9, 10, 11]


def test_what_a_consumer_holds_is_not_dropped(make: MakeQueue) -> None:
    queue = make(2)
    producer = queue.producer(overflow="drop-oldest")
    producer.send_many("ab")
    with queue.consumer(prefetch=1) as consumer:
        held = consumer.receive(0)
        for body in "cde":
            producer.send(body)
        assert held.body == "a"
        held.ack()
    assert received(queue) == ["d", "e"]


def test_overflow_by_bytes(make: MakeQueue) -> None:
    queue = make(capacity=128 << 10)
    producer = queue.producer(overflow="drop-oldest")
    for number in range(300):
        producer.send(bytes([number % 256]) * 1000)
    bodies = received(queue)
    assert 20 < len(bodies) < 70
    assert bodies[-1] == bytes([299 % 256]) * 1000


def test_an_unknown_overflow_is_refused(queue: Queue) -> None:
    with pytest.raises(ValueError, match="drop-oldest"):
        queue.producer(overflow="explode")  # type: ignore[arg-type]


# ---- what is kept aside needs a name ------------------------------------------------------------


@pytest.fixture
def jobs(binding: Any, broker: ringpost.Broker) -> Queue:
    return broker.queue("jobs")


def test_a_delayed_message_comes_when_it_is_due(jobs: Queue) -> None:
    start = time.monotonic()
    with jobs.producer() as producer:
        producer.send("second", delay=0.3)
        producer.send("first", not_before=datetime.now(timezone.utc) + timedelta(seconds=0.1))
        producer.send("now")
    assert jobs.get_nowait() == "now"
    assert jobs.qsize() == 0
    assert jobs.get(timeout=BOUND) == "first"
    assert time.monotonic() - start >= 0.09
    assert jobs.get(timeout=BOUND) == "second"
    assert time.monotonic() - start >= 0.29


def test_a_sleeper_is_woken_when_a_message_is_due(jobs: Queue) -> None:
    call = Call(lambda: jobs.consumer(auto_ack=True).receive(BOUND).body)
    assert call.is_blocked()
    jobs.producer().send("due", delay=0.2)
    assert call.result() == "due"


def test_what_is_overdue_is_delivered_at_once(jobs: Queue) -> None:
    jobs.producer().send("x", not_before=datetime(2001, 1, 1, tzinfo=timezone.utc))
    assert jobs.get(timeout=BOUND) == "x"


def test_delayed_messages_keep_what_was_said_with_them(jobs: Queue) -> None:
    jobs.producer().send({"a": 1}, delay=0.01, headers={"h": 1}, message_id="id", ttl=60, key="k")
    message = jobs.consumer().receive(BOUND)
    assert (message.body, message.headers, message.id, message.key) == ({"a": 1}, {"h": 1}, "id", "k")
    assert message.ttl_ms == 60_000


def test_a_time_to_live_begins_when_it_is_due(jobs: Queue) -> None:
    jobs.producer().send("x", delay=0.15, ttl=0.1)
    time.sleep(0.16)
    assert jobs.get(timeout=BOUND) == "x"


def test_delayed_messages_outlive_their_sender(jobs: Queue, broker: ringpost.Broker) -> None:
    child = os.fork()
    if child == 0:
        jobs.producer().send("from the dead", delay=0.2)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert jobs.get(timeout=BOUND) == "from the dead"


def test_many_come_in_the_order_they_are_due(jobs: Queue) -> None:
    start = datetime.now(timezone.utc) + timedelta(seconds=0.1)
    producer = jobs.producer()
    for number in reversed(range(300)):
        producer.send(number, not_before=start + timedelta(microseconds=100 * number))
    assert [jobs.get(timeout=BOUND) for _ in range(300)] == list(range(300))


def test_times_that_make_no_sense_are_refused(jobs: Queue) -> None:
    producer = jobs.producer()
    with pytest.raises(ValueError, match="time zone"):
        producer.send("x", not_before=datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="not both"):
        producer.send("x", delay=1, not_before=datetime.now(timezone.utc))
    with pytest.raises(ValueError, match="delay"):
        producer.send("x", delay=-1)


def test_a_time_that_is_not_a_clocks_is_long_ago_or_never(jobs: Queue) -> None:
    producer = jobs.producer()
    producer.send("never", not_before=datetime.max.replace(tzinfo=timezone.utc))
    for year in (1960, 1970):
        producer.send(year, not_before=datetime(year, 1, 1, tzinfo=timezone.utc))
    assert sorted(jobs.get(timeout=BOUND) for _ in range(2)) == [1960, 1970]
    assert received(jobs) == []


def test_a_delayed_message_that_never_fits_is_refused_at_once(jobs: Queue, broker: ringpost.Broker) -> None:
    small = broker.queue("small", capacity=1 << 20)
    producer, most = small.producer(), 512 << 10
    for headers, size in ((None, most + 1), ({"a": 1}, most)):
        with pytest.raises(ringpost.MessageTooLarge):
            producer.send(bytes(size), delay=0.01, headers=headers)
    producer.send(bytes(most), delay=0.01)
    assert len(small.get(timeout=BOUND)) == most


def test_a_queue_that_has_ended_takes_no_delayed_messages(jobs: Queue, broker: ringpost.Broker) -> None:
    ended, deleted = broker.queue("ended"), broker.queue("deleted")
    ended.shutdown()
    broker.delete("deleted")
    with pytest.raises(ringpost.ShutDown):
        ended.producer().send("x", delay=1)
    with pytest.raises(ringpost.QueueDeleted):
        deleted.producer().send("x", delay=1)


def test_what_is_due_without_room_comes_when_there_is_some(binding: Any, broker: ringpost.Broker) -> None:
    queue: Queue = broker.queue("one", maxsize=1)
    queue.put("in the way")
    for number in range(5):
        queue.producer().send(number, delay=0.01 * number)
    time.sleep(0.08)
    assert [queue.get(timeout=BOUND) for _ in range(6)] == ["in the way", 0, 1, 2, 3, 4]


@pytest.mark.parametrize("window", [0, -1, float("nan"), float("inf"), 1e30])
def test_a_window_out_of_range_is_refused(jobs: Queue, window: float) -> None:
    with pytest.raises(ValueError, match="dedup_window"):
        jobs.producer(dedup_window=window)


@pytest.mark.parametrize("name", ["", "x" * 401, "é" * 201])
def test_an_id_out_of_range_is_refused_where_duplicates_are_looked_for(jobs: Queue, name: str) -> None:
    with pytest.raises(ValueError, match="400 bytes"):
        jobs.producer(dedup_window=60).send("x", message_id=name)
    assert jobs.producer(dedup_window=60).send("x", message_id="é" * 200)
    assert received(jobs) == ["x"]


def test_an_id_is_sent_once_within_the_window(jobs: Queue, broker: ringpost.Broker) -> None:
    producer, other = jobs.producer(dedup_window=60), broker.queue("jobs").producer(dedup_window=60)
    assert producer.send("a", message_id="1") is True
    assert producer.send("a", message_id="1") is False
    assert other.send("a", message_id="1") is False
    assert producer.send("b", message_id="2") is True
    assert producer.send("no id") is True
    assert jobs.producer().send("a", message_id="1") is True  # it has no window
    assert received(jobs) == ["a", "b", "no id", "a"]


def test_an_id_may_come_again_after_the_window(jobs: Queue) -> None:
    producer = jobs.producer(dedup_window=0.1)
    assert producer.send("a", message_id="1")
    time.sleep(0.15)
    assert producer.send("a", message_id="1")


def test_a_message_that_was_not_sent_is_not_known(jobs: Queue, broker: ringpost.Broker) -> None:
    small = broker.queue("small", maxsize=1)
    producer = small.producer(dedup_window=60, overflow="raise")
    producer.send("a", message_id="1")
    with pytest.raises(ringpost.Full):
        producer.send("b", message_id="2")
    small.get_nowait()
    assert producer.send("b", message_id="2") is True


def test_processes_share_the_window(jobs: Queue) -> None:
    def send_all() -> None:
        producer = jobs.producer(dedup_window=60)
        for number in range(100):
            producer.send(number, message_id=str(number))

    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                send_all()
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert sorted(received(jobs)) == list(range(100))


def test_an_anonymous_queue_keeps_nothing_aside() -> None:
    with ringpost.Queue() as queue:
        with pytest.raises(ValueError, match="anonymous"):
            queue.producer().send("x", delay=1)
        with pytest.raises(ValueError, match="anonymous"):
            queue.producer(dedup_window=1)


def test_a_deleted_queue_takes_what_it_kept_with_it(jobs: Queue, broker: ringpost.Broker) -> None:
    jobs.producer(dedup_window=60).send("x", message_id="1")
    jobs.producer().send("later", delay=0.1)
    broker.delete("jobs")
    again = broker.queue("jobs")
    assert again.producer(dedup_window=60).send("x", message_id="1") is True
    time.sleep(0.2)
    assert received(again) == ["x"]
    eventually(lambda: again.stats().ready == 0)
