"""EventBus: handlers, called in any process, as tasks of this loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ringpost.aio.topic import Topic
from ringpost.aio.waiting import Waiting
from ringpost.errors import QueueDeleted, ShutDown
from ringpost.events import ERROR, NEW_LISTENER
from ringpost.events import EventBus as SyncEventBus
from ringpost.message import Message
from ringpost.subjects import check_subject

if TYPE_CHECKING:
    from ringpost.subscriber import Subscriber

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)

CONCURRENCY = 100


class EventBus:
    """Opened by `Broker.events()`. Listening and asking are those of ringpost.EventBus; handlers may be
    coroutine functions, and run side by side."""

    def __init__(self, sync: SyncEventBus) -> None:
        self._sync = sync
        self._topic = Topic(sync._topic)
        self.on = sync.on
        self.add_listener = sync.add_listener
        self.once = sync.once
        self.prepend_listener = sync.prepend_listener
        self.off = sync.off
        self.remove_listener = sync.remove_listener
        self.remove_all_listeners = sync.remove_all_listeners
        self.listeners = sync.listeners
        self.listener_count = sync.listener_count
        self.event_names = sync.event_names
        self.is_heard = sync.is_heard
        self.stop = sync.stop

    @property
    def name(self) -> str:
        """The name that processes share."""
        return self._sync.name

    async def emit(self, event: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> bool:
        """Let every listener, in every process, know. Returns whether there is one. As
        ringpost.EventBus.emit()."""
        if event in (ERROR, NEW_LISTENER):
            return self._sync._emit_special(event, args, kwargs)
        check_subject(event)
        await self._topic.publish([list(args), kwargs], event, timeout=timeout)
        return self._sync.is_heard(event)

    async def run(self, timeout: float | None = None, *, concurrency: int = CONCURRENCY) -> None:
        """Call handlers until stop() is called, the bus is shut down, or `timeout` seconds are over.

        Args:
            concurrency: so many coroutine handlers run at once, of one event or of several; further events
                wait in the bus meanwhile.

        Handlers that are under way are waited for; if this is cancelled, they are cancelled too.
        """
        await run(self._sync, timeout, concurrency)

    async def close(self) -> None:
        """Stop, and listen to nothing more. The bus goes on in other processes."""
        self._close()
        await asyncio.sleep(0)

    def _close(self) -> None:
        self._sync.close()
        self._topic._room.close()

    async def __aenter__(self) -> EventBus:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._sync).replace("ringpost.EventBus", "ringpost.aio.EventBus", 1)


class _Inbox:
    """What a bus receives from: its subscriber, which comes with the first listener and goes with the
    last."""

    def __init__(self, bus: SyncEventBus) -> None:
        self._bus = bus
        self._changed = asyncio.Event()
        self._subscriber: Subscriber[Any] | None = None
        self._waiting: Waiting | None = None

    def look(self) -> None:
        """The bus has another subscriber, or shall stop."""
        self._changed.set()
        if self._waiting is not None:
            self._waiting.wake()

    async def next(self) -> Message[Any] | None:
        """None: look again."""
        self._changed.clear()
        subscriber = self._bus._subscriber
        if subscriber is not self._subscriber:
            self.close()
            self._subscriber = subscriber
            self._waiting = None if subscriber is None else Waiting(subscriber._group.watch)
        if self._waiting is None:
            if not self._bus._stopping.is_set():
                await self._changed.wait()
            return None
        return await self._waiting.until(self._receive)

    def _receive(self) -> Message[Any] | None:
        if self._bus._stopping.is_set() or self._bus._subscriber is not self._subscriber:
            return None
        assert self._subscriber is not None
        try:
            message: Message[Any] = self._subscriber.receive(0)
            return message
        except (ValueError, QueueDeleted):
            if self._subscriber.closed:  # the last listener went meanwhile
                return None
            raise

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.close()


async def run(bus: SyncEventBus, timeout: float | None, concurrency: int) -> None:
    """The loop of a bus inside asyncio."""
    if concurrency < 1:
        raise ValueError("'concurrency' must be at least 1")
    bus._stopping.clear()
    inbox = _Inbox(bus)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    room = asyncio.Semaphore(concurrency)

    def nudge() -> None:
        try:
            loop.call_soon_threadsafe(inbox.look)
        except RuntimeError:
            pass  # the loop was closed

    def start(coroutine: Coroutine[Any, Any, Any]) -> None:
        task = loop.create_task(handle(coroutine))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: coroutine.close())  # if it was cancelled before its turn

    async def handle(coroutine: Coroutine[Any, Any, Any]) -> None:
        async with room:  # one event may have many handlers
            await bus._guard_async(coroutine)

    def stop() -> None:
        bus._stopping.set()
        inbox.look()

    me = threading.get_ident()
    nested = me in bus._loops
    bus._loops.add(me)
    bus._nudges.add(nudge)
    timer = None if timeout is None else loop.call_later(timeout, stop)
    try:
        while not bus._stopping.is_set():
            if len(tasks) >= concurrency:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                continue
            bus._tell_if_forked()
            message = await inbox.next()
            if message is not None:
                for coroutine in bus._handle(message):
                    start(coroutine)
                bus._tell_if_gone()
    except (ShutDown, QueueDeleted):
        pass
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        raise
    finally:
        bus._nudges.discard(nudge)
        if not nested:
            bus._loops.discard(me)
        if timer is not None:
            timer.cancel()
        inbox.close()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
