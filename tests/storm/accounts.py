"""What was confirmed, and what was handled: written to a file that outlives its process. What is written down
has happened. A kill may tear a write where a page ends: each begins a line of its own, and a number counts
only with the sign behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = "published"
SENT = "sent"
HANDLED = "handled"


class Accounts:
    """Below one directory; for any process."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def write(self, name: str, numbers: Iterable[int]) -> None:
        """Beside what is there."""
        with (self._place / name).open("ab", buffering=0) as file:
            file.write(b"\n" + b"".join(b"%d;\n" % number for number in numbers))

    def read(self, name: str) -> Counter[int]:
        """How often each number was written."""
        path = self._place / name
        lines = path.read_bytes().split() if path.exists() else []
        return Counter(int(line[:-1]) for line in lines if line.endswith(b";"))


@dataclass(frozen=True)
class Balance:
    """What a round has come to."""

    confirmed: int
    handled: int
    again: int
    """Handled more than once: their consumers died before the ack."""
    missing: dict[str, list[int]]


def balance(accounts: Accounts, subscribers: Iterable[str]) -> Balance:
    """Every number that was sent must be handled, every one that was published by each subscriber."""
    pairs = [(SENT, HANDLED), *((PUBLISHED, name) for name in subscribers)]
    confirmed = handled = again = 0
    missing: dict[str, list[int]] = {}
    for said, done in pairs:
        promised, found = accounts.read(said), accounts.read(done)
        confirmed, handled = confirmed + len(promised), handled + len(found)
        again += sum(found.values()) - len(found)
        lost = sorted(number for number in promised if number not in found)
        if lost:
            missing[done] = lost
    return Balance(confirmed, handled, again, missing)


def body(number: int, sizes: tuple[int, ...]) -> bytes:
    """That no other number has, and whose end tells that all of it is there."""
    name = b"%d " % number
    return name + bytes(sizes[number % len(sizes)]) + name


def number_of(found: bytes, sizes: tuple[int, ...]) -> int:
    """Raises AssertionError: it is not what was sent."""
    number = int(found.partition(b" ")[0])
    assert found == body(number, sizes), f"message {number} was torn"
    return number
