"""The last value of a subject, kept for who subscribes later."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

import pytest

import ringpost
from conformance.topics import bodies, in_child
from ringpost import aio


@pytest.fixture
def topic(binding: Any, broker: ringpost.Broker) -> ringpost.Topic:
    return broker.topic("t", capacity=1 << 20)


def test_only_who_asks_gets_it(topic: ringpost.Topic) -> None:
    topic.publish("x", "a", retain=True)
    assert bodies(topic.subscribe()) == []
    assert bodies(topic.subscribe(retained=True)) == ["x"]
    assert bodies(topic.subscribe(retained=True)) == ["x"]


def test_only_the_last_one_is_kept(topic: ringpost.Topic) -> None:
    for number in range(5):
        topic.publish(number, "a", retain=True)
        topic.publish(-number, "a")
    assert bodies(topic.subscribe(retained=True)) == [4]


def test_it_is_kept_by_subject_and_one_may_have_none(topic: ringpost.Topic) -> None:
    for subject in ("b", "a.b", "", "a"):
        topic.publish(f"last of {subject!r}", subject, retain=True)
    assert bodies(topic.subscribe(retained=True)) == [f"last of {s!r}" for s in ("", "a", "a.b", "b")]
    assert bodies(topic.subscribe("a.#", retained=True)) == ["last of 'a'", "last of 'a.b'"]


def test_it_is_as_it_was_published(topic: ringpost.Topic) -> None:
    topic.publish([1, "é"], "a.b", headers={"h": 1}, correlation_id="c", message_id="m", key="k", retain=True)
    message = topic.subscribe(retained=True).receive(0)
    assert (message.body, message.subject, dict(message.headers)) == ([1, "é"], "a.b", {"h": 1})
    assert (message.correlation_id, message.id, message.key) == ("c", "m", "k")
    assert abs(message.timestamp.timestamp() - time.time()) < 60
    assert message.retained


@pytest.mark.parametrize("body", [b"", b"\0\xff", "é", None, bytes(200_000)])
def test_it_may_be_anything(topic: ringpost.Topic, body: object) -> None:
    topic.publish(body, retain=True)
    assert bodies(topic.subscribe(retained=True)) == [body]


def test_it_comes_before_what_is_new(topic: ringpost.Topic) -> None:
    topic.publish("kept", "a", retain=True)
    subscriber = topic.subscribe(retained=True)
    topic.publish("new", "a")
    first, second = subscriber.receive(0), subscriber.receive(0)
    assert [(each.body, each.retained) for each in (first, second)] == [("kept", True), ("new", False)]


def test_many_at_once(topic: ringpost.Topic) -> None:
    for number in range(50):
        topic.publish(number, f"n.{number:02}", retain=True)
    subscriber = topic.subscribe("n.*", retained=True)
    assert [each.body for each in subscriber.receive_many(100, 0)] == list(range(50))


def test_it_may_be_acked_and_used_as_any_other(topic: ringpost.Topic) -> None:
    for subject in ("a", "b"):
        topic.publish("x", subject, retain=True)
    with topic.subscribe(retained=True, name="n") as subscriber:
        message = subscriber.receive(0)
        message.ack()
        with subscriber.receive(0) as other:
            pass
        subscriber.ack_many([message, other])
    assert bodies(topic.subscribe(retained=True, name="n")) == ["x", "x"]


def test_it_is_kept_no_longer_than_it_lives(topic: ringpost.Topic) -> None:
    topic.publish("short", "a", ttl=0.02, retain=True)
    topic.publish("long", "b", ttl=60, retain=True)
    time.sleep(0.03)
    assert bodies(topic.subscribe(retained=True)) == ["long"]


def test_clearing_is_by_subject(topic: ringpost.Topic) -> None:
    for subject in ("", "a", "a.b"):
        topic.publish(subject, subject, retain=True)
    assert topic.clear_retained("a") is True
    assert topic.clear_retained("a") is False
    assert topic.clear_retained() is True
    assert bodies(topic.subscribe(retained=True)) == ["a.b"]


def test_topics_keep_apart(topic: ringpost.Topic, broker: ringpost.Broker) -> None:
    topic.publish("mine", "a", retain=True)
    with broker.topic("other") as other:
        assert bodies(other.subscribe(retained=True)) == []


def test_a_topic_that_is_made_anew_has_none(topic: ringpost.Topic, broker: ringpost.Broker) -> None:
    topic.publish("old", "a", retain=True)
    broker.delete_topic("t")
    with broker.topic("t") as fresh:
        assert bodies(fresh.subscribe(retained=True)) == []


def test_it_outlives_who_published_it(topic: ringpost.Topic) -> None:
    in_child(lambda: topic.publish("kept", "a", retain=True), signal.SIGKILL)
    assert bodies(topic.subscribe(retained=True)) == ["kept"]


def test_what_was_refused_is_not_kept(topic: ringpost.Topic) -> None:
    with pytest.raises(ringpost.EncodeError):
        topic.publish(object(), "a", retain=True)
    topic.shutdown()
    with pytest.raises(ringpost.ShutDown):
        topic.publish("late", "a", retain=True)
    assert topic.clear_retained("a") is False


@pytest.mark.parametrize("where", ["a task", "a thread"])
def test_what_cannot_be_kept_is_published_once(
    topic: ringpost.Topic, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Stalled is a Full: of the side store's lock it is no lack of room."""

    def stalled(*unused: object) -> None:
        raise ringpost.Stalled("somebody is stopped in the side store")

    monkeypatch.setattr("ringpost.retained.Retained.keep", stalled)
    subscriber = topic.subscribe()

    async def publish_in_task() -> None:
        async with aio.connect(topic._broker.url) as broker:
            await (await broker.topic("t")).publish("once", "a", retain=True)

    def publish() -> None:
        if where == "a task":
            asyncio.run(publish_in_task())
        else:
            topic.publish("once", "a", retain=True, timeout=1)

    with pytest.raises(ringpost.Stalled) as caught:
        publish()
    assert caught.value.put == 1  # type: ignore[attr-defined]
    assert bodies(subscriber) == ["once"]
