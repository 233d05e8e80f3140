"""Topic: each message to every subscriber."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ringpost._binding.contract import Group, Log
from ringpost.backoff import Backoff
from ringpost.deadletters import DeadLetters
from ringpost.envelope import Envelope, seal
from ringpost.errors import Full, SettingsMismatch
from ringpost.producer import milliseconds
from ringpost.stats import TopicStats, topic_stats
from ringpost.subjects import check_pattern, check_subject
from ringpost.subscriber import Subscriber

if TYPE_CHECKING:
    from ringpost.broker import Broker
    from ringpost.retained import Retained

OnLag = Literal["block", "drop-oldest", "error"]
Start = Literal["latest", "earliest"] | int | datetime

_POLICIES: dict[str, int] = {"block": 0, "drop-oldest": 1, "error": 2}
_ERROR = _POLICIES["error"]


class Topic:
    """Publishes to any number of subscribers, in any number of processes. Opened by `Broker.topic()`.

    A message goes to those who are subscribed when it is published, and to who subscribes later with
    start="earliest", as long as the ring has not overwritten it.
    """

    def __init__(self, log: Log, name: str, broker: Broker) -> None:
        self._log = log
        self.name = name
        self._broker = broker
        self._grace: float | None = None  # as a Consumer's
        self._subscriber_type: type[Subscriber] = Subscriber

    # ---- publishing ----------------------------------------------------------------------------

    def publish(
        self,
        body: object,
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
    ) -> None:
        """Publish one message; when this returns, every subscriber will get it.

        Args:
            subject: words with dots between ("eu.dax"), for subscribers' patterns.
            retain: keep it as the last value of its subject, for subscribe(retained=True).
            timeout: seconds to wait for subscribers that are behind; 0: do not wait; None: for ever.
            headers, ttl, key, message_id, correlation_id, reply_to, content_type: as for Producer.send().

        Raises:
            Full: a subscriber with on_lag="block" is too far behind, for `timeout` seconds; or one with
                on_lag="error", now. The text says which.
            ShutDown, QueueDeleted, Stalled, MessageTooLarge, EncodeError: as Queue.put().
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
        ttl_ms = milliseconds(ttl)
        try:
            self._log.send(body, encoded, envelope, ttl_ms, False, self._grace)
        except Full:
            self._check_laggards()
            if timeout == 0:
                raise
            self._log.send(body, encoded, envelope, ttl_ms, True, timeout)
        if retain:
            from ringpost.stored import Stored

            kind, payload = self._log.encode(body)
            stored = Stored(kind, payload, encoded, envelope, ttl_ms, time.time_ns())
            self._retained().keep(encoded or b"", stored)

    def _retained(self) -> Retained:
        from ringpost.retained import Retained

        return Retained(bytes(self._log.info()["log_id"]), self._broker._engine.side_store)

    def clear_retained(self, subject: str = "") -> bool:
        """Keep no last value for this subject any more. False: there was none."""
        return self._retained().clear(check_subject(subject))

    def publish_many(self, messages: Iterable[tuple[str, object]], *, timeout: float | None = None) -> int:
        """Publish pairs (subject, body) in order, many in one commit. Returns how many.

        Raises what publish() raises; the exception's attribute `put` says how many went in before it.
        """
        parts = ((body, check_subject(subject) if subject else None, None, 0) for subject, body in messages)
        return self._log.send_many(parts, timeout != 0, timeout)

    def _check_laggards(self) -> None:
        """Raises Full if a subscriber that wants this to be an error holds us back."""
        laggard = max(self._log.groups(), key=lambda info: info["lag_bytes"], default=None)
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
    ) -> Subscriber:
        """Subscribe to the subjects that match `pattern`.

        Args:
            pattern: words with dots between; `*` is one word, `#` any number of words, none too.
            name: a named subscriber keeps its place when its process is gone, and several processes under
                one name share the work. None: one of its own, which ends with this process.
            start: where a new one begins: at what is published from now on, at the oldest message that is
                still there, at a sequence, or at a time. A named one that exists goes on where it was.
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
            ValueError: not a pattern, or settings that do not go together.
        """
        lossy = on_lag == "drop-oldest"
        if on_lag not in _POLICIES:
            raise ValueError(f"'on_lag' is 'block', 'drop-oldest' or 'error', not {on_lag!r}")
        if auto_ack is None:
            auto_ack = name is None or lossy
        if lossy and not auto_ack:
            raise ValueError('on_lag="drop-oldest" may overwrite what was not acked: it needs auto_ack=True')
        group = self._open_group(check_pattern(pattern), name, start, on_lag)
        letters = None
        if dead_letters or (dead_letters is None and max_deliveries is not None):
            letters = DeadLetters(self._broker._dead_letter_queue(self.name, dead_letters), self.name, None)
        subscriber = self._subscriber_type(
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
        )
        if retained:
            subscriber._begin_with(self._retained().matching(check_pattern(pattern)))
        return subscriber

    def _open_group(self, pattern: str, name: str | None, start: Start, on_lag: str) -> Group:
        label = name or f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        try:
            group, made = self._log.open_group(
                label,
                pattern,
                policy=_POLICIES[on_lag],
                from_start=start != "latest",
                lossy=on_lag == "drop-oldest",
                ends_with_us=name is None,
            )
        except FileExistsError:
            raise SettingsMismatch(
                f"subscriber {name!r} of topic {self.name!r} exists with another pattern or on_lag: ask for "
                "the same, or unsubscribe() it first"
            ) from None
        if made and not isinstance(start, str) and on_lag != "drop-oldest":
            if isinstance(start, datetime):
                group.seek(0, int(start.timestamp() * 1e9))
            else:
                group.seek(start)
        return group

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
        self._log.close()

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._log.closed

    def __enter__(self) -> Topic:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._broker.url, self.name)

    def __repr__(self) -> str:
        return f"<ringpost.Topic {self.name} {'closed' if self.closed else 'open'}>"


def _reopen(url: str, name: str) -> Topic:
    from ringpost.broker import connect

    return connect(url).topic(name)
