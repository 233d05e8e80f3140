"""Rivals that keep messages on disk, and how they say that they have."""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.rivals.base import Rival, SendingLane

Level = Literal["confirmed", "later"]
"""When a put returns: with the message on disk; or as soon as the rival lets it, and sync() waits."""


@dataclass(frozen=True)
class Storer:
    """The putting end. `sync` returns when everything that was put is on disk."""

    put: Callable[[bytes], Any]
    put_many: Callable[[list[bytes]], Any] | None = None
    sync: Callable[[], Any] = lambda: None
    close: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class StoringLane(SendingLane):
    """A queue in a directory on disk. Pickled to the processes that use it."""

    directory: str
    level: Level

    @abstractmethod
    def storer(self) -> Storer:
        """Called in the process that puts."""

    def reader(self) -> Callable[[int], int] | None:
        """Takes at most so many messages that are there, and says how many. None: it is not measured."""
        return None

    def sender(self, index: int) -> Any:
        return self.storer()

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


class StoringRival(Rival):
    """One that survives a power cut, if it is asked to."""

    levels: tuple[Level, ...] = ("confirmed", "later")
    store_batches: bool = True
    reads: bool = False
    shared: bool = True
    """Several processes may put."""

    @abstractmethod
    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        """Made in the parent."""


def directory_on_disk() -> str:
    """Not the scratch directory, which is in memory."""
    return str(Path(tempfile.mkdtemp(prefix="ringpost-bench-")))
