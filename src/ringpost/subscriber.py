"""Subscriber: a consumer with a place of its own in a topic."""

from __future__ import annotations

import os
from typing import TypeVar

from ringpost._binding.contract import Group
from ringpost.backoff import Backoff
from ringpost.consumer import Consumer
from ringpost.deadletters import DeadLetters
from ringpost.errors import Empty, QueueDeleted
from ringpost.message import Message
from ringpost.requests import Replies
from ringpost.stored import Stored

T = TypeVar("T")

_BATCH = 1024


class Subscriber(Consumer[T]):
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
        checks: bool,
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
            checks=checks,
        )
        self.name = name
        self.pattern = pattern
        self._made_by = os.getpid()

    def _begin_with(self, kept: list[Stored]) -> None:
        """Last values, before what is published from now on."""
        for one in kept:
            message: Message[T] = self._group.restore(
                self._message_type, one.kind, one.payload, one.subject, one.headers, 0, one.sent_ns
            )
            message._retained = True
            self._ahead.append(message)

    def _begin_at(self, sequence: int, time_ns: int, lossy: bool) -> None:
        """Pass over what is older."""
        if not lossy:
            self._group.seek(sequence, time_ns)
        while lossy:
            try:
                messages: list[Message[T]] = self._group.take(_BATCH, False, 0, Message)
            except Empty:
                return
            for at, message in enumerate(messages):
                if message.sequence >= sequence and message.time_ns >= time_ns:
                    self._ahead.extend(messages[at:])
                    return

    def _fetch(self, limit: int, timeout: float | None) -> None:
        try:
            super()._fetch(limit, timeout)
        except QueueDeleted:
            self._check_open()  # by another thread: its place went with it
            raise

    def _fetch_batch(self, limit: int, timeout: float | None) -> list[Message[T]]:
        try:
            return super()._fetch_batch(limit, timeout)
        except QueueDeleted:
            self._check_open()
            raise

    def _ack(self, message: Message[T], patience: float | None = None) -> None:
        if not message.retained:  # it is kept, whoever has seen it
            super()._ack(message, patience)

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
        if self.name is None and self._made_by == os.getpid():
            self._group.abandon()  # publishers would wait for it

    def close(self) -> None:
        """Give back what was not settled. The place of a named subscriber stays; any other is given up."""
        if self._closed:
            super().close()
            return
        try:
            super().close()
        finally:
            self._give_up_place()

    def _give_up_place(self) -> None:
        if self.name is None and self._made_by == os.getpid() and not self._group.log.closed:
            self._group.remove()  # in a forked child it is the parent's
