"""Signal handlers that raise, wherever a call is: nobody else is shut out, now or later."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conformance.hammer import interrupt
from conformance.patience import BOUND
from crash.children import Nursery
from crash.fixtures import fork

import ringpost
from ringpost._binding import binding
from ringpost.aio.storing import Storing
from ringpost.store import transactions
from ringpost.store.environment import open_environment
from ringpost.store.later import DECIDED, LATER, Unconfirmed
from ringpost.store.log import StoredLog

__all__ = ["fork"]

TIMES = 300

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="needs CPython 3.11: before, a handler that raises may leave out the end of `with` and `finally`",
)


def test_others_write_after_a_put_was_interrupted(
    durable: ringpost.Broker, fork: Nursery, place: Path
) -> None:
    queue = durable.queue("jobs")
    environment = open_environment(place)

    def put() -> None:
        queue.put("x", timeout=BOUND)

    def put_undisturbed() -> None:
        queue.put("x", timeout=BOUND)

    interrupt(put, TIMES, and_then=put_undisturbed, keep=binding.NAME == "cython")
    assert environment._gate.shut(0)  # whoever forks would wait for who is inside
    environment._gate.open()
    assert fork(put_undisturbed).wait() == 0


def test_others_are_alone_after_who_was_alone_was_interrupted(durable: ringpost.Broker, place: Path) -> None:
    durable.queue("jobs")
    environment = open_environment(place)

    def be_alone() -> None:
        with environment.alone(BOUND):
            pass

    def be_alone_undisturbed() -> None:
        with environment.alone(BOUND):
            pass

    interrupt(be_alone, TIMES, and_then=be_alone_undisturbed)


def test_others_write_to_the_side_store_after_who_did_was_interrupted(
    durable: ringpost.Broker, fork: Nursery
) -> None:
    durable.queue("jobs")
    durable._engine.side_store()

    def write() -> None:
        with durable._engine.side_store().write(BOUND):
            pass

    def write_undisturbed() -> None:
        with durable._engine.side_store().write(BOUND):
            pass

    interrupt(write, TIMES, and_then=write_undisturbed, keep=binding.NAME == "cython")
    assert fork(write_undisturbed).wait() == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python's, in Thread.start()
def test_the_committer_comes_after_who_noted_something_was_interrupted(durable: ringpost.Broker) -> None:
    queue = durable.queue("readings", durability="interval")
    storage = queue._log.storage
    assert isinstance(storage, StoredLog)

    def put() -> None:
        queue.put("x")
        storage.noted = False  # as if it had come

    def put_undisturbed() -> None:
        queue.put("x")

    interrupt(put, TIMES, and_then=put_undisturbed)
    deadline = time.monotonic() + BOUND
    while storage.stored.durable() < storage.stored.tail():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def decide() -> None:
    with transactions._decided():
        pass


def put_unconfirmed() -> None:
    Unconfirmed().put(lambda: None)


def attempt() -> None:
    Storing().attempt(lambda: None)


@pytest.mark.parametrize("call", [decide, put_unconfirmed, attempt])
def test_no_call_is_taken_for_one_that_need_not_wait_for_the_disk(call: Callable[[], None]) -> None:
    def wait_for_it() -> None:
        assert DECIDED.get() is None
        assert LATER.get() is None

    interrupt(call, 1000, and_then=wait_for_it, keep=binding.NAME == "cython")
