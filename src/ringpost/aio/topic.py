"""Topic: each message to every subscriber."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ringpost.aio.loan import Loan
from ringpost.aio.opening import Opening
from ringpost.aio.producer import in_pieces
from ringpost.aio.storing import Storing
from ringpost.aio.subscriber import Subscriber, SubscriberBelow
from ringpost.aio.waiting import GRACE, Waiting
from ringpost.errors import Full, Stalled
from ringpost.loan import Loan as SyncLoan
from ringpost.loan import Order
from ringpost.topic import Topic as SyncTopic

if TYPE_CHECKING:
    from ringpost.backoff import Backoff
    from ringpost.broker import Durability
    from ringpost.stats import TopicStats
    from ringpost.topic import OnLag, Start

T = TypeVar("T")
R = TypeVar("R")


class Topic(Generic[T]):
    """Publishes to any number of subscribers, in any number of processes. Opened by `Broker.topic()`."""

    def __init__(self, sync: SyncTopic[T]) -> None:
        self._sync = sync
        sync._grace = GRACE
        sync._subscriber_type = SubscriberBelow
        self._room = Waiting(lambda: sync._log.watch_space(), wakes_all=True)

    @property
    def name(self) -> str:
        """The name under which it was opened."""
        return self._sync.name

    # ---- publishing ----------------------------------------------------------------------------

    async def publish(
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

        Arguments and errors are those of ringpost.Topic.publish(). Cancelled while it waits for subscribers
        that are behind, it has published nothing; while it waits for the disk, all of it.
        """
        storing = Storing()

        def publish(timeout: float | None = 0) -> None:
            self._sync.publish(
                body,
                subject,
                headers=headers,
                ttl=ttl,
                key=key,
                message_id=message_id,
                correlation_id=correlation_id,
                reply_to=reply_to,
                content_type=content_type,
                retain=retain,
                timeout=timeout,
                durability=durability,
            )

        if retain and self._sync._log.is_stored:  # what is kept aside is committed at once
            await asyncio.to_thread(publish, timeout)
            return
        await self._until_room(lambda: storing.attempt(publish), timeout)
        await storing.wait(timeout)

    async def _until_room(self, call: Callable[[], R], timeout: float | None) -> R:
        """Raises Full at once where a subscriber wants it to be an error."""
        refused: list[Full] = []

        def attempt() -> R | None:
            try:
                return call()
            except Stalled:
                raise
            except Full:
                try:
                    self._sync._check_laggards()
                except Full as full:
                    refused.append(full)
                    return None
                raise

        result = await self._room.until(attempt, timeout)
        if refused:
            raise refused[0]
        return cast(R, result)

    async def publish_many(
        self,
        messages: Iterable[tuple[str, T]],
        *,
        timeout: float | None = None,
        durability: Durability | None = None,
    ) -> int:
        """Publish pairs (subject, body) in order, many in one commit. Returns how many.

        Raises what publish() raises; the exception's attribute `put` says how many went in before it.
        """
        storing = Storing()

        def publish(piece: list[tuple[str, T]]) -> int:
            return storing.attempt(lambda: self._sync.publish_many(piece, timeout=0, durability=durability))

        done = await in_pieces(messages, publish, self._room.until, timeout)
        await storing.wait(timeout)
        return done

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
        """Room for a numpy array in shared memory, to be filled in place and published without being copied:
        `async with topic.loan(...) as array`. Arguments and errors are those of ringpost.Topic.loan()."""

        def borrow() -> SyncLoan:
            return self._sync.loan(
                shape,
                dtype,
                subject=subject,
                order=order,
                headers=headers,
                ttl=ttl,
                key=key,
                message_id=message_id,
                correlation_id=correlation_id,
                reply_to=reply_to,
                content_type=content_type,
                timeout=0,
                durability=durability,
            )

        return Loan(borrow, lambda attempt: self._until_room(attempt, timeout), timeout)

    @property
    def path(self) -> str:
        """The file in shared memory, for programs in C."""
        return self._sync.path

    def clear_retained(self, subject: str = "") -> bool:
        """Keep no last value for this subject any more. False: there was none."""
        return self._sync.clear_retained(subject)

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
    ) -> Opening[Subscriber[T]]:
        """Subscribe to the subjects that match `pattern`: `subscriber = await topic.subscribe(...)`, or
        `async with topic.subscribe(...) as subscriber`. Arguments and errors are those of
        ringpost.Topic.subscribe()."""
        return Opening(
            lambda: Subscriber(
                self._sync.subscribe(
                    pattern,
                    name=name,
                    start=start,
                    on_lag=on_lag,
                    retained=retained,
                    prefetch=prefetch,
                    auto_ack=auto_ack,
                    lease=lease,
                    max_deliveries=max_deliveries,
                    backoff=backoff,
                    dead_letters=dead_letters,
                )
            )
        )

    async def wait_for_subscribers(self, count: int = 1, timeout: float | None = None) -> None:
        """Wait until at least `count` subscribers are there. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        pause = 0.001
        while (there := len(self.subscribers())) < count:
            if deadline is not None and loop.time() >= deadline:
                raise TimeoutError(
                    f"topic {self.name!r} had {there} of {count} subscribers after {timeout} seconds"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.05)

    def subscribers(self) -> tuple[str, ...]:
        """Their names; of those without, pid and a random part."""
        return self._sync.subscribers()

    async def unsubscribe(self, name: str) -> bool:
        """Give up the place of the subscriber `name`. False: there is none."""
        return self._sync.unsubscribe(name)

    # ---- looking, ending -----------------------------------------------------------------------

    def stats(self) -> TopicStats:
        """Numbers for people and monitors."""
        return self._sync.stats()

    def shutdown(self) -> None:
        """Nobody may publish any more; subscribers get what is left, then ShutDown."""
        self._sync.shutdown()

    async def close(self) -> None:
        """This handle is done, with the subscribers it gave out. The topic stays."""
        self._close()
        await asyncio.sleep(0)

    def _close(self) -> None:
        self._sync.close()
        self._room.close()

    @property
    def closed(self) -> bool:
        """True after close()."""
        return self._sync.closed

    async def __aenter__(self) -> Topic[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Topic, (self._sync,)

    def __repr__(self) -> str:
        return repr(self._sync).replace("ringpost.Topic", "ringpost.aio.Topic", 1)
