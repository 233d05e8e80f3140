"""Level "interval": what was put goes to disk in a moment, whoever ends, forks or puts meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.crew import Crew, every_method
from conformance.patience import BOUND
from crash.children import Nursery
from crash.fixtures import fork

import ringpost
from ringpost.store import writer as writing
from ringpost.store.environment import Environment, open_environment
from ringpost.store.log import StoredLog

__all__ = ["fork"]

LONG = 3600.0  # seconds: who relies on the committer's next time fails

Queue = ringpost.Queue[Any]


@pytest.fixture
def queue(durable: ringpost.Broker) -> Queue:
    return durable.queue("readings", durability="interval")


@pytest.fixture
def environment(place: Path, queue: Queue) -> Environment:
    return open_environment(place)


def storage_of(queue: Queue) -> StoredLog:
    storage = queue._log.storage
    assert isinstance(storage, StoredLog)
    return storage


def is_stored(queue: Queue) -> bool:
    stored = storage_of(queue).stored
    return stored.durable() == stored.tail()


def put_and_end(queue: Queue, interval: float) -> None:
    writing.INTERVAL = interval
    queue.put("the last word")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@every_method
def test_a_child_of_multiprocessing_stores_what_it_put_before_it_ends(queue: Queue, method: str) -> None:
    with Crew(method) as crew:
        crew.wait(crew.start(put_and_end, queue, LONG))
        assert is_stored(queue)


def test_a_child_whose_committer_is_at_work_waits_for_it(queue: Queue, environment: Environment) -> None:
    with Crew() as crew:
        with environment.alone():
            child = crew.start(put_and_end, queue, 0.0)
            wait_until(lambda: queue.qsize() == 1)
            child.join(0.5)  # its committer waits for the door meanwhile
        crew.wait(child)
        assert is_stored(queue)


def test_a_child_that_forked_while_the_committer_waited_stores_what_it_puts(
    queue: Queue, environment: Environment, fork: Nursery
) -> None:
    def put() -> None:
        wait_until(lambda: is_stored(queue))  # the parent's
        queue.put("the child's")
        wait_until(lambda: is_stored(queue))

    with environment.alone():
        queue.put("the parent's")
        storage = storage_of(queue)
        committer = storage._writer._committer
        wait_until(lambda: committer._due is None)  # it took over what was noted, and waits for us
        assert storage.noted
        child = fork(put)
    assert child.wait() == 0


def test_what_is_put_while_the_committer_looks_is_noted_again(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_of(queue)
    needed = storage.stored.needed
    late = ["late"]

    class LooksWhileOthersPut:
        """The plan of a commit has read where the log ends before it asks what is needed."""

        def __getattr__(self, name: str) -> Any:
            return getattr(stored, name)

        def needed(self) -> int | None:
            if late:
                queue.put(late.pop())
            return needed()

    stored = storage.stored
    monkeypatch.setattr(storage, "stored", LooksWhileOthersPut())
    queue.put("early")
    wait_until(lambda: not late)
    wait_until(lambda: is_stored(queue))


def test_one_that_others_deleted_keeps_none_from_being_stored(
    durable: ringpost.Broker, queue: Queue, fork: Nursery, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete() -> None:
        with ringpost.connect(url) as broker:
            broker.delete("readings")

    other = durable.queue("others", durability="interval")
    monkeypatch.setattr(writing, "INTERVAL", 0.5)
    queue.put("gone")
    other.put("kept")
    child = fork(delete)
    assert child.wait() == 0
    wait_until(lambda: is_stored(other))
    other.put("kept, too")
    wait_until(lambda: is_stored(other))
    wait_until(lambda: storage_of(other)._writer._committer._due is None)
