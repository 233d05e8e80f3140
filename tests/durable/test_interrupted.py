"""Signal handlers that raise, wherever a call is: nobody else is shut out, now or later."""

from __future__ import annotations

from pathlib import Path

from conformance.hammer import interrupt
from conformance.patience import BOUND
from crash.children import Nursery
from crash.fixtures import fork

import ringpost
from ringpost._binding import binding
from ringpost.store.environment import open_environment

__all__ = ["fork"]

TIMES = 300


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
