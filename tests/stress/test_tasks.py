"""task_done and join between processes: join returns when everything is done, and not before."""

from __future__ import annotations

import contextlib
import mmap
import random
import threading
import time

import pytest
from crash.children import Flag, Nursery

import ringpost

BOUND = 20.0
TASKS = 400


class Tally:
    """Tasks done by each worker."""

    def __init__(self, workers: int) -> None:
        self.words = memoryview(mmap.mmap(-1, 8 * workers)).cast("Q")

    def __int__(self) -> int:
        return sum(self.words)


def work(queue: ringpost.Queue[int], tally: Tally, worker: int) -> None:
    rng = random.Random(worker)
    for _ in queue:
        if rng.random() < 0.1:
            time.sleep(0.001)
        tally.words[worker] += 1
        queue.task_done()


@pytest.mark.parametrize("maxsize", [0, 1, 3])
def test_join_waits_for_the_tasks_of_all(broker: ringpost.Broker, fork: Nursery, maxsize: int) -> None:
    queue = broker.queue("q", capacity=128 << 10, maxsize=maxsize)
    tally = Tally(3)
    workers = [fork(work, queue, tally, i) for i in range(3)]
    for batch in range(1, 6):
        for task in range(TASKS):
            queue.put(task, timeout=BOUND)
        queue.join(timeout=BOUND)
        assert int(tally) == batch * TASKS
    queue.shutdown()
    assert [worker.wait(BOUND) for worker in workers] == [0, 0, 0]


def test_all_who_join_are_woken(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q", capacity=128 << 10)
    queue.put_many(range(3))
    joined = [fork(queue.join, BOUND) for _ in range(3)]
    joined_here = threading.Thread(target=queue.join)
    joined_here.start()
    for child in joined:
        child.wait_until_asleep()
    for _ in range(3):
        assert not any(child.ended() for child in joined)
        assert joined_here.is_alive()
        queue.get()
        queue.task_done()
    assert [child.wait(BOUND) for child in joined] == [0, 0, 0]
    joined_here.join(BOUND)
    assert not joined_here.is_alive()


def test_taken_is_not_done(broker: ringpost.Broker, fork: Nursery) -> None:
    queue = broker.queue("q", capacity=128 << 10)
    queue.put("task")
    taken, go_on = Flag(), Flag()

    def slow_worker() -> None:
        queue.get()
        taken.set()
        go_on.wait()
        queue.task_done()

    worker = fork(slow_worker)
    taken.wait()
    with pytest.raises(TimeoutError):
        queue.join(timeout=0.1)
    go_on.set()
    queue.join(timeout=BOUND)
    assert worker.wait() == 0


def test_too_many_are_refused_whoever_counts(broker: ringpost.Broker, fork: Nursery) -> None:
    """Of many calls at once as many succeed as there were messages."""
    queue = broker.queue("q", capacity=128 << 10)
    queue.put_many(range(TASKS))
    tally = Tally(4)

    def count(worker: int) -> None:
        with contextlib.suppress(ValueError):
            while tally.words[worker] <= TASKS:
                queue.task_done()
                tally.words[worker] += 1

    assert [child.wait() for child in [fork(count, i) for i in range(4)]] == [0] * 4
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()
    assert int(tally) == TASKS
