"""The operations whose every store is looked at, and the queue they start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import ringpost
from crash.segment_file import SegmentFile, path_of

CAPACITY = 128 << 10  # ring 64 KiB, pool 64 KiB
BIG = b"big" * 5500  # just too large for the ring: travels in the pool
DEAD = 5 << 11 | 1001  # no participant has slot 1000
TURNS = 1000  # puts and gets before, so that no counter is 0 any more

Doing = Callable[["ringpost.Queue[Any]"], object]


@dataclass(frozen=True)
class Step:
    name: str
    operation: Doing
    before: tuple[bytes, ...] = (b"one", b"two")
    puts: tuple[bytes, ...] = ()  # all of them or none
    takes: int = 0  # that many or none
    prepare: Doing = ringpost.Queue.qsize  # makes a forked child take part
    dead_locks: tuple[str, ...] = ()
    maxsize: int = 0


STEPS = [
    Step("put", lambda q: q.put(b"new"), puts=(b"new",)),
    Step("first put after fork", lambda q: q.put(b"new"), puts=(b"new",), prepare=lambda q: None),
    Step("put_many", lambda q: q.put_many([b"a", b"bb" * 40, b"c"]), puts=(b"a", b"bb" * 40, b"c")),
    Step("put large", lambda q: q.put(BIG), puts=(BIG,)),
    Step("put over a dead lock", lambda q: q.put(b"n"), puts=(b"n",), dead_locks=("lock",)),
    Step(
        "put large over dead locks",
        lambda q: q.put(BIG),
        puts=(BIG,),
        dead_locks=("lock", "pool_lock"),
    ),
    Step("put when full", lambda q: _fails(q.put, b"new", timeout=0.01), maxsize=2),
    Step("get", ringpost.Queue.get, takes=1),
    Step("get the last one", ringpost.Queue.get, before=(b"one",), takes=1),
    Step("get_many", ringpost.Queue.get_many, before=(b"a", b"b", b"c"), takes=3),
    Step("get large", ringpost.Queue.get, before=(BIG, b"two"), takes=1),
    Step("get over a dead lock", ringpost.Queue.get, takes=1, dead_locks=("group lock",)),
    Step("get when empty", lambda q: _fails(q.get, timeout=0.01), before=()),
]

each_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


def _fails(call: Callable[..., object], *args: Any, **keywords: Any) -> None:
    try:  # in few instructions
        call(*args, **keywords)
    except (ringpost.Empty, ringpost.Full):
        return
    raise AssertionError("it found what it waited for")


def set_up(queue: ringpost.Queue[Any], step: Step) -> SegmentFile:
    """A used queue, whose next frame wraps around the ring's end, with garbage wherever nothing is."""
    segment = SegmentFile(path_of(queue))
    for _ in range(TURNS):
        queue.put(b"turn")
        queue.get()
        queue.task_done()
    ring = segment["ring_size"]
    while (left := -segment["tail"] % ring) > 64:
        queue.put(bytes(min(left - 64, 16384) // 16 * 16 - 32 or 1))
        queue.get()
        queue.task_done()
    _fill_with_garbage(segment)
    queue.put_many(step.before)
    for name in step.dead_locks:
        if name == "group lock":
            segment.set_group("lock", DEAD)
        else:
            segment[name] = DEAD
    return segment


def _fill_with_garbage(segment: SegmentFile) -> None:
    """All of the ring but the header of the frame to come."""
    start, end = segment.ring()
    stub = start + segment["tail"] % segment["ring_size"]
    header = segment.memory[stub : stub + 32]
    segment.memory[start:end] = b"\xab" * (end - start)
    segment.memory[stub : stub + 32] = header
