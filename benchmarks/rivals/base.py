"""The common interface of everything that is measured: a rival makes lanes, a lane has two kinds of ends.

The ends carry plain callables, so that where a rival's own method already has the right signature it is
called directly: no wrapper costs it anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPACITY = 16 << 20
"""Bytes of buffer for rivals that let one choose: what ringpost takes by default."""


def room(size: int) -> int:
    """Bytes of buffer for messages of `size`: the same for all, and enough for eight of them."""
    return max(CAPACITY, 8 * size)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Sender:
    """The putting end. `put_many` is None where the rival has no call for many messages."""

    put: Callable[[bytes], Any]
    put_many: Callable[[list[bytes]], Any] | None = None
    close: Callable[[], Any] = _nothing


@dataclass(frozen=True)
class Receiver:
    """The taking end.

    `get` waits for a message and returns its bytes, or a buffer that stays valid until the next `get`.
    `get_many` waits for one message and returns what is there, at most as many as asked for.
    """

    get: Callable[[], Any]
    get_many: Callable[[int], Sequence[bytes]] | None = None
    close: Callable[[], Any] = _nothing


class SendingLane(ABC):
    """A one-way connection, as senders see it. Pickled to the processes that use it."""

    @abstractmethod
    def sender(self, index: int) -> Sender:
        """Called in the process of sender number `index`."""

    def remove(self) -> None:  # noqa: B027 - most rivals keep everything in the scratch directory
        """Remove what is left of it outside the scratch directory. Called in the parent, at the end."""


class Lane(SendingLane):
    """A connection to receivers that take messages for good: to one, or in a topic each to all of them."""

    @abstractmethod
    def receiver(self) -> Receiver:
        """Called in a receiving process, before the senders' calls if they are on the same lane."""


class Rival(ABC):
    """Something that moves messages between processes. What it can do it says by its further base classes."""

    name: str
    module: str
    """What has to be importable for it."""
    distribution: str | None = None
    """Its name on PyPI; None: part of Python."""
    program: str | None = None
    """The server it needs, started for each measurement anew."""
    note: str = ""
    """How it is used here, for the foot of the table."""
    batches: bool = False
    """Whether it has a call for many messages, on either side."""

    def program_version(self) -> str | None:
        """Of a program that does not tell it for --version."""
        return None


class QueueRival(Rival):
    """One that gives each message to one receiver, for good."""

    @abstractmethod
    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        """Made in the parent; `directory` is in memory, empty, and removed afterwards."""
