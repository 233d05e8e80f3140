"""What child processes do: importable by name, so that spawn and forkserver find it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ringpost
from conformance.patience import BOUND

Queue = ringpost.Queue[Any]

READY = "ready"

_kept: list[Queue] = []  # what an initializer was given, for the tasks that follow


def put_all(queue: Queue, items: Iterable[object]) -> None:
    for item in items:
        queue.put(item, timeout=BOUND)


def put_numbered(queue: Queue, who: int, count: int) -> None:
    put_all(queue, ([who, number] for number in range(count)))


def put_numbered_in_batches(queue: Queue, who: int, count: int) -> None:
    queue.put_many(([who, number] for number in range(count)), timeout=BOUND)


def move(source: Queue, target: Queue, count: int) -> None:
    for _ in range(count):
        target.put(source.get(timeout=BOUND), timeout=BOUND)


def take_until_shutdown(queue: Queue, report: Queue) -> None:
    report.put(list(queue), timeout=BOUND)


def take_batches_until_shutdown(queue: Queue, report: Queue) -> None:
    taken: list[object] = []
    while True:
        try:
            taken += queue.get_many(50, timeout=BOUND)
        except ringpost.ShutDown:
            report.put(taken, timeout=BOUND)
            return


def report_binding(queue: Queue) -> None:
    queue.put(type(queue._log).__module__, timeout=BOUND)


def report_looks(queue: Queue, report: Queue) -> None:
    report.put([queue.qsize(), queue.empty(), queue.full(), queue.maxsize, queue.capacity], timeout=BOUND)


def report_end(queue: Queue, call: str, arguments: list[object], report: Queue) -> None:
    """What the call raises."""
    report.put(READY, timeout=BOUND)
    try:
        getattr(queue, call)(*arguments)
    except Exception as error:
        report.put(type(error).__name__, timeout=BOUND)
    else:
        report.put("returned", timeout=BOUND)


def take_and_finish(queue: Queue, count: int) -> None:
    for _ in range(count):
        queue.get(timeout=BOUND)
        queue.task_done()


def shut_down(queue: Queue, immediate: bool) -> None:
    queue.shutdown(immediate)


def move_what_a_queue_brings(carrier: Any, target: Queue, count: int) -> None:
    """The queue to take from comes through another one."""
    move(carrier.get(timeout=BOUND), target, count)


def make_and_send(carrier: Queue, answer: Queue, items: list[object]) -> None:
    """Makes a queue, and ends as soon as somebody else has it."""
    with ringpost.Queue[Any](capacity=128 << 10) as made:
        put_all(made, items)
        carrier.put(made, timeout=BOUND)
        answer.get(timeout=BOUND)


# ---- tasks of pools ------------------------------------------------------------------------------


def keep(queue: Queue) -> None:
    _kept[:] = [queue]


def put_into_kept(item: object) -> None:
    _kept[0].put(item, timeout=BOUND)


def take_from_kept(_: object) -> object:
    return _kept[0].get(timeout=BOUND)


def put(queue: Queue, item: object) -> None:
    queue.put(item, timeout=BOUND)


def take(queue: Queue) -> object:
    return queue.get(timeout=BOUND)


def take_at_once(queue: Queue) -> object:
    return queue.get_nowait()


def put_at_once(queue: Queue, item: object) -> None:
    queue.put_nowait(item)


def put_bytes(queue: Queue, size: int) -> None:
    queue.put(bytes(size), timeout=BOUND)


def make_queue(items: list[object]) -> Queue:
    """To be returned to the parent; stays as long as this process."""
    made = ringpost.Queue[Any](capacity=128 << 10)
    put_all(made, items)
    return made
