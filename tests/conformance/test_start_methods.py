"""Queues between processes, however they were started."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ringpost
from conformance import workers
from conformance.conftest import MakeQueue
from conformance.crew import METHODS, Crew, every_method
from conformance.patience import BOUND, Call

Queue = ringpost.Queue[Any]

CAPACITY = 1 << 20
ITEMS: list[Any] = [0, "text", b"bytes", None, {"key": [1, 2.5]}, bytes(50_000), "", [[]], True]


def got(queue: Queue, count: int) -> list[Any]:
    return [queue.get(timeout=BOUND) for _ in range(count)]


@every_method
def test_both_ways(make: MakeQueue, method: str) -> None:
    there, back = make(capacity=CAPACITY), make(capacity=CAPACITY)
    with Crew(method) as crew:
        crew.start(workers.move, there, back, len(ITEMS))
        there.put_many(ITEMS)
        assert got(back, len(ITEMS)) == ITEMS
    assert there.empty()
    assert back.empty()


@every_method
def test_children_use_the_binding_under_test(queue: Queue, binding: Any, method: str) -> None:
    with Crew(method) as crew:
        crew.start(workers.report_binding, queue)
        assert queue.get(timeout=BOUND).startswith(binding.__name__)


@every_method
def test_a_child_sees_what_the_parent_sees(make: MakeQueue, method: str) -> None:
    queue, report = make(3, capacity=CAPACITY), make(capacity=CAPACITY)
    queue.put_many("abc")
    with Crew(method) as crew:
        crew.start(workers.report_looks, queue, report)
        assert report.get(timeout=BOUND) == [3, False, True, 3, CAPACITY]


@every_method
def test_children_go_on_after_the_creator_closed_it(make: MakeQueue, method: str) -> None:
    queue, report = make(capacity=CAPACITY), make(capacity=CAPACITY)
    with Crew(method) as crew:
        crew.start(workers.move, queue, report, len(ITEMS))
        crew.start(workers.put_all, queue, ITEMS)
        queue.close()
        assert got(report, len(ITEMS)) == ITEMS


@every_method
def test_a_child_ends_a_wait_here(make: MakeQueue, method: str) -> None:
    queue = make(1)
    waiting = Call(queue.get)
    assert waiting.is_blocked()
    with Crew(method) as crew:
        crew.start(workers.put_all, queue, ["x"])
        assert waiting.result() == "x"
        queue.put("first")
        blocked = Call(queue.put, "second")
        assert blocked.is_blocked()
        report = make()
        crew.start(workers.move, queue, report, 2)
        blocked.result()
        assert got(report, 2) == ["first", "second"]


@every_method
def test_many_producers_and_consumers(make: MakeQueue, method: str) -> None:
    """Nothing lost, nothing twice, and what one producer put comes to each consumer in its order."""
    queue, report = make(3, capacity=CAPACITY), make(capacity=CAPACITY)
    each = 300
    put = [workers.put_numbered, workers.put_numbered_in_batches]
    take = [workers.take_until_shutdown, workers.take_batches_until_shutdown]
    with Crew(method) as crew:
        for function in take:
            crew.start(function, queue, report)
        crew.wait(*[crew.start(function, queue, who, each) for who, function in enumerate(put)])
        queue.shutdown()
        lots = got(report, len(take))
    assert sorted(item for lot in lots for item in lot) == [
        [who, number] for who in range(len(put)) for number in range(each)
    ]
    for lot in lots:
        for who in range(len(put)):
            numbers = [number for by, number in lot if by == who]
            assert numbers == sorted(numbers)


@every_method
@pytest.mark.parametrize("carrier_kind", ["ringpost", "multiprocessing"])
def test_a_queue_travels_through_another(make: MakeQueue, method: str, carrier_kind: str) -> None:
    queue, report = make(capacity=CAPACITY), make(capacity=CAPACITY)
    with Crew(method) as crew:
        carrier: Any = ringpost.Queue(capacity=CAPACITY)
        if carrier_kind == "multiprocessing":
            carrier.close()
            carrier = crew.context.Queue()
        crew.start(workers.move_what_a_queue_brings, carrier, report, len(ITEMS))
        carrier.put(queue)
        queue.put_many(ITEMS)
        assert got(report, len(ITEMS)) == ITEMS
        crew.wait()
        carrier.close()
        carrier.join_thread()
        del carrier


@every_method
def test_an_anonymous_queue_outlives_the_process_that_made_it(binding: Any, method: str) -> None:
    with (
        Crew(method) as crew,
        ringpost.Queue[Any](capacity=CAPACITY) as carrier,
        ringpost.Queue[Any](capacity=CAPACITY) as answer,
    ):
        crew.start(workers.make_and_send, carrier, answer, ITEMS)
        with carrier.get(timeout=BOUND) as queue:
            answer.put("I have it")
            crew.wait()
            assert got(queue, len(ITEMS)) == ITEMS
            queue.put("and it goes on")
            assert queue.get_nowait() == "and it goes on"


def test_a_queue_returns_home(make: MakeQueue) -> None:
    """Unpickled where it came from, it is one more handle of the same queue."""
    queue = make()
    with Crew(), ringpost.Queue[Any](capacity=CAPACITY) as carrier:
        carrier.put_many([queue, queue])
        first, second = carrier.get_many()
        first.put("x")
        first.close()
        assert second.get_nowait() == "x"
        assert queue.empty()
        second.close()


PROGRAM = """
import multiprocessing, sys
import ringpost
from conformance import workers

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue, report = ringpost.Queue(), ringpost.Queue()
    child = context.Process(target=workers.move, args=(queue, report, 3))
    child.start()
    queue.put_many(range(3))
    print([report.get(timeout=20) for _ in range(3)])
    child.join(20)
    queue.put("nobody takes this one")
    sys.exit(child.exitcode)
"""


@every_method
def test_a_program_leaves_no_file(binding: Any, shm_dir: Path, tmp_path: Path, method: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, method],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * BOUND,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 2]\n", "")
    assert [path for path in shm_dir.rglob("*") if path.is_file()] == []


def test_the_start_methods_are_those_of_this_python() -> None:
    assert set(METHODS) == set(multiprocessing.get_all_start_methods())
