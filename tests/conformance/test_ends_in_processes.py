"""shutdown and join across processes."""

from __future__ import annotations

from typing import Any

import pytest

import ringpost
from conformance import workers
from conformance.conftest import MakeQueue
from conformance.crew import Crew
from conformance.patience import BOUND, Call

Queue = ringpost.Queue[Any]

ENDLESS: list[Any] = [True, None]
TAKING = {"get": ("get", ENDLESS), "get_many": ("get_many", [10, *ENDLESS])}
PUTTING = {
    "put": ("put", ["x", *ENDLESS]),
    "put_many": ("put_many", [["x", "y"], *ENDLESS]),
    "a large put": ("put", [bytes(40_000), *ENDLESS]),
}
either = pytest.mark.parametrize("immediate", [False, True])


def start_waiting(crew: Crew, queue: Queue, call: str, arguments: list[Any], report: Queue) -> None:
    crew.start(workers.report_end, queue, call, arguments, report)
    assert report.get(timeout=BOUND) == workers.READY


@either
@pytest.mark.parametrize(("call", "arguments"), TAKING.values(), ids=TAKING)
def test_shutdown_ends_takers_elsewhere(
    make: MakeQueue, call: str, arguments: list[Any], immediate: bool
) -> None:
    queue, report = make(), make()
    with Crew() as crew:
        for _ in range(2):
            start_waiting(crew, queue, call, arguments, report)
        with pytest.raises(ringpost.Empty):
            report.get(timeout=0.05)
        queue.shutdown(immediate)
        assert [report.get(timeout=BOUND) for _ in range(2)] == ["ShutDown"] * 2


@either
@pytest.mark.parametrize(("call", "arguments"), PUTTING.values(), ids=PUTTING)
def test_shutdown_ends_putters_elsewhere(
    make: MakeQueue, call: str, arguments: list[Any], immediate: bool
) -> None:
    queue, report = make(1, capacity=128 << 10), make()
    queue.put("first")
    with Crew() as crew:
        for _ in range(2):
            start_waiting(crew, queue, call, arguments, report)
        with pytest.raises(ringpost.Empty):
            report.get(timeout=0.05)
        queue.shutdown(immediate)
        assert [report.get(timeout=BOUND) for _ in range(2)] == ["ShutDown"] * 2
    assert queue.qsize() == (0 if immediate else 1)


@either
def test_a_child_may_shut_down(make: MakeQueue, immediate: bool) -> None:
    queue = make(1)
    waiting = Call(queue.get)
    assert waiting.is_blocked()
    with Crew() as crew:
        crew.start(workers.shut_down, queue, immediate)
        with pytest.raises(ringpost.ShutDown):
            waiting.result()
    assert queue.is_shutdown


def test_what_is_left_is_taken_elsewhere(make: MakeQueue) -> None:
    queue, report = make(), make()
    queue.put_many(range(100))
    queue.shutdown()
    with Crew() as crew:
        crew.start(workers.take_until_shutdown, queue, report)
        crew.start(workers.take_batches_until_shutdown, queue, report)
        assert sorted(report.get(timeout=BOUND) + report.get(timeout=BOUND)) == list(range(100))


def test_join_waits_for_the_work_of_others(make: MakeQueue) -> None:
    queue = make()
    queue.put_many(range(60))
    with Crew() as crew:
        waiting = Call(queue.join)
        assert waiting.is_blocked()
        for _ in range(3):
            crew.start(workers.take_and_finish, queue, 20)
        waiting.result()
        assert queue.empty()
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()


def test_join_elsewhere_waits_for_the_work_here(make: MakeQueue) -> None:
    queue, report = make(), make()
    queue.put_many("ab")
    with Crew() as crew:
        for _ in range(2):
            start_waiting(crew, queue, "join", [], report)
        for _ in range(2):
            queue.get()
            with pytest.raises(ringpost.Empty):
                report.get(timeout=0.05)
            queue.task_done()
        assert [report.get(timeout=BOUND) for _ in range(2)] == ["returned"] * 2


def test_join_elsewhere_ends_at_its_timeout(make: MakeQueue) -> None:
    queue, report = make(), make()
    queue.put("x")
    with Crew() as crew:
        start_waiting(crew, queue, "join", [0.01], report)
        assert report.get(timeout=BOUND) == "TimeoutError"


def test_immediate_shutdown_ends_a_join_elsewhere(make: MakeQueue) -> None:
    queue, report = make(), make()
    queue.put_many("ab")
    with Crew() as crew:
        start_waiting(crew, queue, "join", [], report)
        queue.shutdown(immediate=True)
        assert report.get(timeout=BOUND) == "returned"


def test_more_task_done_than_put_is_refused_elsewhere(make: MakeQueue) -> None:
    queue, report = make(), make()
    queue.put("x")
    queue.get()
    with Crew() as crew:
        for end in ("returned", "ValueError"):
            start_waiting(crew, queue, "task_done", [], report)
            assert report.get(timeout=BOUND) == end
            crew.wait()
