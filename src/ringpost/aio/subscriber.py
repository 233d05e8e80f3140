"""Subscriber: a consumer with a place of its own in a topic."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from ringpost.aio.consumer import Consumer
from ringpost.aio.message import Message
from ringpost.aio.waiting import GRACE
from ringpost.message import Message as SyncMessage
from ringpost.subscriber import Subscriber as SyncSubscriber

T = TypeVar("T")


class SubscriberBelow(SyncSubscriber[Any]):
    """Does the work, and never waits long for a lock."""

    _message_type = cast("type[SyncMessage[Any]]", Message)
    _grace = GRACE


class Subscriber(Consumer[T]):
    """Receives what is published under its pattern. Made by `Topic.subscribe()`.

    Attributes:
        name: of a named subscriber, whose place stays when its processes are gone; else None.
        pattern: of subjects.
    """

    _sync: SyncSubscriber[T]

    def __init__(self, sync: SyncSubscriber[T]) -> None:
        super().__init__(sync)
        self.name = sync.name
        self.pattern = sync.pattern

    @property
    def lost(self) -> int:
        """How many messages were overwritten before they could be handed out, so far."""
        return self._sync.lost

    @property
    def lag(self) -> int:
        """How many messages were published that were not handed out yet; its pattern may pass over some."""
        return self._sync.lag

    async def unsubscribe(self) -> None:
        """Give up the place, for every process that shares it, and close."""
        self._sync.unsubscribe()
        await self.close()
