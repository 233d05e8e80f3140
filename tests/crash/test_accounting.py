"""The accounting of the other tests notices every kind of damage. (Negative controls.)"""

from __future__ import annotations

import pytest

from crash.cargo import Cargo
from crash.ledger import Journal, Ledger


@pytest.fixture
def ledger() -> Ledger:
    """One producer's three confirmed messages."""
    ledger = Ledger()
    ledger.confirm(ledger.new_life(), 3)
    return ledger


def note(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        journal.reach()
        journal.note(0, number)
        journal.rest()


def test_what_all_consumers_noted_together_is_complete(ledger: Ledger) -> None:
    note(ledger.new_journal(), 0, 2)
    note(ledger.new_journal(), 1)
    audit = ledger.audit()
    assert (audit.confirmed, audit.taken, audit.missing, audit.tolerated) == (3, 3, 0, 0)


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ((0, 1), (), "lost"),
        ((0, 1, 2), (1,), "twice"),
        ((0, 2, 1), (), "came after"),
        ((0, 1, 1), (2,), "came after"),
        ((0, 1, 2), (4,), "cannot have been put"),
    ],
)
def test_damage_is_noticed(
    ledger: Ledger, first: tuple[int, ...], second: tuple[int, ...], complaint: str
) -> None:
    note(ledger.new_journal(), *first)
    note(ledger.new_journal(), *second)
    with pytest.raises(AssertionError, match=complaint):
        ledger.audit()


def test_a_message_from_nowhere_is_noticed(ledger: Ledger) -> None:
    ledger.new_journal().note(1, 0)
    with pytest.raises(AssertionError, match="never was"):
        ledger.audit()


def test_one_message_put_but_not_confirmed_may_come(ledger: Ledger) -> None:
    note(ledger.new_journal(), 0, 1, 2, 3)
    assert ledger.audit().taken == 4


def test_what_a_killed_consumer_was_reaching_for_may_be_missing(ledger: Ledger) -> None:
    journal = ledger.new_journal()
    note(journal, 0, 1)
    journal.reach(1)
    journal.bury()
    assert ledger.audit().missing == 1


def test_no_more_than_that_may_be_missing(ledger: Ledger) -> None:
    journal = ledger.new_journal()
    note(journal, 0)
    journal.reach(1)
    journal.bury()
    with pytest.raises(AssertionError, match="lost"):
        ledger.audit()


@pytest.mark.parametrize("size", [8, 9, 1000])
def test_each_byte_of_a_message_is_checked(size: int) -> None:
    cargo = Cargo((size,))
    message = cargo.make(3, 5)
    assert len(message) == size
    assert cargo.read(message) == (3, 5)
    for damaged in (message + b"x", message[:-1], bytes([message[0] ^ 1]) + message[1:] + b"x"):
        with pytest.raises(AssertionError):
            cargo.read(damaged)
    if size > 8:
        with pytest.raises(AssertionError, match="damaged"):
            cargo.read(message[:-1] + bytes([message[-1] ^ 1]))
