"""What get_many() has taken already is handed out, whatever happens to the queue before it takes the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

import ringpost
from crash import stepping
from crash.children import Child, Nursery
from crash.segment_file import SegmentFile, path_of

SMALL = [b"one", b"two"]
LARGE = bytes(20_000)  # taken on its own, after the small ones before it
FATES: dict[str, Callable[[ringpost.Broker, ringpost.Queue], object]] = {
    "shut down": lambda broker, queue: queue.shutdown(immediate=True),
    "deleted": lambda broker, queue: broker.delete("q"),
    "taken by another": lambda broker, queue: queue.get(),
}


def after_its_second_visit(stores: Iterator[Child], segment: SegmentFile) -> Child:
    """The consumer, when it has left the consumers' lock twice."""
    visits, inside = 0, False
    for child in stores:
        was_inside, inside = inside, segment.group("lock") != 0
        visits += was_inside and not inside
        if visits == 2:
            return child
    raise AssertionError("it came only once")


@pytest.mark.parametrize("fate", FATES.values(), ids=FATES)
def test_a_batch_is_not_lost_with_the_rest(
    broker: ringpost.Broker, fork: Nursery, fate: Callable[..., object]
) -> None:
    """First it took the batch. Then the large message was announced to it."""
    if reason := stepping.why_not():
        pytest.skip(reason)
    queue = broker.queue("q", capacity=128 << 10)
    segment = SegmentFile(path_of(queue))
    queue.put_many([*SMALL, LARGE])

    def take() -> None:
        assert queue.get_many() == SMALL

    with closing(stepping.after_each_store(fork, segment, take, queue.qsize)) as stores:
        child = after_its_second_visit(stores, segment)
        fate(broker, queue)
    assert child.wait() == 0
