"""Queues in pools: given to the initializer, as arguments of tasks, and as their results."""

from __future__ import annotations

import queue as standard
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

import ringpost
from conformance import workers
from conformance.conftest import MakeQueue
from conformance.crew import Crew, every_method
from conformance.patience import BOUND

CAPACITY = 1 << 20
ITEMS = list(range(40))


@every_method
def test_given_to_the_initializer(make: MakeQueue, method: str) -> None:
    queue = make(capacity=CAPACITY)
    with Crew(method) as crew:
        crew.hire(workers.keep, queue)
        crew.pool.map_async(workers.put_into_kept, ITEMS).get(BOUND)
        assert sorted(queue.get_nowait() for _ in ITEMS) == ITEMS
        queue.put_many(ITEMS)
        assert sorted(crew.pool.map_async(workers.take_from_kept, ITEMS).get(BOUND)) == ITEMS
    assert queue.empty()


@every_method
def test_as_an_argument_of_each_task(make: MakeQueue, method: str) -> None:
    queue = make(capacity=CAPACITY)
    with Crew(method) as crew:
        crew.hire()
        crew.pool.starmap_async(workers.put, [(queue, item) for item in ITEMS]).get(BOUND)
        assert sorted(crew.pool.map_async(workers.take, [queue] * len(ITEMS)).get(BOUND)) == ITEMS
    assert queue.empty()


@every_method
def test_in_an_executor(make: MakeQueue, method: str) -> None:
    queue = make(capacity=CAPACITY)
    with (
        Crew(method) as crew,
        ProcessPoolExecutor(
            2, mp_context=crew.context, initializer=workers.keep, initargs=(queue,)
        ) as executor,
    ):
        for future in [executor.submit(workers.put_into_kept, item) for item in ITEMS[::2]]:
            future.result(BOUND)
        for future in [executor.submit(workers.put, queue, item) for item in ITEMS[1::2]]:
            future.result(BOUND)
        futures = [executor.submit(workers.take, queue) for _ in ITEMS]
        assert sorted(future.result(BOUND) for future in futures) == ITEMS


def test_as_a_result(binding: Any) -> None:
    with Crew() as crew:
        crew.hire()
        queue = crew.pool.apply_async(workers.make_queue, (ITEMS,)).get(BOUND)
    with queue:  # its maker has ended
        assert [queue.get_nowait() for _ in ITEMS] == ITEMS


def test_errors_come_home_as_they_are(make: MakeQueue) -> None:
    queue = make(1, capacity=CAPACITY)
    with Crew() as crew:
        crew.hire()

        def fails(expected: type[Exception], function: Any, *arguments: Any) -> None:
            with pytest.raises(expected) as raised:
                crew.pool.apply_async(function, (queue, *arguments)).get(BOUND)
            assert type(raised.value) is expected
            assert str(raised.value)

        fails(standard.Empty, workers.take_at_once)
        fails(ringpost.MessageTooLarge, workers.put_bytes, CAPACITY)
        queue.put("x")
        fails(standard.Full, workers.put_at_once, "y")
        queue.shutdown(immediate=True)
        fails(ringpost.ShutDown, workers.take_at_once)
        fails(ringpost.ShutDown, workers.put_at_once, "y")
