"""Topics: each message to every subscriber that wants it."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, Call, eventually
from conformance.topics import bodies

Topic = ringpost.Topic


@pytest.fixture
def topic(binding: Any, broker: ringpost.Broker) -> Topic:
    return broker.topic("news", capacity=1 << 20)


def test_every_subscriber_gets_every_message(topic: Topic) -> None:
    subscribers = [topic.subscribe() for _ in range(5)]
    for number in range(10):
        topic.publish(number)
    for subscriber in subscribers:
        assert bodies(subscriber) == list(range(10))


def test_a_message_has_all_that_was_said(topic: Topic) -> None:
    subscriber = topic.subscribe()
    topic.publish([1], "eu.dax", headers={"a": 1}, message_id="m", correlation_id="c", reply_to="r", key="k")
    message = subscriber.receive(0)
    assert (message.body, message.subject, message.headers, message.id) == ([1], "eu.dax", {"a": 1}, "m")
    assert (message.correlation_id, message.reply_to, message.key) == ("c", "r", "k")
    assert (message.sequence, message.lost, message.retained, message.settled) == (0, 0, False, True)


def test_who_comes_later_gets_what_comes_later(topic: Topic) -> None:
    topic.publish("before")
    subscriber = topic.subscribe()
    topic.publish("after")
    assert bodies(subscriber) == ["after"]


def test_without_subscribers_nothing_waits_for_anybody(topic: Topic) -> None:
    for _ in range(5000):
        topic.publish(bytes(1000), timeout=0)
    assert topic.stats().published == 5000


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("#", ["eu", "eu.dax", "eu.dax.future", "us.dow"]),
        ("eu.*", ["eu.dax"]),
        ("eu.#", ["eu", "eu.dax", "eu.dax.future"]),
        ("*.dow", ["us.dow"]),
        ("asia.#", []),
    ],
)
@pytest.mark.parametrize("on_lag", ["block", "drop-oldest", "error"])
@pytest.mark.parametrize("name", [None, "named"])
def test_only_what_matches_comes(
    topic: Topic, pattern: str, expected: list[str], on_lag: Any, name: str | None
) -> None:
    subscriber = topic.subscribe(pattern, on_lag=on_lag, name=name)
    for subject in ("eu", "eu.dax", "eu.dax.future", "us.dow"):
        topic.publish(subject, subject)
    assert bodies(subscriber) == expected


def test_publish_many_keeps_the_order(topic: Topic) -> None:
    subscriber = topic.subscribe("a.#")
    assert topic.publish_many((f"{'ab'[n % 2]}.x", n) for n in range(200)) == 200
    assert bodies(subscriber) == list(range(0, 200, 2))


def test_large_messages_reach_everybody(topic: Topic) -> None:
    subscribers = [topic.subscribe(), topic.subscribe(name="n"), topic.subscribe("big.*")]
    for number in range(30):
        body = bytes([number]) * 100_000
        topic.publish(body, "big.one", timeout=0)
        for subscriber in subscribers:
            assert bodies(subscriber) == [body]


def test_a_loop_ends_when_the_topic_is_shut_down(topic: Topic) -> None:
    subscriber = topic.subscribe()
    call = Call(lambda: [message.body for message in subscriber])
    topic.publish("a")
    topic.publish("b")
    topic.shutdown()
    assert call.result() == ["a", "b"]
    with pytest.raises(ringpost.ShutDown):
        topic.publish("late")


def test_a_deleted_topic_says_so(topic: Topic, broker: ringpost.Broker) -> None:
    call = Call(topic.subscribe().receive, BOUND)
    assert call.is_blocked()
    assert broker.delete_topic("news") is True
    with pytest.raises(ringpost.QueueDeleted):
        call.result()
    with pytest.raises(ringpost.QueueDeleted):
        topic.publish("x")
    assert broker.topics() == []


def test_names_of_topics_and_queues_are_apart(topic: Topic, broker: ringpost.Broker) -> None:
    broker.queue("news").put("for the queue")
    topic.publish("for the topic")
    assert broker.queue("news").get_nowait() == "for the queue"
    assert (broker.list(), broker.topics()) == (["news"], ["news"])


# ---- where to start, and where to go on ---------------------------------------------------------


def test_earliest_is_what_the_ring_still_has(topic: Topic) -> None:
    for number in range(10):
        topic.publish(number)
    assert bodies(topic.subscribe(start="earliest")) == list(range(10))
    for _ in range(3000):
        topic.publish(bytes(1000))
    found = bodies(topic.subscribe(start="earliest", name="late"))
    assert 100 < len(found) < 1000


def test_from_a_sequence_on(topic: Topic) -> None:
    for number in range(10):
        topic.publish(number)
    assert bodies(topic.subscribe(start=7)) == [7, 8, 9]
    assert bodies(topic.subscribe(start=7, name="n")) == [7, 8, 9]


def test_from_a_time_on(topic: Topic) -> None:
    topic.publish("old")
    time.sleep(0.05)
    when = datetime.now(timezone.utc)
    time.sleep(0.05)
    topic.publish("new")
    assert bodies(topic.subscribe(start=when)) == ["new"]


def test_a_named_subscriber_keeps_its_place(topic: Topic, broker: ringpost.Broker) -> None:
    with topic.subscribe(name="audit") as first:
        topic.publish("a")
        topic.publish("b")
        first.receive(0).ack()
        assert first.receive(0).body == "b"  # not acked
    topic.publish("c")
    again = broker.topic("news").subscribe(name="audit")
    assert bodies(again) == ["b", "c"]


def test_it_keeps_its_place_when_its_process_dies(topic: Topic, broker: ringpost.Broker) -> None:
    topic.subscribe(name="audit").close()
    for number in range(20):
        topic.publish(number)
    child = os.fork()
    if child == 0:
        subscriber = ringpost.connect(broker.url).topic("news").subscribe(name="audit", prefetch=4)
        for _ in range(5):
            subscriber.receive(BOUND).ack()
        subscriber.receive(BOUND)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    with topic.subscribe(name="audit") as subscriber:
        found = []
        for _ in range(15):
            with subscriber.receive(BOUND) as message:
                found.append(message.body)
    assert sorted(found) == list(range(5, 20))


def test_several_under_one_name_share_the_work(topic: Topic) -> None:
    subscribers = [topic.subscribe(name="workers", prefetch=1) for _ in range(3)]
    everything = topic.subscribe()
    for number in range(9):
        topic.publish(number)
    found = [each.receive(0) for each in subscribers * 3]
    assert sorted(message.body for message in found) == list(range(9))
    for message in found:
        message.ack()
    assert bodies(everything) == list(range(9))


def test_another_pattern_under_the_same_name_is_refused(topic: Topic) -> None:
    topic.subscribe("a.*", name="n").close()
    with pytest.raises(ringpost.SettingsMismatch, match="unsubscribe"):
        topic.subscribe("b.*", name="n")
    with pytest.raises(ringpost.SettingsMismatch):
        topic.subscribe("a.*", name="n", on_lag="error")
    assert topic.unsubscribe("n") is True
    assert topic.unsubscribe("n") is False
    topic.subscribe("b.*", name="n").close()
    assert topic.subscribers() == ("n",)


def test_one_without_a_name_is_gone_when_it_is_closed(topic: Topic) -> None:
    subscriber = topic.subscribe()
    assert len(topic.subscribers()) == 1
    subscriber.close()
    assert topic.subscribers() == ()
    with pytest.raises(ValueError, match="closed"):
        subscriber.receive(0)


def test_one_without_a_name_is_gone_when_it_is_forgotten(topic: Topic) -> None:
    subscriber = topic.subscribe()
    assert len(topic.subscribers()) == 1
    del subscriber
    assert topic.subscribers() == ()


def test_a_subscriber_that_was_removed_is_told(topic: Topic) -> None:
    subscriber = topic.subscribe(name="n")
    topic.unsubscribe("n")
    with pytest.raises(ringpost.QueueDeleted, match="subscribe"):
        subscriber.receive(0)


def test_there_is_room_for_many_subscribers(topic: Topic) -> None:
    subscribers = [topic.subscribe(name=f"s{n}") for n in range(123)]
    with pytest.raises(ringpost.TooManyProcesses, match="unsubscribe"):
        topic.subscribe()
    topic.publish("to all")
    assert all(bodies(each) == ["to all"] for each in subscribers)
    topic.unsubscribe("s7")
    topic.subscribe(name="another").close()


def test_waiting_for_subscribers(topic: Topic) -> None:
    with pytest.raises(TimeoutError, match="0 of 1"):
        topic.wait_for_subscribers(timeout=0.05)
    call = Call(topic.wait_for_subscribers, 2)
    first = topic.subscribe()
    assert call.is_blocked()
    second = topic.subscribe()
    call.result()
    first.close()
    second.close()


def test_a_named_one_may_have_dead_letters(topic: Topic, broker: ringpost.Broker) -> None:
    subscriber = topic.subscribe(name="n", max_deliveries=1)
    topic.publish("poison", "a.b")
    subscriber.receive(0).nack()
    ((death, letter),) = ringpost.DeadLetters(lambda: broker.queue("news.dead"), "news", None).peek()
    assert (death.queue, letter.body, letter.subject) == ("news", "poison", "a.b")
    with pytest.raises(ringpost.Unsupported):
        ringpost.DeadLetters(lambda: broker.queue("news.dead"), "news", None).replay()


def test_expired_messages_are_passed_over(topic: Topic) -> None:
    subscriber = topic.subscribe()
    topic.publish("gone", ttl=0.01)
    topic.publish("stays", ttl=60)
    time.sleep(0.05)
    assert bodies(subscriber) == ["stays"]


# ---- retained -----------------------------------------------------------------------------------


def test_the_last_value_of_each_subject_comes_first(topic: Topic) -> None:
    for number in range(3):
        topic.publish(f"dax {number}", "eu.dax", retain=True)
    topic.publish("dow", "us.dow", retain=True)
    topic.publish("not kept", "eu.dax")
    subscriber = topic.subscribe("eu.*", retained=True)
    topic.publish("new", "eu.dax")
    first = subscriber.receive(0)
    assert (first.body, first.subject, first.retained) == ("dax 2", "eu.dax", True)
    second = subscriber.receive(0)
    assert (second.body, second.retained) == ("new", False)
    assert bodies(topic.subscribe(retained=True)) == ["dax 2", "dow"]
    assert bodies(topic.subscribe()) == []


def test_a_retained_value_can_be_cleared(topic: Topic) -> None:
    topic.publish("x", "a", retain=True)
    assert topic.clear_retained("a") is True
    assert topic.clear_retained("a") is False
    assert bodies(topic.subscribe(retained=True)) == []


def test_retained_values_outlive_their_publisher(topic: Topic) -> None:
    child = os.fork()
    if child == 0:
        topic.publish("kept", "a", retain=True)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert bodies(topic.subscribe(retained=True)) == ["kept"]


# ---- numbers ------------------------------------------------------------------------------------


def test_numbers(topic: Topic, broker: ringpost.Broker) -> None:
    subscriber, other = topic.subscribe(name="n"), topic.subscribe("a.*")
    for number in range(5):
        topic.publish(number, "a.b")
    subscriber.receive(0).ack()
    other.receive(0)
    stats = topic.stats()
    assert (stats.name, stats.published) == ("news", 5)
    by_name = {each.name: each for each in stats.subscribers}
    assert (by_name["n"].acked, by_name["n"].in_flight, by_name["n"].pid) == (1, 4, None)
    mine = next(each for each in stats.subscribers if each.pid == os.getpid())
    assert (mine.pattern, mine.delivered) == ("a.*", 5)
    assert broker.stats().topics[0].published == 5
    assert by_name["n"].oldest_age is not None


def test_a_topic_is_pickled_by_its_name(topic: Topic) -> None:
    import pickle

    subscriber = topic.subscribe()
    with pickle.loads(pickle.dumps(topic)) as again:
        again.publish("through a pickle")
    assert bodies(subscriber) == ["through a pickle"]


def test_subscribers_of_other_processes_are_seen(topic: Topic) -> None:
    child = os.fork()
    if child == 0:
        subscriber = topic.subscribe(prefetch=1)
        subscriber.receive(BOUND)
        os._exit(0)
    topic.wait_for_subscribers(1, timeout=BOUND)
    topic.publish("go")
    os.waitpid(child, 0)
    for _ in range(3000):
        topic.publish(bytes(1000), timeout=BOUND)
    eventually(lambda: topic.subscribers() == ())
