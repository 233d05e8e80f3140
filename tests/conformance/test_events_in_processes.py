"""Event buses of one name, in several processes."""

from __future__ import annotations

import os
import pickle
import signal
from typing import Any

import pytest

import ringpost
from conformance.crew import Crew, every_method
from conformance.patience import BOUND, eventually
from conformance.topic_workers import answer_pings, listen, report_until_end
from conformance.topics import in_child

Bus = ringpost.EventBus


@pytest.fixture
def bus(binding: Any, broker: ringpost.Broker) -> Bus:
    with broker.events("app") as bus:
        yield bus


@pytest.fixture
def report(broker: ringpost.Broker) -> ringpost.Queue[Any]:
    return broker.queue("report")


@every_method
def test_every_process_hears_what_it_listens_to(
    bus: Bus, broker: ringpost.Broker, report: ringpost.Queue[Any], method: str
) -> None:
    patterns = ["order.*", "#.created", "user.#"]
    with Crew(method) as crew:
        for pattern in patterns:
            crew.start(report_until_end, broker.url, pattern, report)
        assert [report.get(timeout=BOUND) for _ in patterns] == [None] * 3  # they listen
        for name in ("order.created", "order.paid", "user.created", "user", "nobody", "end"):
            assert bus.emit(name, 1) is (name != "nobody")
        heard = dict(report.get(timeout=BOUND) for _ in patterns)
    assert heard == {
        "order.*": ["order.created", "order.paid"],
        "#.created": ["order.created", "user.created"],
        "user.#": ["user.created", "user"],
    }


def test_answers_come_as_events(bus: Bus, broker: ringpost.Broker) -> None:
    answers: list[int] = []

    @bus.on("pong")
    def note(number: int) -> None:
        answers.append(number)
        if number < 100:
            bus.emit("ping", number + 1)
        else:
            bus.emit("end")
            bus.stop()

    with Crew() as crew:
        crew.start(answer_pings, broker.url)
        eventually(lambda: bus.is_heard("ping"))
        bus.emit("ping", 0)
        bus.run(BOUND)
    assert answers == list(range(101))


def test_emit_tells_whether_another_process_listens(bus: Bus, broker: ringpost.Broker) -> None:
    assert bus.emit("a") is False
    with Crew() as crew:
        crew.start(listen, broker.url, "a")
        eventually(lambda: bus.emit("a"))
        assert bus.emit("b") is False
        bus.emit("end")
    assert bus.emit("a") is False


def test_a_dead_process_does_not_listen(bus: Bus, broker: ringpost.Broker) -> None:
    in_child(lambda: ringpost.connect(broker.url).events("app").on("a", print), signal.SIGKILL)
    eventually(lambda: bus.emit("a") is False)


def test_each_of_several_forked_children_hears_it(bus: Bus, report: ringpost.Queue[Any]) -> None:
    """The listeners of their parent are theirs, but not its place."""
    bus.on("a", lambda number: report.put([os.getpid(), number]))
    bus.on("end", bus.stop)
    with Crew() as crew:
        children = [crew.start(bus.run, BOUND).pid for _ in range(3)]
        bus._topic.wait_for_subscribers(4, timeout=BOUND)
        for number in range(5):
            bus.emit("a", number)
        bus.emit("end")
        bus.run(BOUND)
        found = report.get_many(100, timeout=BOUND)
        while len(found) < 20:
            found += report.get_many(100, timeout=BOUND)
    assert sorted(found) == sorted([pid, n] for pid in [os.getpid(), *children] for n in range(5))


def test_a_forked_child_that_closes_or_forgets_takes_nothing_from_its_parent(bus: Bus) -> None:
    calls: list[int] = []
    bus.on("a", calls.append)
    in_child(bus.close)
    in_child(lambda: bus.off("a"))
    in_child(lambda: bus.emit("a", 1))
    bus.run(0)
    assert calls == [1]


def test_a_fork_while_the_loop_runs_in_a_thread(bus: Bus) -> None:
    calls: list[int] = []
    bus.on("a", calls.append)
    bus.run_in_thread()
    for number in range(20):
        in_child(lambda number=number: (bus.emit("a", number), bus.stop(), bus.close()))
    eventually(lambda: sorted(calls) == list(range(20)))
    bus.stop()


def test_errors_and_new_listeners_stay_in_their_process(bus: Bus) -> None:
    calls: list[object] = []
    bus.on("error", calls.append)
    bus.on("new_listener", lambda *_: calls.append("new"))
    in_child(lambda: (bus.emit("error", "in the child"), bus.on("a", print)))
    bus.run(0)
    assert calls == []


def test_a_bus_is_pickled_by_its_name(bus: Bus) -> None:
    bus.on("a", print)
    with pickle.loads(pickle.dumps(bus)) as again:
        assert (again.name, again.event_names()) == ("app", [])
        assert again.emit("a") is True
