"""A named subscriber keeps its place, and those who share a name share the work."""

from __future__ import annotations

import signal
from typing import Any

import pytest

import ringpost
from conformance.crew import Crew
from conformance.patience import BOUND, Call, eventually
from conformance.topic_workers import take_shares
from conformance.topics import bodies, in_child, publish_numbers


@pytest.fixture
def topic(binding: Any, broker: ringpost.Broker) -> ringpost.Topic:
    return broker.topic("t", capacity=1 << 20)


def again(topic: ringpost.Topic) -> ringpost.Topic:
    """As another process would open it."""
    return ringpost.connect(topic._broker.url).topic(topic.name)


def test_its_place_outlives_its_process(topic: ringpost.Topic) -> None:
    in_child(lambda: again(topic).subscribe("a.*", name="audit"))
    publish_numbers(topic, 3, "a.b")
    publish_numbers(topic, 3, "b.a")
    assert topic.subscribers() == ("audit",)
    assert bodies(topic.subscribe("a.*", name="audit")) == [0, 1, 2]


def test_what_was_acked_before_kill_9_does_not_come_again(topic: ringpost.Topic) -> None:
    topic.subscribe(name="audit").close()
    publish_numbers(topic, 10)

    def ack_three_and_hold_two() -> None:
        subscriber = again(topic).subscribe(name="audit", prefetch=5)
        messages = [subscriber.receive(BOUND) for _ in range(5)]
        subscriber.ack_many(messages[:3])

    in_child(ack_three_and_hold_two, signal.SIGKILL)
    subscriber = topic.subscribe(name="audit", prefetch=1)
    found = [subscriber.receive(BOUND) for _ in range(7)]
    assert [(each.body, each.redelivered) for each in found] == [
        (3, True),
        (4, True),
        *((n, False) for n in range(5, 10)),
    ]


def test_one_that_acks_by_itself_goes_on_behind_what_it_took(topic: ringpost.Topic) -> None:
    with topic.subscribe(name="n", auto_ack=True, prefetch=1) as subscriber:
        publish_numbers(topic, 5)
        assert [subscriber.receive(0).body for _ in range(2)] == [0, 1]
    assert bodies(topic.subscribe(name="n")) == [2, 3, 4]


def test_one_that_may_be_overrun_keeps_its_place_too(topic: ringpost.Topic) -> None:
    topic.subscribe(name="n", on_lag="drop-oldest").close()
    publish_numbers(topic, 5)
    assert bodies(topic.subscribe(name="n", on_lag="drop-oldest")) == [0, 1, 2, 3, 4]


def test_processes_of_one_name_share_the_work(topic: ringpost.Topic, broker: ringpost.Broker) -> None:
    report = broker.queue("report")
    everything = topic.subscribe()
    topic.subscribe("job.#", name="workers").close()
    with Crew() as crew:
        for _ in range(3):
            crew.start(take_shares, broker.url, "job.#", report)
        for number in range(300):
            topic.publish(number, "job.new", timeout=BOUND)
        shares: list[int] = []
        while len(shares) < 300:
            shares += report.get(timeout=BOUND)
        topic.shutdown()
    assert sorted(shares) == list(range(300))
    assert [message.body for message in everything] == list(range(300))


def test_what_one_gives_back_another_gets(topic: ringpost.Topic) -> None:
    one = topic.subscribe(name="n", prefetch=1)
    other = topic.subscribe(name="n", prefetch=1)
    topic.publish("x")
    message = one.receive(0)
    call = Call(other.receive, BOUND)
    assert call.is_blocked()
    message.nack()
    assert (call.result().body, call.result().deliveries) == ("x", 2)


def test_closing_one_leaves_the_place_to_the_others(topic: ringpost.Topic) -> None:
    one, other = (topic.subscribe(name="n", prefetch=4) for _ in range(2))
    publish_numbers(topic, 8)
    assert one.receive(0).body == 0
    one.close()
    assert sorted(bodies(other)) == list(range(8))


def test_another_pattern_needs_a_new_place(topic: ringpost.Topic) -> None:
    with topic.subscribe("a.#", name="n"):
        publish_numbers(topic, 2, "a.b")
    with pytest.raises(ringpost.SettingsMismatch, match="another pattern"):
        topic.subscribe("b.#", name="n")
    with topic.subscribe("a.#", name="n") as as_it_was:
        as_it_was.unsubscribe()
    with topic.subscribe("b.#", name="n") as changed:
        publish_numbers(topic, 2, "a.b")
        publish_numbers(topic, 1, "b.c")
        assert bodies(changed) == [0]


def test_unsubscribing_is_for_every_process_of_the_name(topic: ringpost.Topic) -> None:
    one, other = (topic.subscribe(name="n") for _ in range(2))
    call = Call(other.receive, BOUND)
    assert call.is_blocked()
    one.unsubscribe()
    with pytest.raises(ringpost.QueueDeleted, match="subscribe"):
        call.result()
    assert topic.subscribers() == ()


def test_one_without_a_name_is_gone_with_its_process(topic: ringpost.Topic) -> None:
    in_child(lambda: again(topic).subscribe(), signal.SIGKILL)
    eventually(lambda: topic.subscribers() == ())


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "a\0b", "line\n", "\ud800", 7, b"n"])
def test_what_is_no_name_is_refused(topic: ringpost.Topic, name: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="name"):
        topic.subscribe(name=name)
    assert topic.subscribers() == ()


def test_the_longest_name_fits(topic: ringpost.Topic) -> None:
    name = "é" * 31 + "x"
    topic.subscribe(name=name).close()
    assert topic.subscribers() == (name,)
    assert topic.unsubscribe(name)


@pytest.mark.parametrize("settings", [{"prefetch": 0}, {"lease": 0}, {"max_deliveries": 0}, {"pattern": ""}])
@pytest.mark.parametrize("name", [None, "n"])
def test_settings_that_are_refused_leave_no_place(
    topic: ringpost.Topic, settings: dict[str, Any], name: str | None
) -> None:
    with pytest.raises(ValueError, match=r"must be|pattern"):
        topic.subscribe(name=name, **settings)
    assert topic.subscribers() == ()


@pytest.mark.parametrize("name", [None, "shared"])
def test_who_fails_to_begin_takes_no_place_from_those_who_have_joined(
    topic: ringpost.Topic, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    joined = []

    def join_and_fail() -> None:
        if name is not None:
            joined.append(again(topic).subscribe(name=name))
        publish_numbers(topic, 3)
        raise ringpost.Stalled("it has failed")

    monkeypatch.setattr(topic, "_retained", join_and_fail)
    with pytest.raises(ringpost.Stalled, match="it has failed"):
        topic.subscribe(name=name, retained=True)
    assert [bodies(each) for each in joined] == [[0, 1, 2]] * len(joined)
    assert topic.subscribers() == (() if name is None else (name,))
