"""Accounting across deaths: what producers had confirmed, and what consumers took.

It lies in anonymous shared memory, written with plain stores of 8 bytes, so that it says what a process had
done when it was killed, whatever the queue under test says.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from dataclasses import dataclass

LIVES = 8192
JOURNAL = 1 << 22  # entries; memory only for those that are used


def _words(count: int) -> memoryview:
    return memoryview(mmap.mmap(-1, 8 * count)).cast("Q")


class Journal:
    """What one consumer took; its successors after its death go on writing here."""

    COUNT, PENDING, TOLERATED, FIRST = 0, 1, 2, 3

    def __init__(self, size: int) -> None:
        self._size = size
        self._words = _words(self.FIRST + size)

    def reach(self, limit: int = 1) -> None:
        """Before taking up to `limit` messages."""
        assert self._words[self.COUNT] + limit <= self._size, "the journal is full"
        self._words[self.PENDING] = limit

    def note(self, life: int, number: int) -> None:
        """Each message taken."""
        count = self._words[self.COUNT]
        self._words[self.FIRST + count] = life << 32 | number
        self._words[self.COUNT] = count + 1

    def rest(self) -> None:
        """After all that was taken is noted: whatever is missing now was lost by the queue."""
        self._words[self.PENDING] = 0

    def bury(self) -> None:
        """Its consumer was killed: what it was reaching for may have died with it."""
        self._words[self.TOLERATED] += self._words[self.PENDING]
        self._words[self.PENDING] = 0

    @property
    def tolerated(self) -> int:
        return self._words[self.TOLERATED] + self._words[self.PENDING]

    def entries(self) -> list[tuple[int, int]]:
        found = self._words[self.FIRST : self.FIRST + self._words[self.COUNT]]
        return [(entry >> 32, entry & 0xFFFFFFFF) for entry in found.tolist()]


@dataclass(frozen=True)
class Audit:
    confirmed: int
    taken: int
    missing: int  # confirmed, but noted by nobody
    tolerated: int  # discarded, or perhaps in the hands of killed consumers


class Ledger:
    """Of one test. A producer's life is a number: a new one for each process, for they start at 0 again."""

    def __init__(self, batch: int = 1) -> None:
        self.batch = batch  # the most that one call of a producer puts
        self.journals: list[Journal] = []
        self._confirmed = _words(LIVES)
        self._lives = 0

    def new_life(self) -> int:
        self._lives += 1
        return self._lives - 1

    def new_journal(self, size: int = JOURNAL) -> Journal:
        self.journals.append(Journal(size))
        return self.journals[-1]

    def confirm(self, life: int, count: int) -> None:
        """put() returned: `count` messages of this life are in the queue's hands."""
        self._confirmed[life] = count

    def audit(self, discarded: int = 0) -> Audit:
        """Everything taken at most once, in order, and nothing confirmed missing but what may be.

        Args:
            discarded: how many messages the queue says it has thrown away, as told.
        """
        taken: defaultdict[int, set[int]] = defaultdict(set)
        for journal in self.journals:
            last: dict[int, int] = {}
            for life, number in journal.entries():
                assert life < self._lives, f"life {life} never was"
                assert number > last.get(life, -1), (
                    f"{number} of life {life} came after {last[life]} to the same consumer"
                )
                assert number not in taken[life], f"{number} of life {life} came twice"
                last[life] = number
                taken[life].add(number)
        missing = 0
        for life in range(self._lives):
            confirmed = self._confirmed[life]
            most = max(taken[life], default=-1)
            assert most < confirmed + self.batch, f"{most} of life {life} cannot have been put"
            missing += confirmed - sum(1 for number in taken[life] if number < confirmed)
        result = Audit(
            confirmed=sum(self._confirmed[: self._lives]),
            taken=sum(map(len, taken.values())),
            missing=missing,
            tolerated=discarded + sum(journal.tolerated for journal in self.journals),
        )
        assert result.missing <= result.tolerated, f"messages were lost: {result}"
        return result
