"""Topics between processes: publishers and subscribers of their own, and what their deaths leave."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

import ringpost
from conformance.crew import Crew, every_method
from conformance.patience import BOUND, Call, eventually
from conformance.topic_workers import publish_all, receive_one, report_all, subscribe_and_hang

BODY = bytes(1000)
KINDS = pytest.mark.parametrize("settings", [{}, {"on_lag": "error"}, {"on_lag": "drop-oldest"}], ids=str)


@pytest.fixture
def topic(binding: Any, broker: ringpost.Broker) -> Iterator[ringpost.Topic]:
    with broker.topic("t", capacity=256 << 10) as topic:
        yield topic


@pytest.fixture
def report(broker: ringpost.Broker) -> ringpost.Queue[Any]:
    return broker.queue("report")


def kill(crew: Crew, child: BaseProcess) -> None:
    child.kill()
    child.join(BOUND)
    crew._started.remove(child)  # which is not to end well


@every_method
def test_each_subscriber_gets_what_it_wants_in_order(
    topic: ringpost.Topic, broker: ringpost.Broker, report: ringpost.Queue[Any], method: str
) -> None:
    subjects, count = ["eu.dax", "eu.cac", "us.dow"], 500
    patterns = {"#": subjects, "eu.*": subjects[:2], "*.dow": subjects[2:]}
    with Crew(method) as crew:
        for pattern in patterns:
            crew.start(report_all, broker.url, pattern, report)
        topic.wait_for_subscribers(3, timeout=BOUND)
        crew.wait(crew.start(publish_all, broker.url, subjects, count))
        topic.shutdown()
        found = dict(report.get(timeout=BOUND) for _ in patterns)
    for pattern, wanted in patterns.items():
        assert found[pattern] == [[subject, n] for n in range(count) for subject in wanted]


def test_several_publishers_reach_every_subscriber(
    topic: ringpost.Topic, broker: ringpost.Broker, report: ringpost.Queue[Any]
) -> None:
    with Crew() as crew:
        for _ in range(2):
            crew.start(report_all, broker.url, "#", report)
        topic.wait_for_subscribers(2, timeout=BOUND)
        crew.wait(*(crew.start(publish_all, broker.url, [subject], 1000) for subject in "abc"))
        topic.shutdown()
        found = [report.get(timeout=BOUND)[1] for _ in range(2)]
    assert found[0] == found[1]  # one order for all
    for subject in "abc":
        assert [n for of, n in found[0] if of == subject] == list(range(1000))


def test_there_may_be_a_hundred_subscribers_in_some_processes(
    topic: ringpost.Topic, broker: ringpost.Broker, report: ringpost.Queue[Any]
) -> None:
    mine = [topic.subscribe() for _ in range(90)]
    with Crew() as crew:
        children = [crew.start(receive_one, broker.url, report).pid for _ in range(10)]
        topic.wait_for_subscribers(100, timeout=BOUND)
        topic.publish("to all")
        assert sorted(report.get(timeout=BOUND) for _ in children) == sorted(
            [pid, "to all"] for pid in children
        )
    assert [each.receive(BOUND).body for each in mine] == ["to all"] * 90
    eventually(lambda: len(topic.subscribers()) == 90)


@KINDS
def test_one_that_is_killed_holds_no_publisher_back(
    topic: ringpost.Topic, broker: ringpost.Broker, settings: dict[str, Any]
) -> None:
    with Crew() as crew:
        child = crew.start(subscribe_and_hang, broker.url, settings)
        topic.wait_for_subscribers(1, timeout=BOUND)
        topic.publish("hang")
        kill(crew, child)
        for _ in range(1000):
            topic.publish(BODY, timeout=BOUND)
    assert topic.subscribers() == ()


def test_a_publisher_that_waits_for_one_goes_on_when_it_is_killed(
    topic: ringpost.Topic, broker: ringpost.Broker
) -> None:
    with Crew() as crew:
        child = crew.start(subscribe_and_hang, broker.url, {})
        topic.wait_for_subscribers(1, timeout=BOUND)
        call = Call(topic.publish_many, [("a", BODY)] * 1000)
        assert call.is_blocked()
        kill(crew, child)
        assert call.result() == 1000


def test_a_named_one_that_is_killed_is_waited_for_until_it_is_unsubscribed(
    topic: ringpost.Topic, broker: ringpost.Broker
) -> None:
    with Crew() as crew:
        child = crew.start(subscribe_and_hang, broker.url, {"name": "audit"})
        topic.wait_for_subscribers(1, timeout=BOUND)
        call = Call(topic.publish_many, [("a", BODY)] * 1000)
        kill(crew, child)
        assert call.is_blocked()
        assert topic.unsubscribe("audit")
        assert call.result() == 1000


def test_one_that_is_killed_frees_its_place_for_another(
    topic: ringpost.Topic, broker: ringpost.Broker
) -> None:
    others = [topic.subscribe() for _ in range(122)]
    with Crew() as crew:
        child = crew.start(subscribe_and_hang, broker.url, {})
        topic.wait_for_subscribers(123, timeout=BOUND)
        with pytest.raises(ringpost.TooManyProcesses):
            topic.subscribe()
        kill(crew, child)
        others.append(topic.subscribe())
        topic.publish("x")
    assert all(each.receive(0).body == "x" for each in others)


def test_waiting_for_subscribers_of_other_processes(
    topic: ringpost.Topic, broker: ringpost.Broker, report: ringpost.Queue[Any]
) -> None:
    call = Call(topic.wait_for_subscribers, 2, BOUND)
    with Crew() as crew:
        crew.start(receive_one, broker.url, report)
        assert call.is_blocked()
        crew.start(receive_one, broker.url, report)
        call.result()
        topic.publish("go")
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="0 of 1"):
        topic.wait_for_subscribers(1, timeout=0.05)
    assert time.monotonic() - start >= 0.05
    with pytest.raises(TimeoutError):
        topic.wait_for_subscribers(1, timeout=0)
    assert os.getpid() not in {each.pid for each in topic.stats().subscribers}
