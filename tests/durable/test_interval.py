"""Level "interval": what was put goes to disk in a moment, whoever ends, forks or puts meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from conformance.patience import BOUND

import ringpost
from ringpost.store.log import StoredLog

Queue = ringpost.Queue[Any]


@pytest.fixture
def queue(durable: ringpost.Broker) -> Queue:
    return durable.queue("readings", durability="interval")


def storage_of(queue: Queue) -> StoredLog:
    storage = queue._log.storage
    assert isinstance(storage, StoredLog)
    return storage


def is_stored(queue: Queue) -> bool:
    stored = storage_of(queue).stored
    return stored.durable() == stored.tail()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


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
