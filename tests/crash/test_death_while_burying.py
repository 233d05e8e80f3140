"""kill -9 after each store of giving a message up: it is in the queue, in its dead letters, or in both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ringpost
from crash import stepping
from crash.children import Nursery
from crash.segment_file import SegmentFile, path_of
from crash.steps import BIG, CAPACITY
from crash.test_death_with_leases import everything

WAYS: dict[str, tuple[Callable[[ringpost.Message], object], bytes]] = {
    "reject": (lambda message: message.reject("bad"), b"one"),
    "reject a large one": (lambda message: message.reject("bad"), BIG),
    "nack for the last time": (lambda message: message.nack(), b"one"),
}


class Both:
    """The memory of a queue and that of its dead letters."""

    def __init__(self, *queues: ringpost.Queue[Any]) -> None:
        self._segments = [SegmentFile(path_of(queue)) for queue in queues]

    def snapshot(self) -> list[list[bytes]]:
        return [segment.snapshot() for segment in self._segments]

    def restore(self, snapshots: list[list[bytes]], payloads: list[bytes]) -> None:
        for segment, snapshot, payload in zip(self._segments, snapshots, payloads, strict=True):
            segment.restore(snapshot)
            segment.memory[segment.pool()] = payload

    def payloads(self) -> list[bytes]:
        return [segment.memory[segment.pool()] for segment in self._segments]


@pytest.mark.parametrize(("give_up", "body"), WAYS.values(), ids=WAYS)
def test_a_message_that_is_given_up_is_never_nowhere(
    broker: ringpost.Broker, fork: Nursery, give_up: Callable[[ringpost.Message], object], body: bytes
) -> None:
    if reason := stepping.why_not():
        pytest.skip(reason)
    queue = broker.queue("q", capacity=CAPACITY)
    letters = broker.queue("q.dead", capacity=CAPACITY)
    segments = Both(queue, letters)
    queue.put_many([body, b"other"])
    life: dict[str, Any] = {}  # of the child

    def prepare() -> None:
        letters.qsize()  # makes it take part
        life["consumer"] = queue.consumer(prefetch=1, max_deliveries=1, dead_letters=True)
        life["message"] = life["consumer"].receive(0)
        life["consumer"]._dead_letters.queue.qsize()

    left_behind = [
        segments.snapshot()
        for _ in stepping.after_each_store(fork, segments, lambda: give_up(life["message"]), prepare)
    ]
    assert left_behind, "nothing was stored"
    payloads = segments.payloads()
    places = []
    for state in left_behind:
        segments.restore(state, payloads)
        alive, dead = everything(queue), everything(letters)
        assert b"other" in alive
        assert len(alive) + len(dead) in (2, 3)
        assert {*alive, *dead} == {body, b"other"}, "it is nowhere"
        places.append((body in alive, body in dead))
        queue.put(b"later", timeout=10)
        letters.put(b"later", timeout=10)
        assert everything(queue) == everything(letters) == [b"later"]
    assert places[0] == (True, False)
    assert places[-1] == (False, True)
    assert places == sorted(places, key=[(True, False), (True, True), (False, True)].index)
