"""What becomes of subscribers that are too slow, and of those who publish to them."""

from __future__ import annotations

import time
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, Call

BODY = bytes(1000)


@pytest.fixture
def topic(binding: Any, broker: ringpost.Broker) -> ringpost.Topic:
    return broker.topic("t", capacity=128 << 10)


def publish_until_full(topic: ringpost.Topic) -> tuple[int, str]:
    for count in range(1000):
        try:
            topic.publish(BODY, timeout=0)
        except ringpost.Full as full:
            return count, str(full)
    raise AssertionError("the topic was never full")


def publish_for_ever(topic: ringpost.Topic) -> None:
    while True:
        topic.publish(BODY)


def test_publishers_wait_for_one_that_blocks(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(name="slow")
    count, text = publish_until_full(topic)
    assert "slow" in text
    start = time.monotonic()
    with pytest.raises(ringpost.Full):
        topic.publish(BODY, timeout=0.1)
    assert time.monotonic() - start >= 0.1
    call = Call(topic.publish, BODY)
    assert call.is_blocked()
    messages = [subscriber.receive(0) for _ in range(count)]
    assert call.is_blocked(), "it was received, not acked"
    subscriber.ack_many(messages)
    call.result()
    assert subscriber.receive(0).sequence == count


def test_one_that_drops_holds_nobody_back_and_is_told(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(on_lag="drop-oldest")
    for number in range(5):
        topic.publish(number, timeout=0)
    assert [subscriber.receive(0).body for _ in range(3)] == [0, 1, 2]
    for _ in range(1000):
        topic.publish(BODY, timeout=0)
    assert [subscriber.receive(0).body for _ in range(2)] == [3, 4]  # fetched with the first ones
    first = subscriber.receive(0)
    assert first.lost == first.sequence - 5 > 800
    for sequence in range(first.sequence + 1, 1005):
        message = subscriber.receive(0)
        assert (message.sequence, message.lost) == (sequence, 0)
    assert subscriber.lost == first.lost


def test_the_lost_and_the_received_are_all_there_were(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(on_lag="drop-oldest", prefetch=1)
    expected = 0
    for rounds in range(30):
        for _ in range(rounds * 7):
            topic.publish(BODY, timeout=0)
        for _ in range(rounds):
            try:
                message = subscriber.receive(0)
            except ringpost.Empty:
                break
            assert message.sequence == expected + message.lost
            expected = message.sequence + 1


def test_one_that_wants_an_error_makes_one(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(name="strict", on_lag="error")
    _, text = publish_until_full(topic)
    assert "strict" in text
    with pytest.raises(ringpost.Full, match="strict"):
        topic.publish(BODY)  # although it might wait
    subscriber.ack_many(subscriber.receive_many(1000, BOUND))
    topic.publish(BODY, timeout=0)


def test_overrun_large_messages_are_counted_too(binding: Any, broker: ringpost.Broker) -> None:
    topic = broker.topic("large", capacity=1 << 20)
    subscriber = topic.subscribe(on_lag="drop-oldest", prefetch=1)
    for number in range(40):
        topic.publish(bytes([number]) * 50_000, timeout=0)
    expected = 0
    while True:
        try:
            message = subscriber.receive(0)
        except ringpost.Empty:
            break
        assert message.sequence == expected + message.lost
        assert message.body == bytes([message.sequence]) * 50_000
        expected = message.sequence + 1
    assert expected == 40
    assert subscriber.lost > 10


def test_what_may_be_overwritten_cannot_be_acked(topic: ringpost.Topic) -> None:
    with pytest.raises(ValueError, match="auto_ack"):
        topic.subscribe(on_lag="drop-oldest", auto_ack=False)
    with pytest.raises(ValueError, match="on_lag"):
        topic.subscribe(on_lag="explode")  # type: ignore[arg-type]


def test_publishers_do_not_wait_for_whom_it_does_not_concern(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe("a.*", name="n")
    topic.publish("before", "a.x")
    for _ in range(30):
        topic.publish(BODY, "b.x", timeout=0)
    subscriber.receive(0).ack()
    for _ in range(2000):
        topic.publish(BODY, "b.x", timeout=0)
    topic.publish("after", "a.x", timeout=0)
    assert subscriber.receive(0).body == "after"


def test_a_slow_one_slows_no_other_before_the_ring_is_full(topic: ringpost.Topic) -> None:
    slow, quick = topic.subscribe(name="slow"), topic.subscribe()
    count, _ = publish_until_full(topic)
    assert len(quick.receive_many(1000, 0)) > 0
    slow.close()
    assert topic.unsubscribe("slow")
    for _ in range(3 * count):
        topic.publish(BODY, timeout=BOUND)
        quick.receive(0)


def test_a_batch_too_is_refused_by_one_that_wants_an_error(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(name="strict", on_lag="error")
    with pytest.raises(ringpost.Full, match="strict") as caught:
        topic.publish_many(("a", BODY) for _ in range(1000))
    put = caught.value.put  # type: ignore[attr-defined]
    assert put == topic.stats().published == len(subscriber.receive_many(1000, 0)) > 50


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_batch_that_does_not_fit_says_how_much_did(topic: ringpost.Topic, timeout: float) -> None:
    subscriber = topic.subscribe()
    with pytest.raises(ringpost.Full) as caught:
        topic.publish_many((("a", BODY) for _ in range(1000)), timeout=timeout)
    put = caught.value.put  # type: ignore[attr-defined]
    assert put == topic.stats().published == len(subscriber.receive_many(1000, 0)) > 50


def test_a_batch_waits_for_one_that_blocks(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe("a.*", prefetch=1)
    call = Call(topic.publish_many, ((f"{'ab'[n % 2]}.x", [n, BODY]) for n in range(1000)), timeout=BOUND)
    assert call.is_blocked()
    assert [subscriber.receive(BOUND).body[0] for _ in range(500)] == list(range(0, 1000, 2))
    assert call.result() == 1000


def test_an_item_that_cannot_be_sent_ends_a_batch(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe()
    with pytest.raises(ringpost.EncodeError) as caught:
        topic.publish_many([("a", 0), ("a", object()), ("a", 2)])
    put = caught.value.put  # type: ignore[attr-defined]
    assert put == topic.stats().published == len(subscriber.receive_many(10, 0) if put else [])


def test_who_waits_is_told_when_one_that_wants_an_error_holds_it_back(topic: ringpost.Topic) -> None:
    slow = topic.subscribe(name="slow")
    topic.publish(BODY)
    topic.subscribe(name="strict", on_lag="error")
    publish_until_full(topic)
    calls = [Call(publish_for_ever, topic), Call(topic.publish_many, [("a", BODY)] * 1000)]
    assert all(call.is_blocked() for call in calls)
    slow.ack_many(slow.receive_many(1000, 0))
    for call in calls:
        with pytest.raises(ringpost.Full, match="strict"):
            call.result()


def test_of_two_equally_slow_ones_the_error_counts(topic: ringpost.Topic) -> None:
    topic.subscribe(name="slow")
    topic.subscribe(on_lag="drop-oldest")
    topic.subscribe(name="strict", on_lag="error")
    with pytest.raises(ringpost.Full, match="strict"):
        publish_for_ever(topic)


def test_one_that_drops_beside_one_that_blocks_loses_nothing(topic: ringpost.Topic) -> None:
    lossy, slow = topic.subscribe(on_lag="drop-oldest"), topic.subscribe()
    count, _ = publish_until_full(topic)
    assert len(lossy.receive_many(1000, 0)) == count
    assert (lossy.lost, len(slow.receive_many(1000, 0))) == (0, count)


def test_what_was_lost_is_told_once_by_each_kind_of_receive(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe(on_lag="drop-oldest")
    for _ in range(500):
        topic.publish(BODY, timeout=0)
    first, *others = subscriber.receive_many(1000, 0)
    assert first.lost == first.sequence == subscriber.lost > 300
    assert [message.lost for message in others] == [0] * len(others)
    assert others[-1].sequence == 499


def test_with_a_pattern_all_that_was_overwritten_counts_as_lost(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe("a", on_lag="drop-oldest")
    for number in range(500):
        topic.publish(BODY, "ab"[number % 2], timeout=0)
    messages = subscriber.receive_many(1000, 0)
    assert {message.subject for message in messages} == {"a"}
    assert [message.sequence for message in messages] == list(range(messages[0].sequence, 500, 2))
    assert messages[0].lost in (messages[0].sequence, messages[0].sequence - 1)


def test_places_that_were_given_up_hold_nobody_back(topic: ringpost.Topic) -> None:
    subscribers = [topic.subscribe(name="n"), topic.subscribe(), topic.subscribe(on_lag="error")]
    publish_until_full(topic)
    for subscriber in subscribers:
        subscriber.unsubscribe()
    for _ in range(500):
        topic.publish(BODY, timeout=0)
