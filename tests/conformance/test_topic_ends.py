"""Who closes what, and what is left then: places, blocked calls, forked copies."""

from __future__ import annotations

import gc
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, Call
from conformance.topics import bodies, in_child, publish_numbers


@pytest.fixture
def topic(binding: Any, broker: ringpost.Broker) -> ringpost.Topic:
    return broker.topic("t", capacity=128 << 10)


def test_closing_a_topic_gives_up_the_places_it_gave_out(
    topic: ringpost.Topic, broker: ringpost.Broker
) -> None:
    subscribers = [topic.subscribe(), topic.subscribe(name="n"), topic.subscribe(on_lag="drop-oldest")]
    topic.close()
    assert broker.topic("t").subscribers() == ("n",)
    for subscriber in subscribers:
        with pytest.raises(ValueError, match="closed"):
            subscriber.receive(0)
        subscriber.close()


def test_closing_a_topic_gives_back_what_was_held(topic: ringpost.Topic, broker: ringpost.Broker) -> None:
    subscriber = topic.subscribe(name="n")
    publish_numbers(topic, 3)
    subscriber.receive(0)
    topic.close()
    assert bodies(broker.topic("t").subscribe(name="n")) == [0, 1, 2]


@pytest.mark.parametrize(("name", "close"), [(None, "subscriber"), (None, "topic"), ("n", "topic")])
def test_a_loop_ends_when_another_thread_closes(topic: ringpost.Topic, close: str, name: str | None) -> None:
    subscriber = topic.subscribe(name=name)
    call = Call(lambda: [message.body for message in subscriber])
    assert call.is_blocked()
    (topic if close == "topic" else subscriber).close()
    assert call.result() == []


@pytest.mark.parametrize("method", ["receive", "receive_many"])
def test_a_call_ends_when_another_thread_closes(topic: ringpost.Topic, method: str) -> None:
    subscriber = topic.subscribe()
    call = Call(getattr(subscriber, method))
    assert call.is_blocked()
    subscriber.close()
    with pytest.raises(ValueError, match="closed"):
        call.result()


def test_everything_closes_twice_and_in_any_order(topic: ringpost.Topic, broker: ringpost.Broker) -> None:
    one, other = topic.subscribe(), topic.subscribe(name="n")
    broker.delete_topic("t")
    for each in (one, topic, other, topic, one, other):
        each.close()
    other.unsubscribe()


def test_a_topic_that_was_deleted_can_be_made_anew(topic: ringpost.Topic, broker: ringpost.Broker) -> None:
    topic.subscribe(name="n").close()
    publish_numbers(topic, 5)
    broker.delete_topic("t")
    with broker.topic("t") as fresh:
        assert fresh.subscribers() == ()
        subscriber = fresh.subscribe(start="earliest")
        fresh.publish("new")
        message = subscriber.receive(0)
        assert (message.body, message.sequence) == ("new", 0)


def test_after_shutdown_subscribers_get_what_is_left(topic: ringpost.Topic) -> None:
    one, other = topic.subscribe("a.*"), topic.subscribe(name="n")
    publish_numbers(topic, 5, "a.b")
    topic.shutdown()
    for subscriber in (one, other):
        found = []
        for message in subscriber:
            found.append(message.body)
            if not message.settled:
                message.ack()
        assert found == [0, 1, 2, 3, 4]
    late = topic.subscribe(start="earliest")
    assert [message.body for message in late] == [0, 1, 2, 3, 4]


def test_a_forked_child_that_closes_takes_no_place_from_its_parent(topic: ringpost.Topic) -> None:
    subscriber = topic.subscribe()
    topic.publish("for the parent")
    in_child(subscriber.close)
    in_child(topic.close)
    in_child(lambda: (topic._broker.close(), gc.collect()))
    assert bodies(subscriber) == ["for the parent"]


def test_a_forked_child_may_publish_and_subscribe(topic: ringpost.Topic) -> None:
    mine = topic.subscribe()

    def child() -> None:
        its = topic.subscribe()
        topic.publish("from the child")
        assert its.receive(BOUND).body == "from the child"

    in_child(child)
    assert bodies(mine) == ["from the child"]


def test_places_are_used_again(topic: ringpost.Topic) -> None:
    for number in range(400):
        with topic.subscribe() as subscriber:
            topic.publish(number, timeout=0)
            assert subscriber.receive(0).body == number
    assert topic.subscribers() == ()
