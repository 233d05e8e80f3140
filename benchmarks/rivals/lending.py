"""What hands large arrays over in place, and what moves batches of fixed records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Rival


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Lender:
    """`send(stamp)`: get room for an array, write the stamp into its first and its last 8 bytes, hand it
    over."""

    send: Callable[[int], Any]
    close: Callable[[], Any] = _nothing


@dataclass(frozen=True)
class Looker:
    """`look()`: wait for an array; the stamps at its start and its end, read in place."""

    look: Callable[[], tuple[int, int]]
    close: Callable[[], Any] = _nothing


@dataclass(frozen=True)
class RecordSender:
    put: Callable[[Any], Any]
    close: Callable[[], Any] = _nothing


@dataclass(frozen=True)
class RecordReceiver:
    """`get()`: an array of what is there, at least one record."""

    get: Callable[[], Any]
    close: Callable[[], Any] = _nothing


class LendingLane(ABC):
    """Pickled to the two processes."""

    @abstractmethod
    def lender(self) -> Lender: ...

    @abstractmethod
    def looker(self) -> Looker: ...

    def remove(self) -> None:  # noqa: B027 - as SendingLane's
        """Remove what is left of it outside the scratch directory."""


class LendingRival(Rival):
    lends: bool = True

    @abstractmethod
    def lending_lane(self, name: str, size: int, directory: Path) -> LendingLane: ...


class RecordLane(ABC):
    """Pickled to the two processes."""

    @abstractmethod
    def record_sender(self) -> RecordSender: ...

    @abstractmethod
    def record_receiver(self) -> RecordReceiver: ...

    def remove(self) -> None:  # noqa: B027 - as SendingLane's
        """Remove what is left of it outside the scratch directory."""


class RecordRival(Rival):
    @abstractmethod
    def record_lane(self, name: str, dtype: Any, directory: Path) -> RecordLane: ...
