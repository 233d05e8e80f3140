"""Dead letters: where messages go that nobody could handle, with what happened to them in their headers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ringpost._binding.contract import Log
from ringpost.envelope import Envelope, seal
from ringpost.errors import Empty, Full, ShutDown, Stalled, Unsupported
from ringpost.levels import Levels
from ringpost.message import Message
from ringpost.store.later import STORING, Unconfirmed

if TYPE_CHECKING:
    from ringpost.queue import Queue

DEATH = "x-death"


@dataclass(frozen=True)
class Death:
    """Why a message is where it is.

    Attributes:
        reason: "max_deliveries", "expired", "rejected", or what reject() was told.
        queue: the name of the queue it was in.
        sequence, deliveries: its number there, and how often it was handed out.
        sent_ns, died_ns: when it was put and when it was given up (CLOCK_REALTIME, ns).
        pid: of the process that gave it up.
    """

    reason: str
    queue: str
    sequence: int
    deliveries: int
    sent_ns: int
    died_ns: int
    pid: int


class DeadLetters:
    """The dead letters of one queue, or topic: an ordinary queue, with a way back."""

    def __init__(self, open_queue: Callable[[], Queue[Any]], source: str, log: Log | None) -> None:
        self._open_queue = open_queue
        self._source = source
        self._log = log  # of the queue they came from; None: of a topic

    @property
    def queue(self) -> Queue[Any]:
        """The queue they lie in, made when it is needed first, and again if it was deleted."""
        queue = self._open_queue()
        if queue._log.info()["deleted"]:
            queue.close()
            queue = self._open_queue()
        return queue

    def __len__(self) -> int:
        return self.queue.qsize()

    def _add(self, message: Message[Any], reason: str) -> Unconfirmed:
        """Put it; who calls has it stored. Raises Full, at once: whoever receives must not wait for who looks
        after dead letters; StorageFailed, Stalled: it was not put."""
        death = Death(
            reason=reason,
            queue=self._source,
            sequence=message.sequence,
            deliveries=message.deliveries,
            sent_ns=message.time_ns,
            died_ns=time.time_ns(),
            pid=os.getpid(),
        )
        headers = {**message.headers, DEATH: msgspec.to_builtins(death)}
        envelope = msgspec.structs.replace(message._open(), headers=headers)
        log, unconfirmed = self.queue._log, Unconfirmed()
        try:
            unconfirmed.put(
                lambda: log.send_raw(
                    message.kind, message.payload, message.raw_subject, seal(envelope), block=False
                )
            )
        except Stalled:
            raise
        except Full as full:
            raise Full(
                f"{full}: the dead letters of {self._source!r} have no room for message {message.id}, which "
                "stays where it is; replay() or delete some of them"
            ) from None
        return unconfirmed

    def peek(self, limit: int = 100) -> list[tuple[Death, Message[Any]]]:
        """The first of them, without taking them."""
        found: list[Message[Any]] = []
        with self.queue.consumer() as consumer:
            try:
                while len(found) < limit:
                    found += consumer.receive_many(limit - len(found), timeout=0)
            except (Empty, ShutDown):
                pass
            return [(death_of(one), one) for one in found]

    def replay(self, limit: int | None = None) -> int:
        """Put them back into the queue they came from, at most `limit`; those that are there now.

        Their headers are as they were before; their time to live is over, so they have none. Returns how
        many. A death of this process in between may leave one in both queues.

        Raises Full as soon as there is no room for one; its attribute `put` says how many are back. Raises
        StorageFailed, Stalled: the last one may be in both queues, and no more are put back as long as the
        queue cannot be stored. Raises Unsupported for those of a topic: every subscriber would get them
        again.
        """
        if self._log is None:
            raise Unsupported(f"the dead letters of topic {self._source!r} have no queue to go back to")
        left = len(self) if limit is None else min(limit, len(self))
        done = 0
        self._log.flush(STORING)  # else each call would put back what it cannot take out of here
        with self.queue.consumer(prefetch=min(left, 256) or 1) as consumer:
            while done < left:
                try:
                    message = consumer.receive(timeout=0)
                except (Empty, ShutDown):
                    break
                envelope = without_death(message._open())
                to = self._log.level(message.priority) if isinstance(self._log, Levels) else self._log
                try:
                    to.send_raw(message.kind, message.payload, message.raw_subject, seal(envelope), 0, False)
                except Full as full:
                    full.put = done  # type: ignore[attr-defined]
                    raise
                message.ack()
                done += 1
        return done

    def __iter__(self) -> Iterator[tuple[Death, Message[Any]]]:
        """What is there now; ack() a message within the loop to remove it, else it stays."""
        with self.queue.consumer(prefetch=1) as consumer:
            for _ in range(len(self)):
                try:
                    message = consumer.receive(timeout=0)
                except (Empty, ShutDown):
                    return
                yield death_of(message), message

    def __repr__(self) -> str:
        return f"<ringpost.DeadLetters of {self._source}: {len(self)}>"


def death_of(message: Message[Any]) -> Death:
    """What happened to a dead letter. Raises LookupError for a message that is none."""
    told = message.headers.get(DEATH)
    if told is None:
        raise LookupError(f"{message!r} is no dead letter: it has no header {DEATH!r}")
    return msgspec.convert(told, Death)


def without_death(envelope: Envelope) -> Envelope:
    headers = {name: value for name, value in (envelope.headers or {}).items() if name != DEATH}
    return msgspec.structs.replace(envelope, headers=headers or None)
