"""Subscriber: a consumer with a place of its own in a topic."""

from __future__ import annotations

from ringpost._binding.contract import Group
from ringpost.backoff import Backoff
from ringpost.consumer import Consumer
from ringpost.deadletters import DeadLetters
from ringpost.requests import Replies
from ringpost.stored import Stored


class Subscriber(Consumer):
    """Receives what is published under its pattern. Made by `Topic.subscribe()`.

    Attributes:
        name: of a named subscriber, whose place stays when its processes are gone; else None.
        pattern: of subjects.
    """

    def __init__(
        self,
        group: Group,
        *,
        name: str | None,
        pattern: str,
        prefetch: int,
        lease: float | None,
        auto_ack: bool,
        max_deliveries: int | None,
        backoff: Backoff | None,
        dead_letters: DeadLetters | None,
        replies: Replies | None,
    ) -> None:
        super().__init__(
            group,
            prefetch=prefetch,
            lease=lease,
            auto_ack=auto_ack,
            max_deliveries=max_deliveries,
            backoff=backoff,
            dead_letters=dead_letters,
            replies=replies,
        )
        self.name = name
        self.pattern = pattern

    def _begin_with(self, kept: list[Stored]) -> None:
        """Last values, before what is published from now on."""
        for one in kept:
            message = self._group.restore(
                self._message_type, one.kind, one.payload, one.subject, one.headers, 0, one.sent_ns
            )
            message._retained = True
            self._ahead.append(message)

    @property
    def lost(self) -> int:
        """How many messages were overwritten before they could be handed out, so far."""
        return int(self._group.info()["lost"])

    @property
    def lag(self) -> int:
        """How many messages were published that were not handed out yet; its pattern may pass over some."""
        return int(self._group.info()["ready"])

    def unsubscribe(self) -> None:
        """Give up the place, for every process that shares it, and close."""
        self.close()
        if not self._group.log.closed:
            self._group.remove()

    def _let_go(self) -> None:
        super()._let_go()
        if self.name is None:
            self._group.abandon()  # publishers would wait for it

    def close(self) -> None:
        """Give back what was not settled. The place of a named subscriber stays; any other is given up."""
        if self._closed:
            return
        super().close()
        if self.name is None and not self._group.log.closed:
            self._group.remove()
