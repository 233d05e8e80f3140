"""How long to wait before a failed message is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential: initial, initial * factor, initial * factor**2 ... seconds, at most `most`.

    `jitter` takes away up to that share at random, so that what failed together is not tried together.
    """

    initial: float = 0.1
    factor: float = 2.0
    most: float = 60.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.initial < 0 or self.factor < 1 or self.most < 0 or not 0 <= self.jitter <= 1:
            raise ValueError("a Backoff has initial >= 0, factor >= 1, most >= 0 and 0 <= jitter <= 1")

    def delay(self, deliveries: int) -> float:
        """Seconds to wait after the delivery of this number, from 1."""
        steps = max(deliveries - 1, 0)
        try:
            seconds = min(self.initial * self.factor**steps, self.most)
        except OverflowError:
            seconds = self.most
        return seconds * (1 - self.jitter * random.random())
