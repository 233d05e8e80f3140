"""Consumer: receives messages that stay in the queue until they are acked."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import attrgetter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ringpost._binding import binding
from ringpost._binding.contract import Group
from ringpost.backoff import Backoff
from ringpost.errors import (
    Crowded,
    DecodeError,
    Empty,
    Full,
    LeaseLost,
    MessageTooLarge,
    QueueDeleted,
    RingpostError,
    SegmentFull,
    ShutDown,
    Stalled,
    StorageFailed,
)
from ringpost.levels import LevelsGroup
from ringpost.message import Message

if TYPE_CHECKING:
    from ringpost.deadletters import DeadLetters
    from ringpost.readiness import Readiness
    from ringpost.requests import Replies
    from ringpost.store.later import Unconfirmed


T = TypeVar("T")
_F = TypeVar("_F")

hand_out, any_ttl = binding.hand_out, binding.any_ttl

_LATER = 1.0  # seconds until what found no room, here or among the dead letters, is looked at again
_BRIEFLY = 0.05  # seconds for a lock, where there will be another try
# why a dead letter cannot be written, or not be stored
_NO_LETTER = (Full, StorageFailed, SegmentFull, MessageTooLarge, ShutDown, QueueDeleted)

_log = logging.getLogger("ringpost")
# (group, messages, whether nobody has seen them) of consumers that were forgotten without close()
_left_over: deque[tuple[Group, list[Message[Any]], bool]] = deque()
_consumers: weakref.WeakSet[Consumer[Any]] = weakref.WeakSet()


class Consumer(Generic[T]):
    """At least once: what it hands out is leased to this process, and comes again if the process dies.

    Made by `Queue.consumer()`. May be used by several threads. Closing it gives back what it holds.
    """

    _message_type: type[Message[Any]] = Message
    _grace: float | None = None  # seconds that a call which does not wait grants to who holds a lock
    _readiness: Readiness | None = None

    def __init__(
        self,
        group: Group,
        *,
        prefetch: int = 32,
        lease: float | None = None,
        auto_ack: bool = False,
        max_deliveries: int | None = None,
        backoff: Backoff | None = None,
        dead_letters: DeadLetters | None = None,
        replies: Replies | None = None,
        checks: bool = False,
    ) -> None:
        if prefetch < 1:
            raise ValueError("'prefetch' must be at least 1")
        if lease is not None and not lease > 0:
            raise ValueError("'lease' must be a positive number of seconds, or None")
        if max_deliveries is not None and max_deliveries < 1:
            raise ValueError("'max_deliveries' must be at least 1, or None")
        self._group = group
        self._prefetch = 1 if max_deliveries == 1 else prefetch  # if we die, it was delivered
        self._lease = lease
        self._auto_ack = auto_ack
        self._max_deliveries = max_deliveries
        self._backoff = backoff
        self._dead_letters = dead_letters
        self._replies = replies
        self._checks = checks
        self._is_plain = lease is None and max_deliveries is None and not checks
        self._ahead: deque[Message[T]] = deque()  # received, not yet handed out
        self._held: set[Message[T]] = set()  # handed out, not yet settled
        self._owed: list[tuple[Message[T], float, bool]] = []  # returned, when there is room
        self._buried: dict[Message[Any], Unconfirmed] = {}  # dead letters, not yet stored or settled
        self._dying: deque[tuple[float, Message[T], str]] = deque()  # to be buried: when, and why
        self._pid = os.getpid()
        self._closed = False
        _consumers.add(self)

    # ---- receiving -----------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> Message[T]:
        """The next message.

        Args:
            timeout: seconds to wait at most; 0: do not wait; None: for ever.

        Raises:
            Empty: none within the timeout.
            ShutDown: the queue was shut down, and nobody holds anything that may come back.
            QueueDeleted, CorruptLog, Stalled: as Queue.get().
            ValueError: this consumer, or its queue's handle, is closed.
        """
        message: Message[T] | None
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check_open()
            message = hand_out(self._ahead, self._held)
            if message is None:
                self._in_slices(self._fetch, self._prefetch, timeout)
                if self._max_deliveries is not None:
                    self._leave_suspects()
            elif self._closed and self._is_too_late([message]):
                continue
            elif self._is_fit(message):
                return message
            if deadline is not None:
                timeout = max(deadline - time.monotonic(), 0)

    def receive_many(self, limit: int = 256, timeout: float | None = None) -> list[Message[T]]:
        """What is there, at most `limit` messages (and 1024); waits for the first one only.

        Raises what receive() raises.
        """
        if limit < 1:
            raise ValueError("'limit' must be at least 1")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check_open()
            if self._ahead:
                messages = self._take_ahead(limit)
            else:
                messages = self._in_slices(self._fetch_batch, limit, timeout) or []
            if self._closed and self._is_too_late(messages):
                continue
            if not self._is_plain or any_ttl(messages):
                messages = self._fit_ones(messages)
            if messages:
                return messages
            if deadline is not None:
                timeout = max(deadline - time.monotonic(), 0)

    def __iter__(self) -> Iterator[Message[T]]:
        """Messages until the queue is shut down, or this consumer closed."""
        while True:
            try:
                message = self.receive()
            except ShutDown:
                return
            except ValueError:
                if self._closed:
                    return
                raise
            yield message

    def fileno(self) -> int:
        """A descriptor that is readable while receive(timeout=0) may succeed; else as Queue.fileno()."""
        self._check_open()
        if self._readiness is None or not self._readiness.is_ours():
            from ringpost.readiness import Readiness

            self._readiness = Readiness(self._group.watch(True))
            if self._ahead:
                self._readiness.keep()
        return self._readiness.fileno()

    def _in_slices(
        self, fetch: Callable[[int, float | None], _F], limit: int, timeout: float | None
    ) -> _F | None:
        """None: nothing yet. What could not be given back, or buried, is looked at again while we wait."""
        if timeout is not None and not timeout > _LATER:
            return fetch(limit, timeout)
        end = time.monotonic() + _LATER
        try:
            return fetch(limit, _LATER)
        except Stalled:
            if time.monotonic() < end:
                raise
            return None  # not yet: there is more time than this slice
        except Empty:
            return None

    def _fetch(self, limit: int, timeout: float | None) -> None:
        self._look_after_returns()
        try:
            self._fetch_from_group(limit, timeout)
        except Stalled:
            raise
        except Empty:
            if self._readiness is None:
                raise
            self._readiness.again(lambda: self._fetch_from_group(limit, 0))
        if self._closed:  # by another thread, meanwhile
            self._give_back_ahead()

    def _fetch_from_group(self, limit: int, timeout: float | None) -> None:
        group, block = self._group, timeout != 0
        if not block:
            timeout = self._grace
        if self._auto_ack:
            group.take(limit, block, timeout, self._message_type, self._ahead)
        else:
            group.receive(limit, self._lease or 0, block, timeout, self._message_type, self._ahead)

    def _leave_suspects(self) -> None:
        """If the next one kills us, all that wait here have one delivery more. So nothing that was delivered
        before waits behind another: it would be given up, at last, for what others did."""
        ahead = self._ahead.copy()  # other threads take from it
        first = next((at for at, one in enumerate(ahead) if at and one.deliveries > 1), None)
        if first is None or self._auto_ack:
            return
        left: list[Message[T]] = []
        for one in islice(ahead, first, None):
            self._held.add(one)
            try:
                self._ahead.remove(one)
            except ValueError:
                if one.settled:  # another thread has handed it out
                    self._held.discard(one)
                continue
            left.append(one)
        self._give_back_unseen(left)

    def _fetch_batch(self, limit: int, timeout: float | None) -> list[Message[T]]:
        """To be handed out at once."""
        if self._readiness is not None:
            self._fetch(limit, timeout)
            return self._take_ahead(limit)
        group, block, held = self._group, timeout != 0, self._held
        self._look_after_returns()
        if not block:
            timeout = self._grace
        if self._auto_ack:
            return group.take(limit, block, timeout, self._message_type, None, self)
        messages: list[Message[T]] = group.receive(
            limit, self._lease or 0, block, timeout, self._message_type, held, self
        )
        return messages

    def _take_ahead(self, limit: int) -> list[Message[T]]:
        taken: list[Message[T]] = []
        held = None if self._auto_ack else self._held
        while len(taken) < limit:
            message = hand_out(self._ahead, held)
            if message is None:
                break
            message.holder = self
            if message.settled:  # a last value that was kept
                self._held.discard(message)
            taken.append(message)
        return taken

    def _is_too_late(self, messages: list[Message[T]]) -> bool:
        """Another thread has closed this, and may not have seen these."""
        if self._auto_ack:
            return False
        self._give_back_unseen(messages)
        return True

    def _is_fit(self, message: Message[T]) -> bool:
        """Ours still, of use still, and not tried too often: it may be handed out."""
        message.holder = self
        if message.settled:
            self._held.discard(message)
        elif not self._is_plain:
            if self._lease is not None and not self._group.extend(message, self._lease):
                self._held.discard(message)  # it lay here for too long, and was given to another
                return False
            if self._max_deliveries is not None and message.deliveries > self._max_deliveries:
                self._bury_or_keep(message, "max_deliveries")
                return False
        if message.ttl_ms and message.expired:
            self._group.count_expired()
            if not message.settled:
                self._bury_or_keep(message, "expired")
            return False
        return not self._checks or self._can_be_read(message)

    def _fit_ones(self, messages: list[Message[T]]) -> list[Message[T]]:
        """If one of them raises, the others are for the next call."""
        fit: list[Message[T]] = []
        for at, message in enumerate(messages):
            try:
                if self._is_fit(message):
                    fit.append(message)
            except BaseException:
                others = fit + messages[at + 1 :]
                self._ahead.extendleft(reversed(others))
                self._held.difference_update(others)
                if self._readiness is not None:
                    self._readiness.keep()
                raise
        return fit

    def _can_be_read(self, message: Message[T]) -> bool:
        try:
            message.body  # noqa: B018 - decodes it
        except DecodeError as error:
            self._bury_or_keep(message, f"invalid: {error.__cause__ or error.why}")
            return False
        return True

    def _bury_or_keep(
        self, message: Message[T], reason: str, unseen: bool = True, patience: float | None = None
    ) -> None:
        """Where its letter cannot be written, anybody looks at it again a little later. Where the letter
        could not be stored this consumer does, who knows of it."""
        try:
            self._bury(message, reason, patience)
        except _NO_LETTER as problem:
            if isinstance(problem, QueueDeleted) and self._group.log.info()["deleted"]:
                raise  # ours, not that of the letters
            _log.warning("%s", problem)
            if message in self._buried:
                self._dying.append((time.monotonic() + _LATER, message, reason))
            else:
                self._give_back_or_owe(message, _LATER, unseen, patience)
        except LeaseLost:
            pass  # somebody else sees to it

    # ---- settling ------------------------------------------------------------------------------

    def ack_many(self, messages: Iterable[Message[T]]) -> None:
        """Ack all of these at once; much faster than one by one.

        Raises:
            LeaseLost: its `messages` are those that were no longer ours; the others are acked.
            ValueError: one of them came from another queue or group; none is acked.
        """
        self._ack_many(messages)

    def _ack_many(self, messages: Iterable[Message[Any]], patience: float | None = None) -> None:
        these = [one for one in messages if not one.settled]
        different = set(these)
        if len(different) < len(these):
            these = list(dict.fromkeys(these))
        different -= self._held
        if different:
            self._check_group(different)
        lost = self._group.settle(these, patience)
        self._held.difference_update(these)
        if lost:
            raise _lost(lost)

    def _check_group(self, messages: set[Message[Any]]) -> None:
        """In another group a receipt would name another message."""
        mine = self._group
        if isinstance(mine, LevelsGroup):
            return  # each is settled in its own
        for one in messages:
            group = one.group
            if group is mine:
                continue
            if group.log is not mine.log or group.info()["handle"] != mine.info()["handle"]:
                raise ValueError(f"{one!r} was not received from this consumer's queue and group")

    def _ack(self, message: Message[T], patience: float | None = None) -> None:
        self._check_unsettled(message)
        held = self._group.settle_one(message, patience)
        self._held.discard(message)
        if not held:
            raise _lost([message])

    def _nack(
        self, message: Message[T], delay: float | None, requeue: bool, patience: float | None = None
    ) -> None:
        self._check_unsettled(message)
        if not requeue:
            self._reject(message, "nacked", patience)
            return
        if self._max_deliveries is not None and message.deliveries >= self._max_deliveries:
            self._bury(message, "max_deliveries", patience)
            return
        if delay is None:
            delay = self._backoff.delay(message.deliveries) if self._backoff else 0
        lost = self._give_back_or_owe(message, delay, False, patience)
        if lost:
            raise _lost(lost)

    def _nack_or_keep(self, message: Message[T], patience: float | None = None) -> None:
        """As _nack(), for who has an error to tell already: not that there is no room for a dead letter."""
        if self._max_deliveries is not None and message.deliveries >= self._max_deliveries:
            self._bury_or_keep(message, "max_deliveries", False, patience)
        else:
            self._nack(message, None, True, patience)

    def _give_back_or_owe(
        self, message: Message[T], delay: float, unseen: bool, patience: float | None
    ) -> list[Message[Any]]:
        try:
            lost = self._group.give_back([message], delay, unseen, patience=patience)
        except Crowded:
            lost = []
            message.settled = True
            self._owed.append((message, delay, unseen))
        self._held.discard(message)
        return lost

    def _look_after_returns(self) -> None:
        if self._owed:
            self._pay_back()
        if self._dying:
            self._bury_the_dying()
        if _left_over:
            _give_back_left_over()

    def _pay_back(self) -> None:
        while self._owed:
            message, delay, unseen = self._owed[-1]
            try:
                self._group.give_back([message], delay, unseen, patience=_BRIEFLY)
            except (Crowded, Stalled):
                return  # others must settle something first, or let go of the lock
            self._owed.pop()

    def _bury_the_dying(self) -> None:
        now = time.monotonic()
        for _ in range(len(self._dying)):
            try:
                when, message, reason = self._dying.popleft()
            except IndexError:
                return  # another thread is at it
            if when > now:
                self._dying.append((when, message, reason))
            elif message in self._held and not message.settled:
                self._bury_or_keep(message, reason)

    def _reject(self, message: Message[T], reason: str, patience: float | None = None) -> None:
        self._check_unsettled(message)
        self._bury(message, reason, patience)
        self._group.count_rejected()

    def _bury(self, message: Message[T], reason: str, patience: float | None = None) -> None:
        """To the dead letters, if there are any. Settled afterwards: a death in between loses nothing."""
        if self._dead_letters is not None:
            if message not in self._buried:
                self._buried[message] = self._dead_letters._add(message, reason)
            self._have_letter_stored(message)  # this and what follows may have to be done again
        held = self._group.settle_one(message, patience)
        self._buried.pop(message, None)
        self._held.discard(message)
        if not held:
            raise _lost([message])

    def _have_letter_stored(self, message: Message[T]) -> None:
        """Before it is settled: else a reboot could take it out of both."""
        try:
            self._buried[message].confirm()
        except QueueDeleted:
            del self._buried[message]  # with the letter: it needs another one
            raise

    def _extend(self, message: Message[T], seconds: float | None, patience: float | None = None) -> None:
        self._check_unsettled(message)
        if not self._group.extend(message, seconds, patience):
            raise _lost([message])

    def _reply(self, message: Message[T], body: object, properties: dict[str, Any]) -> None:
        properties = self._prepare_reply(message, properties)
        assert self._replies is not None
        self._replies.send(str(message.reply_to), body, properties)

    def _prepare_reply(self, message: Message[T], properties: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError."""
        if message.reply_to is None:
            raise ValueError(f"{message!r} asks for no answer: it has no reply_to")
        if self._replies is None:
            raise ValueError("an anonymous queue knows no other queues to reply to; use a broker's")
        return {"correlation_id": message.correlation_id, **properties}

    def _check_unsettled(self, message: Message[T]) -> None:
        if message.settled:
            raise LeaseLost(f"{message!r} was settled before: ack, nack or reject it once", [message])

    # ---- ending --------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what was not settled: others get it at once. What was never handed out does not count as
        delivered.

        Raises Stalled: a stopped process is in the way. Consumers of this process that receive later, or
        another close(), give back what it held.
        """
        if self._closed:
            _give_back_left_over()
            return
        self._closed = True
        if not self._group.log.closed:
            self._group.interrupt()
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None
        ahead = self._take_ahead(len(self._ahead))
        self._held.difference_update(ahead)
        held = [one for one in list(self._held) if not one.settled]  # other threads may be at work
        held += [message for message, *_ in self._owed]
        self._held.clear()
        self._owed.clear()
        self._dying.clear()
        if not self._auto_ack and not self._group.log.closed:
            self._give_back_all(_in_order(ahead), _in_order(held))

    def _give_back_all(self, ahead: list[Message[T]], held: list[Message[T]]) -> None:
        try:
            try:
                self._group.give_back(ahead, 0, True)
                self._group.give_back(held)
            except Crowded:  # what was handed out together needs no room if it comes back together
                self._group.give_back(_in_order([*ahead, *held]))
        except BaseException:
            _leave_over(self._group, held, False)
            _leave_over(self._group, ahead, True)
            raise

    def _give_back_ahead(self) -> None:
        self._give_back_unseen(self._take_ahead(len(self._ahead)))

    def _give_back_unseen(self, messages: list[Message[T]]) -> None:
        """They were never handed out. If it cannot be now, then later."""
        self._held.difference_update(messages)
        if not messages or self._auto_ack or self._group.log.closed:
            return
        messages = _in_order(messages)
        try:
            self._group.give_back(messages, 0, True, patience=self._grace)
        except (Stalled, Crowded):
            _leave_over(self._group, messages, True)
        except BaseException:
            _leave_over(self._group, messages, True)
            raise

    def __del__(self) -> None:
        """Forgotten without close(): what it holds must not wait for the end of this process."""
        if not getattr(self, "_closed", True) and self._pid == os.getpid() and not self._group.log.closed:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        """As close(), without waiting for long."""
        if not self._auto_ack and (self._ahead or self._held or self._owed):
            handed_out = [*self._held, *(message for message, *_ in self._owed)]
            _leave_over(self._group, _in_order(handed_out), False)
            _leave_over(self._group, _in_order(self._ahead), True)
            _give_back_left_over()

    def _forget(self) -> None:
        """In a forked child: what was received is the parent's. What will be is ours."""
        self._pid = os.getpid()
        self._ahead.clear()
        self._held.clear()
        self._owed.clear()
        self._dying.clear()
        self._buried.clear()

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._closed

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this consumer was closed before")

    def __enter__(self) -> Consumer[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _lost(messages: list[Message[Any]]) -> LeaseLost:
    first = messages[0]
    which = f"message {first.id}" if len(messages) == 1 else f"{len(messages)} messages, first {first.id},"
    return LeaseLost(
        f"{which} was given to another consumer before this one settled it: its lease ended, or its "
        "process was forked; what was done with it may be done again",
        messages,
    )


def _in_order(messages: Iterable[Message[T]]) -> list[Message[T]]:
    """Those that can be given back. Neighbours share a lease, and one that comes back whole needs no room."""
    return sorted((one for one in messages if not one.retained), key=attrgetter("sequence"))


def _leave_over(group: Group, messages: list[Message[Any]], unseen: bool) -> None:
    if messages:
        _left_over.append((group, messages, unseen))


def _give_back_left_over() -> None:
    for _ in range(len(_left_over)):
        try:
            group, messages, unseen = _left_over.popleft()
        except IndexError:
            return
        try:
            group.give_back(messages, 0, unseen, True, _BRIEFLY)
        except (Stalled, Crowded):
            _left_over.append((group, messages, unseen))  # whoever receives here next tries again
        except (RingpostError, ShutDown, ValueError):
            pass  # deleted, or closed


def _forget_all() -> None:
    _left_over.clear()
    for consumer in list(_consumers):
        consumer._forget()


os.register_at_fork(after_in_child=_forget_all)
