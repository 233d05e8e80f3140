"""What keeps a message until it is acked: the common interface, beside that of plain queues in base.py."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Rival, SendingLane


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Consumer:
    """The taking end. A delivery is whatever the rival returns; `body` says how to get at its bytes.

    `receive` waits for a delivery, `ack` settles it. `receive_many` waits for one and returns what is there,
    at most as many as asked for; it and `ack_many` are None where the rival has no calls for many.
    """

    receive: Callable[[], Any]
    body: Callable[[Any], bytes]
    ack: Callable[[Any], Any]
    receive_many: Callable[[int], Sequence[Any]] | None = None
    ack_many: Callable[[Sequence[Any]], Any] | None = None
    close: Callable[[], Any] = _nothing


class AckingLane(SendingLane):
    """A connection to consumers, each message to one of them. Pickled to the processes that use it."""

    @abstractmethod
    def consumer(self) -> Consumer:
        """Called in the consuming process, before the senders' calls."""


class AckingRival(Rival):
    """One whose messages stay until they are acked."""

    ack_batches: bool = False
    """Whether consumers have calls for many messages."""
    redelivers: bool = False
    """Whether what a dead consumer held goes to another one that waits, and that does nothing else."""

    @abstractmethod
    def acking_lane(self, name: str, directory: Path) -> AckingLane:
        """Made in the parent; `directory` is in memory, empty, and removed afterwards."""
