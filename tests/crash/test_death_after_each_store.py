"""kill -9 after each single store that an operation makes to shared memory: nothing is ever half done.

The operation is stepped through once. Each state of the memory on the way is what a death at this point
leaves behind: it is put back, and survivors go on from there.
"""

from __future__ import annotations

import pytest

import ringpost
from crash import stepping
from crash.children import Nursery
from crash.segment_file import SegmentFile
from crash.steps import CAPACITY, Step, each_step, set_up

BOUND = 5  # seconds: a survivor's longest wait
LATER = b"later"


@pytest.fixture(autouse=True)
def _stepping_works() -> None:
    if reason := stepping.why_not():
        pytest.skip(reason)


def drain(queue: ringpost.Queue[bytes]) -> list[bytes]:
    items = []
    while queue.qsize():
        items.append(queue.get(timeout=BOUND))
    with pytest.raises(ringpost.Empty):
        queue.get_nowait()
    return items


def allowed(step: Step) -> list[list[bytes]]:
    """What may be in the queue after a death within the operation: it happened or it did not."""
    return [list(step.before), list(step.before[step.takes :] + step.puts)]


def check_survivors(queue: ringpost.Queue[bytes], step: Step, segment: SegmentFile, born: int) -> None:
    """`born`: messages ever put before the operation."""
    outcomes = allowed(step)
    assert queue.qsize() in [len(outcome) for outcome in outcomes]
    if not step.maxsize:
        queue.put(LATER, timeout=BOUND)
        outcomes = [[*outcome, LATER] for outcome in outcomes]
    items = drain(queue)
    assert items in outcomes
    taken = step.takes if items == outcomes[1] else 0
    assert queue._log.info()["next_sequence"] == born + len(items) - len(step.before) + taken
    queue.put(LATER, timeout=BOUND)
    assert drain(queue) == [LATER]
    largest = bytes(segment["pool_size"])
    queue.put(largest, timeout=BOUND)
    assert queue.get(timeout=BOUND) == largest


@each_step
def test_survivors_go_on_from_there(broker: ringpost.Broker, fork: Nursery, step: Step) -> None:
    queue = broker.queue("q", capacity=CAPACITY, maxsize=step.maxsize)
    segment = set_up(queue, step)
    born = queue._log.info()["next_sequence"]
    left_behind = [
        segment.snapshot()
        for _ in stepping.after_each_store(
            fork, segment, lambda: step.operation(queue), lambda: step.prepare(queue)
        )
    ]
    assert left_behind, "the operation stored nothing"
    payloads = segment.memory[segment.pool()]
    for state in left_behind:
        segment.restore(state)
        segment.memory[segment.pool()] = payloads
        check_survivors(queue, step, segment, born)


@pytest.mark.parametrize("immediate", [False, True])
def test_a_shutdown_happened_or_can_be_done_again(
    broker: ringpost.Broker, fork: Nursery, immediate: bool
) -> None:
    queue = broker.queue("q", capacity=CAPACITY)
    segment = set_up(queue, Step("shutdown", ringpost.Queue.shutdown))
    left_behind = [
        segment.snapshot()
        for _ in stepping.after_each_store(fork, segment, lambda: queue.shutdown(immediate), queue.qsize)
    ]
    assert left_behind, "the operation stored nothing"
    for state in left_behind:
        segment.restore(state)
        if not queue.is_shutdown:
            queue.put(LATER, timeout=BOUND)
        queue.shutdown(immediate)
        with pytest.raises(ringpost.ShutDown):
            queue.put(LATER, timeout=BOUND)
        if not immediate:
            assert queue.get(timeout=BOUND) == b"one"
        assert queue.is_shutdown
