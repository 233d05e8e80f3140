"""Topic: each message to every subscriber."""

from __future__ import annotations

import operator
import os
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ringpost._binding.contract import Loan as Room
from ringpost._binding.contract import Log
from ringpost.backoff import Backoff
from ringpost.codecs import Kind
from ringpost.deadletters import DeadLetters
from ringpost.envelope import Envelope, seal
from ringpost.errors import Full, SettingsMismatch, was_put
from ringpost.loan import Loan, Order, Way, check_takes_arrays
from ringpost.places import store_places
from ringpost.producer import milliseconds
from ringpost.speech import Speech
from ringpost.stats import TopicStats, topic_stats
from ringpost.subjects import check_pattern, check_subject
from ringpost.subscriber import Subscriber

if TYPE_CHECKING:
    from ringpost.broker import Broker, Durability
    from ringpost.retained import Retained

T = TypeVar("T")
R = TypeVar("R")
OnLag = Literal["block", "drop-oldest", "error"]
Start = Literal["latest", "earliest"] | int | datetime

_POLICIES: dict[str, int] = {"block": 0, "drop-oldest": 1, "error": 2}
_ERROR = _POLICIES["error"]

_EPOCH = 1970
_LONGEST_NAME = 63  # bytes
_BATCH = 1024  # messages
_SLICE = 0.2  # seconds
_COARSE = 10_000_000  # ns: the clock of messages may be that late, at 100 ticks a second


class Topic(Generic[T]):
    """Publishes to any number of subscribers, in any number of processes. Opened by `Broker.topic()`.

    A message goes to those who are subscribed when it is published, and to who subscribes later with
    start="earliest", as long as the ring has not overwritten it.
    """

    def __init__(self, log: Log, name: str, broker: Broker, speech: Speech) -> None:
        self._log = log
        self.name = name
        self._broker = broker
        self._speech = speech
        self._subscribers: weakref.WeakSet[Subscriber[T]] = weakref.WeakSet()
        self._grace: float | None = None  # as a Consumer's
        self._lends = False  # it was checked
        self._subscriber_type: type[Subscriber[Any]] = Subscriber

    @property
    def path(self) -> str:
        """The file in shared memory, for programs in C: rp_attach() of native/include/ringpost.h."""
        return self._log.path

    # ---- publishing ----------------------------------------------------------------------------

    def publish(
        self,
        body: T,
        subject: str = "",
        *,
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        key: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        retain: bool = False,
        timeout: float | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Publish one message; when this returns, every subscriber will get it.

        Args:
            subject: words with dots between ("eu.dax"), for subscribers' patterns.
            retain: keep it as the last value of its subject, for subscribe(retained=True).
            timeout: seconds to wait for subscribers that are behind; 0: do not wait; None: for ever.
            headers, ttl, key, message_id, correlation_id, reply_to, content_type, durability: as for
                Producer.send().

        Raises:
            Full: a subscriber with on_lag="block" is too far behind, for `timeout` seconds; or one with
                on_lag="error", now. The text says which.
            ShutDown, QueueDeleted, Stalled, MessageTooLarge, EncodeError, StorageFailed: as Queue.put().
            ValueError: a subject with blanks, or of more than 255 bytes.
        """
        envelope = None
        if headers or key or message_id or correlation_id or reply_to or content_type:
            envelope = seal(
                Envelope(
                    headers=dict(headers) if headers else None,
                    message_id=message_id,
                    correlation_id=correlation_id,
                    reply_to=reply_to,
                    content_type=content_type,
                    key=key,
                )
            )
        encoded = check_subject(subject) if subject else None
        ttl_ms = 0 if ttl is None else milliseconds(ttl)
        try:
            self._log.send(body, encoded, envelope, ttl_ms, False, self._grace, durability)
        except Full as full:
            if was_put(full):
                raise
            self._check_laggards()
            if timeout == 0:
                raise
            self._wait_for_room(
                lambda seconds: self._log.send(body, encoded, envelope, ttl_ms, True, seconds, durability),
                timeout,
            )
        if retain:
            from ringpost.stored import Stored

            kind, payload = self._log.encode(body)
            stored = Stored(kind, payload, encoded, envelope, ttl_ms, time.time_ns())
            try:
                self._retained().keep(encoded or b"", stored)
            except BaseException as error:
                error.put = 1  # type: ignore[attr-defined]  # see errors.was_put()
                raise

    def loan(
        self,
        shape: int | Sequence[int],
        dtype: Any = float,
        *,
        subject: str = "",
        order: Order = "C",
        headers: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        key: str | None = None,
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        content_type: str | None = None,
        timeout: float | None = None,
        durability: Durability | None = None,
    ) -> Loan:
        """Room for a numpy array in shared memory, to be filled in place and published without being copied.

        Args:
            shape, dtype, order: of the array; its content is arbitrary at first.
            timeout: seconds to wait for subscribers that are behind, here and at the end.
            subject, headers, ttl, key, message_id, correlation_id, reply_to, content_type, durability: as for
                publish().

        Raises:
            Full, ShutDown, QueueDeleted, Stalled, StorageFailed, ValueError: as publish(), here and at the
                end.
            MessageTooLarge: it could never fit.
            EncodeError: a dtype with Python objects, or a topic whose messages are of another type.
            TypeError: lengths that are no integers, a dtype that is none.
        """
        if not self._lends:
            check_takes_arrays(self._log)
            self._lends = True
        envelope = None
        if headers or key or message_id or correlation_id or reply_to or content_type:
            envelope = seal(
                Envelope(
                    headers=dict(headers) if headers else None,
                    message_id=message_id,
                    correlation_id=correlation_id,
                    reply_to=reply_to,
                    content_type=content_type,
                    key=key,
                )
            )
        encoded = check_subject(subject) if subject else b""
        ttl_ms = milliseconds(ttl)

        def commit(room: Room, subject: int, headers: int) -> None:
            def send(block: bool, patience: float | None) -> None:
                self._log.commit(room, Kind.NDARRAY, subject, headers, ttl_ms, block, patience, durability)

            self._with_room(send, timeout)

        def borrow(size: int) -> Room:
            return self._with_room(lambda block, patience: self._log.borrow(size, block, patience), timeout)

        return Loan(shape, dtype, order, Way(borrow, commit, encoded, envelope or b""))

    def _with_room(self, attempt: Callable[[bool, float | None], R], timeout: float | None) -> R:
        try:
            return attempt(False, self._grace)
        except Full as full:
            if was_put(full):
                raise
            self._check_laggards()
            if timeout == 0:
                raise
            return self._wait_for_room(lambda seconds: attempt(True, seconds), timeout)

    def _retained(self) -> Retained:
        from ringpost.retained import Retained

        return Retained(bytes(self._log.info()["log_id"]), self._broker._engine.side_store)

    def clear_retained(self, subject: str = "") -> bool:
        """Keep no last value for this subject any more. False: there was none."""
        return self._retained().clear(check_subject(subject))

    def publish_many(
        self,
        messages: Iterable[tuple[str, T]],
        *,
        timeout: float | None = None,
        durability: Durability | None = None,
    ) -> int:
        """Publish pairs (subject, body) in order, many in one commit. Returns how many.

        Raises what publish() raises; the exception's attribute `put` says how many went in before it.
        """
        parts = ((body, check_subject(subject) if subject else None, None, 0) for subject, body in messages)
        deadline = None if timeout is None else time.monotonic() + timeout
        put = 0
        try:
            while some := list(islice(parts, _BATCH)):
                while some:
                    sent = self._publish_some(some, timeout, deadline, durability)
                    put += sent
                    some = some[sent:]
        except BaseException as error:
            error.put = put + getattr(error, "put", 0)  # type: ignore[attr-defined]
            raise
        return put

    def _publish_some(
        self, parts: list[Any], timeout: float | None, deadline: float | None, durability: Durability | None
    ) -> int:
        """As many as there is room for; waits for the first one only."""
        try:
            return self._log.send_many(parts, False, None, durability)
        except Full as full:
            put = int(full.put)  # type: ignore[attr-defined]
            if put == len(parts):
                raise  # not for lack of room: they are not confirmed
            if put:
                return put
            self._check_laggards()
            if timeout == 0:
                raise
            left = timeout if not timeout or deadline is None else max(deadline - time.monotonic(), 0)
            body, subject, headers, ttl_ms = parts[0]
            self._wait_for_room(
                lambda seconds: self._log.send(body, subject, headers, ttl_ms, True, seconds, durability),
                left,
            )
            return 1

    def _wait_for_room(self, send: Callable[[float | None], R], timeout: float | None) -> R:
        """In slices, where one that wants an error may fall behind while we wait for another. Raises Full."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            is_strict = any(each["policy"] == _ERROR for each in self._log.groups())
            try:
                return send(_SLICE if is_strict and (timeout is None or timeout > _SLICE) else timeout)
            except Full as full:
                if was_put(full):
                    raise
                self._check_laggards()
                if deadline is not None:
                    timeout = deadline - time.monotonic()
                    if timeout <= 0:
                        raise

    def _check_laggards(self) -> None:
        """Raises Full if a subscriber that wants this to be an error holds us back."""
        laggard = max(
            self._log.groups(), key=lambda info: (info["lag_bytes"], info["policy"] == _ERROR), default=None
        )
        if laggard is not None and laggard["policy"] == _ERROR:
            raise Full(
                f"subscriber {laggard['name']!r} of topic {self.name!r} is {laggard['ready']} messages "
                'behind, and was opened with on_lag="error"'
            )

    # ---- subscribing ---------------------------------------------------------------------------

    def subscribe(
        self,
        pattern: str = "#",
        *,
        name: str | None = None,
        start: Start = "latest",
        on_lag: OnLag = "block",
        retained: bool = False,
        prefetch: int = 256,
        auto_ack: bool | None = None,
        lease: float | None = None,
        max_deliveries: int | None = None,
        backoff: Backoff | None = None,
        dead_letters: bool | str | None = None,
    ) -> Subscriber[T]:
        """Subscribe to the subjects that match `pattern`.

        Args:
            pattern: words with dots between; `*` is one word, `#` any number of words, none too.
            name: a named subscriber keeps its place when its process is gone, and several processes under
                one name share the work. None: one of its own, which ends with this process.
            start: where a new one begins: at what is published from now on, at the oldest message that is
                still there, at a sequence, or at a time (a few milliseconds early rather than late). A named
                one that exists goes on where it was.
            on_lag: if it falls behind by the whole ring: publishers wait ("block"), or raise Full ("error"),
                or overwrite what it did not get ("drop-oldest"; Message.lost and Subscriber.lost say how
                many).
            retained: first the last values of the subjects that match, as they were published with
                retain=True; Message.retained is True of them. One may come again as it was published.
            auto_ack: False: messages are leased until acked, as a Queue's consumer has them. Default: True
                for one without a name, or with on_lag="drop-oldest"; False for a named one.
            prefetch, lease, max_deliveries, backoff, dead_letters: as for Queue.consumer().

        Raises:
            SettingsMismatch: a subscriber of this name has another pattern or on_lag.
            TooManyProcesses: every subscriber's place is taken (123).
            Stalled: a lock's holder is stopped. A named one's place may be there all the same.
            ValueError: not a pattern, a name or a start, or settings that do not go together.
        """
        lossy = on_lag == "drop-oldest"
        if on_lag not in _POLICIES:
            raise ValueError(f"'on_lag' is 'block', 'drop-oldest' or 'error', not {on_lag!r}")
        if auto_ack is None:
            auto_ack = name is None or lossy
        if lossy and not auto_ack:
            raise ValueError('on_lag="drop-oldest" may overwrite what was not acked: it needs auto_ack=True')
        matching = check_pattern(pattern)
        label = f"{os.getpid()}-{uuid.uuid4().hex[:12]}" if name is None else _check_name(name)
        first = _first_wanted(start)
        letters = None
        wanted = max_deliveries is not None or self._speech.is_checked
        if dead_letters or (dead_letters is None and wanted):
            broker, source = self._broker, self.name
            letters = DeadLetters(lambda: broker._dead_letter_queue(source, dead_letters), source, None)
        try:
            group, made = self._log.open_group(
                label,
                matching,
                policy=_POLICIES[on_lag],
                from_start=start != "latest",
                lossy=lossy,
                ends_with_us=name is None,
            )
        except FileExistsError:
            raise SettingsMismatch(
                f"subscriber {name!r} of topic {self.name!r} exists with another pattern or on_lag: ask for "
                "the same, or unsubscribe() it first"
            ) from None
        try:
            subscriber: Subscriber[T] = self._subscriber_type(
                group,
                name=name,
                pattern=pattern,
                prefetch=prefetch,
                lease=lease,
                auto_ack=auto_ack,
                max_deliveries=max_deliveries,
                backoff=backoff,
                dead_letters=letters,
                replies=self._broker._replies,
                checks=self._speech.is_checked,
            )
        except BaseException:
            if made:
                group.remove()  # publishers would wait for it
            raise
        try:
            if made and first is not None:
                subscriber._begin_at(*first, lossy)
            if retained:
                subscriber._begin_with(self._retained().matching(matching))
        except BaseException:
            if made and name is None:  # else others may have joined
                group.remove()
            raise
        self._subscribers.add(subscriber)
        if made and name is not None:
            store_places(self._log)
        return subscriber

    def wait_for_subscribers(self, count: int = 1, timeout: float | None = None) -> None:
        """Wait until at least `count` subscribers are there. Raises TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while (there := len(self._log.groups())) < count:
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(
                    f"topic {self.name!r} had {there} of {count} subscribers after {timeout} seconds"
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def subscribers(self) -> tuple[str, ...]:
        """Their names; of those without, pid and a random part."""
        return tuple(str(each["name"]) for each in self._log.groups())

    def unsubscribe(self, name: str) -> bool:
        """Give up the place of the subscriber `name`. False: there is none."""
        for each in self._log.groups():
            if each["name"] == name:
                group, _ = self._log.open_group(
                    name, each["pattern"], policy=each["policy"], lossy=each["lossy"]
                )
                group.remove()
                store_places(self._log)
                return True
        return False

    # ---- looking, ending -----------------------------------------------------------------------

    def stats(self) -> TopicStats:
        """Numbers for people and monitors."""
        return topic_stats(self._log, self.name)

    def shutdown(self) -> None:
        """Nobody may publish any more; subscribers get what is left, then ShutDown."""
        self._log.shutdown()

    def close(self) -> None:
        """This handle is done, with the subscribers it gave out. The topic stays."""
        if not self._log.closed:
            for each in list(self._subscribers):
                each.close()
        self._log.close()

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._log.closed

    def __enter__(self) -> Topic[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._broker, self.name, self._speech)

    def __repr__(self) -> str:
        return f"<ringpost.Topic {self.name} {'closed' if self.closed else 'open'}>"


def _check_name(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a subscriber's name is a str, not {type(name).__qualname__}")
    if not name or len(name.encode(errors="replace")) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"a subscriber's name has 1 to {_LONGEST_NAME} bytes of printable characters, not {name!r}"
        )
    return name


def _first_wanted(start: Start) -> tuple[int, int] | None:
    """Sequence and time (ns) below which it wants nothing; None: no limit. Raises ValueError, TypeError."""
    if isinstance(start, str):
        if start not in ("latest", "earliest"):
            raise ValueError(f"'start' is 'latest', 'earliest', a sequence or a datetime, not {start!r}")
        return None
    if isinstance(start, datetime):
        if start.year < _EPOCH:
            return 0, 0
        return 0, max(int(start.timestamp() * 1e9) - _COARSE, 0)
    sequence = operator.index(start)
    if not 0 <= sequence < 1 << 64:
        raise ValueError(f"a sequence is 0 or more, not {start!r}")
    return sequence, 0


def _reopen(broker: Broker, name: str, speech: Speech) -> Topic[Any]:
    return broker.topic(name, type=speech.type, codec=speech.codec, pickle=speech.pickle)  # type: ignore[call-overload,no-any-return]
