"""kill -9 after each single store of receiving, acking and giving back: nothing is lost, nothing is stuck.

As in test_death_after_each_store.py: each state on the way is put back, and survivors go on from there.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

import ringpost
from crash import stepping
from crash.children import Nursery
from crash.lease_steps import LeaseStep, each_lease_step
from crash.segment_file import SegmentFile
from crash.steps import CAPACITY, Step, set_up

BOUND = 10  # seconds: a survivor's longest wait
LATER = b"later"


@pytest.fixture(autouse=True)
def _stepping_works() -> None:
    if reason := stepping.why_not():
        pytest.skip(reason)


def everything(queue: ringpost.Queue[Any]) -> list[bytes]:
    """Receives all that is there or will be given back by the dead, and acks it."""
    bodies: list[bytes] = []
    held: list[ringpost.Message] = []
    with queue.consumer(prefetch=1) as consumer:
        while True:
            stats = queue.stats()
            if not stats.ready and all(each.pid == os.getpid() for each in stats.holdings):
                break
            held.append(consumer.receive(timeout=BOUND))
            bodies.append(held[-1].body)
        consumer.ack_many(held)
    return bodies


def check_survivors(queue: ringpost.Queue[Any], step: LeaseStep, segment: SegmentFile) -> None:
    queue.put(LATER, timeout=BOUND)
    bodies = everything(queue)
    assert len(set(bodies)) == len(bodies), "a message came twice"
    missing = {*step.bodies, LATER} - set(bodies)
    assert missing <= step.acks, "a message was lost"
    assert {*bodies} <= {*step.bodies, LATER}
    queue.put(LATER, timeout=BOUND)
    assert everything(queue) == [LATER]
    largest = bytes(segment["pool_size"])
    queue.put(largest, timeout=BOUND)
    assert queue.get(timeout=BOUND) == largest
    queue.task_done()
    queue.join(timeout=BOUND)  # each ack was counted, once
    stats = queue.stats()
    assert (stats.ready, stats.consumers.in_flight, stats.used_bytes, stats.pool_used) == (0, 0, 0, 0)


@each_lease_step
def test_survivors_get_what_was_not_acked(broker: ringpost.Broker, fork: Nursery, step: LeaseStep) -> None:
    queue = broker.queue("q", capacity=CAPACITY)
    segment = set_up(queue, Step(step.name, ringpost.Queue.qsize, before=step.bodies))
    life: dict[str, Any] = {}  # of the child

    def prepare() -> None:
        life["consumer"] = queue.consumer(prefetch=step.prefetch)
        life["held"] = [life["consumer"].receive(0) for _ in range(step.holding)]
        step.before(life["consumer"], life["held"])

    left_behind = [
        segment.snapshot()
        for _ in stepping.after_each_store(
            fork, segment, lambda: step.operation(life["consumer"], life["held"]), prepare
        )
    ]
    assert left_behind, "the operation stored nothing"
    payloads = segment.memory[segment.pool()]
    for state in left_behind:
        segment.restore(state)
        segment.memory[segment.pool()] = payloads
        check_survivors(queue, step, segment)
