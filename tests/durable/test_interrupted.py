"""Signal handlers that raise, wherever a call is: nobody else is shut out, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from conformance.hammer import interrupt
from conformance.patience import BOUND

import ringpost
from ringpost.store.environment import open_environment

TIMES = 300


def test_others_are_alone_after_who_was_alone_was_interrupted(durable: ringpost.Broker, place: Path) -> None:
    durable.queue("jobs")
    environment = open_environment(place)

    def be_alone() -> None:
        with environment.alone(BOUND):
            pass

    def be_alone_undisturbed() -> None:
        with environment.alone(BOUND):
            pass

    kept = interrupt(be_alone, TIMES, and_then=be_alone_undisturbed)
    del kept
