"""EventBus: Node's EventEmitter, and Python's pyee, between processes.

An event has a name (words with dots between) and arguments. `emit` publishes it; every bus of this name, in
any process, calls the handlers that listen to it, in its loop: run(), run_in_thread() or run_async().
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ringpost._binding import binding
from ringpost.errors import Empty, Full, QueueDeleted, ShutDown
from ringpost.message import Message
from ringpost.subjects import check_pattern, check_subject
from ringpost.threads import holding, start_thread

if TYPE_CHECKING:
    from ringpost.subscriber import Subscriber
    from ringpost.topic import Topic

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)

NEW_LISTENER = "new_listener"
ERROR = "error"

_LONGEST_PATTERNS = 255  # bytes, of all together; beyond that everything is received and sorted out here
_LOOK = 0.2  # seconds after which run() looks whether it should stop
_SLICE = 0.05  # seconds after which a handler that cannot emit looks whether it is waited for itself
_BATCH = 1024

_log = logging.getLogger("ringpost.events")
_buses: weakref.WeakSet[EventBus] = weakref.WeakSet()

Started = list[Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class Event:
    """What a handler that takes one argument called `event` gets.

    Attributes:
        name: as it was emitted.
        args, kwargs: as they were emitted.
        message: the message that brought it: its timestamp, sequence, headers.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    message: Message[Any]

    @property
    def data(self) -> Any:
        """The only argument, or all of them."""
        return self.args[0] if len(self.args) == 1 else self.args


@dataclass(eq=False)
class _Listener:
    pattern: str
    handler: Handler
    once: bool
    wants_event: bool = field(init=False)

    def __post_init__(self) -> None:
        self.wants_event = _wants_event(self.handler)


class EventBus:
    """Opened by `Broker.events()`. May be used by several threads.

    The events `error` and `new_listener` are local to one bus object, as in Node. A forked child has the
    listeners of its parent, and hears events of its own accord once it runs the loop.
    """

    def __init__(self, topic: Topic[Any]) -> None:
        self._topic = topic
        self._listeners: list[_Listener] = []
        self._begin()
        _buses.add(self)

    def _begin(self) -> None:
        """Alone in this process: after a fork, too."""
        self._lock = threading.RLock()
        self._subscriber: Subscriber[Any] | None = None
        self._subscribed_to_gone = False
        self._stopping = threading.Event()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._loops: set[int] = set()  # threads that call handlers
        self._tasks: set[asyncio.Task[None]] = set()
        self._nudges: set[Callable[[], None]] = set()  # of loops in asyncio: look again

    @property
    def name(self) -> str:
        """The name that processes share."""
        return self._topic.name

    # ---- listening -----------------------------------------------------------------------------

    @overload
    def on(self, event: str, handler: H) -> H: ...
    @overload
    def on(self, event: str) -> Callable[[H], H]: ...
    def on(self, event: str, handler: H | None = None) -> Any:
        """Call `handler` for each event of this name; as a decorator without one: @bus.on("order.*").

        `event` may be a pattern: `*` is one word, `#` any number. A handler with one parameter called `event`
        gets an Event; any other gets the arguments of emit(). It may be a coroutine function.
        """
        return self._add(event, handler, once=False, first=False)

    add_listener = on

    @overload
    def once(self, event: str, handler: H) -> H: ...
    @overload
    def once(self, event: str) -> Callable[[H], H]: ...
    def once(self, event: str, handler: H | None = None) -> Any:
        """As on(), for the next such event only."""
        return self._add(event, handler, once=True, first=False)

    @overload
    def prepend_listener(self, event: str, handler: H) -> H: ...
    @overload
    def prepend_listener(self, event: str) -> Callable[[H], H]: ...
    def prepend_listener(self, event: str, handler: H | None = None) -> Any:
        """As on(), but called before the others."""
        return self._add(event, handler, once=False, first=True)

    def off(self, event: str, handler: Handler | None = None) -> bool:
        """Call `handler` no more for `event`; without one, none of its handlers. False: there was none."""
        with holding(self._lock):
            kept = [
                each
                for each in self._listeners
                if each.pattern != event or (handler is not None and each.handler != handler)
            ]
            found = len(kept) != len(self._listeners)
            self._listeners = kept
            self._tell()
        return found

    remove_listener = off

    def remove_all_listeners(self, event: str | None = None) -> None:
        """Call nobody any more; with `event`: none of its handlers."""
        if event is not None:
            self.off(event)
            return
        with holding(self._lock):
            self._listeners = []
            self._tell()

    def _add(self, event: str, handler: H | None, once: bool, first: bool) -> Any:
        check_pattern(event)
        if handler is None:

            def decorate(function: H) -> H:
                self._add(event, function, once, first)
                return function

            return decorate
        if not callable(handler):
            raise TypeError(f"a handler is a callable, not {type(handler).__qualname__}")
        if event != NEW_LISTENER:
            self._emit_locally(NEW_LISTENER, (event, handler), {})
        with holding(self._lock):
            listener = _Listener(event, handler, once)
            self._listeners = [listener, *self._listeners] if first else [*self._listeners, listener]
            self._tell()
        return handler

    def _nudge(self) -> None:
        for nudge in list(self._nudges):
            nudge()

    def _tell(self) -> None:
        """Let the others know which events this bus wants: C passes the rest over."""
        self._subscribed_to_gone = False
        patterns = sorted({each.pattern for each in self._listeners} - {NEW_LISTENER, ERROR})
        if not patterns:
            subscriber, self._subscriber = self._subscriber, None
            if subscriber is not None:
                subscriber.close()
                self._nudge()
            return
        together = " ".join(patterns)
        if "#" in patterns or len(together.encode()) > _LONGEST_PATTERNS:
            together = ""
        if self._subscriber is None:
            self._subscriber = self._topic.subscribe()
            self._nudge()
        self._subscriber._group.set_pattern(together)

    # ---- asking --------------------------------------------------------------------------------

    def listeners(self, event: str) -> list[Handler]:
        """This bus object's handlers of `event`, in the order in which they are called."""
        return [each.handler for each in self._listeners if _matches(each.pattern, event)]

    def listener_count(self, event: str) -> int:
        """How many handlers of `event` this bus object has."""
        return len(self.listeners(event))

    def event_names(self) -> list[str]:
        """The names and patterns that this bus object listens to."""
        return list(dict.fromkeys(each.pattern for each in self._listeners))

    def is_heard(self, event: str) -> bool:
        """Does any bus of this name, in any process, listen to `event`?

        True, too, where one listens to so many names that only it knows them (255 bytes together).
        """
        return any(_matches_any(str(group["pattern"]), event) for group in self._topic._log.groups())

    # ---- emitting ------------------------------------------------------------------------------

    def emit(self, event: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> bool:
        """Let every listener, in every process, know. Returns whether there is one.

        Args:
            args, kwargs: what the handlers get: anything that a topic takes.
            timeout: seconds to wait for buses that are far behind; None: for ever. A handler never waits for
                its own bus.

        `error` calls this bus object's own handlers at once, and raises its argument where there is none.

        Raises:
            Full, ShutDown, QueueDeleted, Stalled, MessageTooLarge, EncodeError: as for Topic.publish().
            ValueError: a name that is empty, with blanks, or of more than 255 bytes.
        """
        if event in (ERROR, NEW_LISTENER):
            return self._emit_special(event, args, kwargs)
        if not check_subject(event):
            raise ValueError("an event has a name")
        if threading.get_ident() in self._loops:
            self._publish_from_handler([list(args), kwargs], event, timeout)
        else:
            self._topic.publish([list(args), kwargs], event, timeout=timeout)
        return self.is_heard(event)

    def _publish_from_handler(self, body: object, event: str, timeout: float | None) -> None:
        """What we have not taken yet may be what leaves no room: nobody else would take it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        wait = 0.0
        while True:
            try:
                self._topic.publish(body, event, timeout=wait)
                return
            except Full:
                took = self._take_ahead()
                if deadline is None:
                    wait = 0 if took else _SLICE
                    continue
                left = deadline - time.monotonic()
                if left <= 0 and not took:
                    raise
                wait = 0 if took else min(_SLICE, left)

    def _take_ahead(self) -> bool:
        subscriber = self._subscriber
        if subscriber is None:
            return False
        try:
            subscriber._fetch(_BATCH, 0)
        except (Empty, ValueError):
            return False
        return True

    def _emit_special(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        heard, started = self._emit_locally(event, args, kwargs)
        for coroutine in started:
            self._run_or_start(coroutine)
        if not heard and event == ERROR:
            error = args[0] if args else None
            if isinstance(error, BaseException):
                raise error
            raise RuntimeError(f"unhandled error event of {self!r}: {error!r}")
        return heard

    def _emit_locally(
        self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[bool, Started]:
        """Did anybody listen? And what is to be awaited."""
        started: Started = []
        found = [each for each in self._listeners if each.pattern == event]
        for each in found:
            if self._forget_once(each):
                result = each.handler(*args, **kwargs)
                if inspect.iscoroutine(result):
                    started.append(result)
        return bool(found), started

    def _run_or_start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """As a task of the event loop that runs here; where none does, at once."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            asyncio.run(coroutine)
            return
        task = loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- the loop ------------------------------------------------------------------------------

    def run(self, timeout: float | None = None) -> None:
        """Call handlers until stop() is called, the bus is shut down, or `timeout` seconds are over.

        Coroutine handlers run in an event loop of their own, one after another. timeout=0: for what was
        emitted before.
        """
        self._stopping.clear()
        self._run(timeout)

    def _run(self, timeout: float | None = None) -> None:
        loop: asyncio.AbstractEventLoop | None = None
        deadline = None if timeout is None else time.monotonic() + timeout
        me = threading.get_ident()
        nested = me in self._loops
        self._loops.add(me)
        try:
            pending = self._count_pending() if timeout == 0 else None
            while not self._stopping.is_set() and pending != 0:
                wait = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
                if pending is not None:
                    wait, pending = 0, pending - 1
                elif wait <= 0:
                    return
                message = self._next(wait)
                if message is None:
                    continue
                for coroutine in self._handle(message):
                    loop = loop or asyncio.new_event_loop()
                    try:
                        loop.run_until_complete(self._guard_async(coroutine))
                    except asyncio.CancelledError:
                        pass  # by itself: it ended, and nothing else
                self._tell_if_gone()
        except (ShutDown, QueueDeleted):
            return
        finally:
            if not nested:
                self._loops.discard(me)
            if loop is not None:
                loop.close()

    def _count_pending(self) -> int:
        subscriber = self._subscriber
        return 0 if subscriber is None else len(subscriber._ahead) + subscriber.lag

    def run_in_thread(self) -> threading.Thread:
        """Run the loop in a daemon thread; stop() ends it."""
        self._stopping.clear()
        thread = threading.Thread(target=self._run, name=f"ringpost-events-{self.name}", daemon=True)
        self._threads.add(thread)
        start_thread(thread)
        return thread

    async def run_async(self, concurrency: int = 100) -> None:
        """The loop inside asyncio: coroutine handlers run as tasks of their own, side by side, `concurrency`
        of them at most. No thread is started. (ringpost.aio has emit() as a coroutine, too.)"""
        from ringpost.aio.events import run

        await run(self, None, concurrency)

    def stop(self) -> None:
        """End run(), after the handler that is under way. Handlers may call it."""
        self._stopping.set()
        self._nudge()
        for thread in list(self._threads):
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(5)

    def _next(self, timeout: float) -> Message[Any] | None:
        self._tell_if_forked()
        subscriber = self._subscriber
        if subscriber is None:
            self._stopping.wait(timeout)  # nobody listens yet
            return None
        try:
            return subscriber.receive(timeout)
        except Empty:
            return None
        except (ValueError, QueueDeleted):
            if subscriber.closed:  # the last listener went meanwhile
                return None
            raise

    def _handle(self, message: Message[Any]) -> Started:
        """Call the handlers; those of coroutine functions are returned, to be awaited."""
        started: Started = []
        try:
            args, kwargs = message.body
        except Exception as error:
            return self._report(error)
        event = Event(message.subject, tuple(args), kwargs, message)
        for each in self._listeners:
            if not _matches(each.pattern, event.name) or not self._forget_once(each):
                continue
            try:
                result = (
                    each.handler(event) if each.wants_event else each.handler(*event.args, **event.kwargs)
                )
                if inspect.iscoroutine(result):
                    started.append(result)
            except Exception as error:
                started += self._report(error)
        return started

    def _forget_once(self, listener: _Listener) -> bool:
        """False: it was for once, and was called."""
        if not listener.once:
            return True
        with holding(self._lock):
            if listener not in self._listeners:
                return False
            self._listeners = [each for each in self._listeners if each is not listener]
            self._subscribed_to_gone = True
        return True

    def _tell_if_forked(self) -> None:
        """The place in the topic is our parent's: take one of our own."""
        if self._subscriber is None and self._listeners:
            with holding(self._lock):
                self._tell()

    def _tell_if_gone(self) -> None:
        """After the handlers, for they may listen again: what was emitted before is theirs then."""
        if self._subscribed_to_gone:
            with holding(self._lock):
                self._tell()

    async def _guard_async(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        except Exception as error:
            for each in self._report(error):
                await each

    def _report(self, error: Exception) -> Started:
        """A handler's exception goes to `error`, and stops nothing."""
        try:
            heard, started = self._emit_locally(ERROR, (error,), {})
        except Exception:
            _log.exception("a handler of the 'error' event of %r failed", self)
            return []
        if not heard:
            _log.error("a handler of %r failed, and nobody listens to 'error'", self, exc_info=error)
        return [self._guard_error_handler(each) for each in started]

    async def _guard_error_handler(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        except Exception:
            _log.exception("a handler of the 'error' event of %r failed", self)

    # ---- ending --------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop, and listen to nothing more. The bus goes on in other processes."""
        self.stop()
        if not self._topic.closed:
            self.remove_all_listeners()
        self._topic.close()

    def __enter__(self) -> EventBus:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """By name: the listeners are this object's."""
        return _reopen, (self._topic._broker, self.name, self._topic._speech.pickle)

    def __repr__(self) -> str:
        return f"<ringpost.EventBus {self.name}>"


def _reopen(broker: Any, name: str, pickle: bool) -> EventBus:
    bus: EventBus = broker.events(name, pickle=pickle)
    return bus


def _begin_anew() -> None:
    for bus in list(_buses):
        bus._begin()


os.register_at_fork(after_in_child=_begin_anew)


def _wants_event(handler: Handler) -> bool:
    try:
        parameters = list(inspect.signature(handler).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    return len(parameters) == 1 and parameters[0].name == "event"


def _matches(pattern: str, event: str) -> bool:
    return pattern == event or binding.subject_matches(pattern, event)


def _matches_any(patterns: str, event: str) -> bool:
    return not patterns or binding.subject_matches(patterns, event)
