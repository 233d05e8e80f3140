"""DeadLetters: what could not be handled."""

from __future__ import annotations

import asyncio
from typing import Any

from ringpost.deadletters import DeadLetters as SyncDeadLetters
from ringpost.deadletters import Death
from ringpost.message import Message


class DeadLetters:
    """The dead letters of one queue. Made by `Queue.dead_letters()`. Its work is done in a thread."""

    def __init__(self, sync: SyncDeadLetters) -> None:
        self._sync = sync

    async def count(self) -> int:
        """How many there are."""
        return await asyncio.to_thread(self._sync.__len__)

    async def peek(self, limit: int = 100) -> list[tuple[Death, Message[Any]]]:
        """The first of them, without taking them."""
        return await asyncio.to_thread(self._sync.peek, limit)

    async def replay(self, limit: int | None = None) -> int:
        """Put them back into the queue they came from, at most `limit`; those that are there now. Returns how
        many. As ringpost.DeadLetters.replay()."""
        return await asyncio.to_thread(self._sync.replay, limit)
