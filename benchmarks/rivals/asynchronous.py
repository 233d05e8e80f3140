"""What a rival has for asyncio: the ends of a lane, whose calls are coroutines."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Rival, SendingLane


@dataclass(frozen=True)
class AsyncSender:
    """The putting end, in a loop. `put_many` is None where the rival has no call for many messages."""

    put: Callable[[bytes], Awaitable[Any]]
    put_many: Callable[[list[bytes]], Awaitable[Any]] | None = None


@dataclass(frozen=True)
class AsyncReceiver:
    """The taking end, in a loop."""

    get: Callable[[], Awaitable[Any]]
    get_many: Callable[[int], Awaitable[Sequence[bytes]]] | None = None


class AsyncLane(SendingLane):
    """A one-way connection between loops. Both ends are opened inside their loops."""

    @abstractmethod
    async def async_sender(self) -> AsyncSender: ...

    @abstractmethod
    async def async_receiver(self) -> AsyncReceiver: ...

    def sender(self, index: int) -> Any:
        raise NotImplementedError


class AsyncRival(Rival):
    """One that moves messages between event loops."""

    async_batches: bool = False

    @abstractmethod
    def async_lane(self, name: str, size: int, directory: Path) -> AsyncLane:
        """As QueueRival.lane()."""
