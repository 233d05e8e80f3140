"""How single calls are timed: thousand a round, since looking at the clock takes as long as one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ROUNDS = 200


def calls(benchmark: Any, count: int, function: Callable[..., object], *arguments: object) -> None:
    """The time of one call, from rounds of `count`."""
    benchmark.pedantic(function, arguments, rounds=ROUNDS, iterations=count, warmup_rounds=2)


def rounds(benchmark: Any, function: Callable[[], object], before: Callable[[], object]) -> None:
    """The time of one call, with `before` called, untimed, before each."""

    def setup() -> None:
        before()

    benchmark.pedantic(function, setup=setup, rounds=ROUNDS, warmup_rounds=2)
