"""Looking at a queue never fails and never errs, at whatever point others are in their operations."""

from __future__ import annotations

import pytest

import ringpost
from crash import stepping
from crash.children import Nursery
from crash.steps import CAPACITY, Step, each_step, set_up


@pytest.fixture(autouse=True)
def _stepping_works() -> None:
    if reason := stepping.why_not():
        pytest.skip(reason)


@each_step
def test_sizes_are_those_of_before_or_after(broker: ringpost.Broker, fork: Nursery, step: Step) -> None:
    queue = broker.queue("q", capacity=CAPACITY, maxsize=step.maxsize)
    segment = set_up(queue, step)
    before, after = len(step.before), len(step.before) - step.takes + len(step.puts)
    sizes = []
    for _ in stepping.after_each_store(
        fork, segment, lambda: step.operation(queue), lambda: step.prepare(queue)
    ):
        sizes.append(queue.qsize())
        assert queue.empty() == (sizes[-1] == 0)
        assert queue.full() == (step.maxsize == sizes[-1] != 0)
        assert queue._log.info()["ready"] == sizes[-1]
    assert sizes == sorted(sizes, reverse=after < before), "it went back and forth"
    assert set(sizes) <= {before, after}
    assert sizes[-1] == after
