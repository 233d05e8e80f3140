"""How much work fits into the time: rivals differ by a factor of hundred, so each finds its own amount."""

from __future__ import annotations

from collections.abc import Callable

_WARM_UP_SECONDS = 0.05


def paced(elapsed: Callable[[int], float], seconds: float, step: int) -> int:
    """The amount, a multiple of `step`, that takes about `seconds`, found by warming up.

    `elapsed` does an amount and returns the seconds it took. The first try is for what happens only once
    (connecting, mapping memory); the second one, longer, is for the rate.
    """
    amount = step
    for target in (_WARM_UP_SECONDS, seconds):
        took = elapsed(amount)
        amount = max(1, round(amount * target / took / step)) * step
    return amount
