"""Accounting for messages that are acked: who received which, when, and whose ack was confirmed.

In anonymous shared memory, as ledger.py: it says what a process had done when it was killed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

from crash.ledger import LIVES, _words

ENTRIES = 1 << 21
RECEIVED, ACKED = 0, 1


class Diary:
    """What one consumer did; its successors after its death go on writing here."""

    COUNT, FIRST = 0, 1

    def __init__(self) -> None:
        self._words = _words(self.FIRST + 2 * ENTRIES)

    def note(self, what: int, life: int, number: int) -> None:
        """RECEIVED: before anything else is done with it. ACKED: after ack() returned."""
        count = self._words[self.COUNT]
        assert count < ENTRIES, "the diary is full"
        self._words[self.FIRST + 2 * count] = life << 32 | number
        self._words[self.FIRST + 2 * count + 1] = time.monotonic_ns() << 1 | what
        self._words[self.COUNT] = count + 1

    def entries(self) -> list[tuple[int, int, int]]:
        """(message, what, when)"""
        found = self._words[self.FIRST : self.FIRST + 2 * self._words[self.COUNT]].tolist()
        return [(message, told & 1, told >> 1) for message, told in zip(found[::2], found[1::2], strict=True)]


@dataclass(frozen=True)
class Account:
    confirmed: int
    received: int
    again: int  # received more than once
    acked: int


class Deliveries:
    """Of one test."""

    def __init__(self) -> None:
        self.diaries: list[Diary] = []
        self._confirmed = _words(LIVES)
        self._lives = 0

    def new_life(self) -> int:
        self._lives += 1
        return self._lives - 1

    def new_diary(self) -> Diary:
        self.diaries.append(Diary())
        return self.diaries[-1]

    def confirm(self, life: int, count: int) -> None:
        """send() returned: `count` messages of this life are in the queue's hands."""
        self._confirmed[life] = count

    def audit(self, unsent: int = 1, copies: bool = False, leases_end: bool = False) -> Account:
        """Every confirmed message received; none received after its ack was confirmed; none invented.

        Args:
            unsent: how many messages of a life may have arrived although their send() did not return.
            copies: whether a death may have put a message twice, each to be acked for itself.
            leases_end: whether it may have been acked by another before its first consumer noted it here.
        """
        received: defaultdict[int, list[int]] = defaultdict(list)
        acked: dict[int, int] = {}
        for diary in self.diaries:
            for message, what, when in diary.entries():
                if what == RECEIVED:
                    received[message].append(when)
                else:
                    assert copies or message not in acked, "it was acked twice"
                    acked[message] = when
        for life in range(self._lives):
            confirmed = self._confirmed[life]
            missing = [number for number in range(confirmed) if life << 32 | number not in received]
            assert missing == [], f"of {confirmed} messages of life {life} these were lost: {missing[:9]}"
        for message, times in received.items():
            life, number = message >> 32, message & 0xFFFFFFFF
            assert life < self._lives, "its producer never was"
            assert number < self._confirmed[life] + unsent, f"{number} of life {life} was never sent"
            came_late = max(times) > acked.get(message, 1 << 63)
            assert copies or leases_end or not came_late, "it came again after its ack was confirmed"
        return Account(
            confirmed=sum(self._confirmed[: self._lives]),
            received=len(received),
            again=sum(len(times) > 1 for times in received.values()),
            acked=len(acked),
        )
