"""EventBus: Node's EventEmitter, and Python's pyee, between processes.

An event has a name (words with dots between) and arguments. `emit` publishes it; every bus of this name, in
any process, calls the handlers that listen to it, in its loop: run(), run_in_thread() or run_async().
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ringpost._binding import binding
from ringpost.errors import Empty, QueueDeleted, ShutDown
from ringpost.message import Message
from ringpost.subjects import check_pattern, check_subject

if TYPE_CHECKING:
    from ringpost.subscriber import Subscriber
    from ringpost.topic import Topic

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)

NEW_LISTENER = "new_listener"
ERROR = "error"

_LONGEST_PATTERNS = 255  # bytes, of all together; beyond that everything is received and sorted out here
_LOOK = 0.2  # seconds after which run() looks whether it should stop

_log = logging.getLogger("ringpost.events")


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
    message: Message

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

    The events `error` and `new_listener` are local to one bus object, as in Node.
    """

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._listeners: list[_Listener] = []
        self._lock = threading.RLock()
        self._subscriber: Subscriber | None = None
        self._stopping = threading.Event()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
        self._nudges: set[Callable[[], None]] = set()  # of loops in asyncio: look again

    @property
    def name(self) -> str:
        """The name that processes share."""
        return self._topic.name

    # ---- listening -----------------------------------------------------------------------------

    def on(self, event: str, handler: H | None = None) -> Any:
        """Call `handler` for each event of this name; as a decorator without one: @bus.on("order.*").

        `event` may be a pattern: `*` is one word, `#` any number. A handler with one parameter called `event`
        gets an Event; any other gets the arguments of emit(). It may be a coroutine function.
        """
        return self._add(event, handler, once=False, first=False)

    add_listener = on

    def once(self, event: str, handler: H | None = None) -> Any:
        """As on(), for the next such event only."""
        return self._add(event, handler, once=True, first=False)

    def prepend_listener(self, event: str, handler: H | None = None) -> Any:
        """As on(), but called before the others."""
        return self._add(event, handler, once=False, first=True)

    def off(self, event: str, handler: Handler | None = None) -> bool:
        """Call `handler` no more for `event`; without one, none of its handlers. False: there was none."""
        with self._lock:
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

    def remove_all_listeners(self) -> None:
        """Call nobody any more."""
        with self._lock:
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
        with self._lock:
            listener = _Listener(event, handler, once)
            self._listeners = [listener, *self._listeners] if first else [*self._listeners, listener]
            self._tell()
        return handler

    def _nudge(self) -> None:
        for nudge in list(self._nudges):
            nudge()

    def _tell(self) -> None:
        """Let the others know which events this bus wants: C passes the rest over."""
        patterns = sorted({each.pattern for each in self._listeners} - {NEW_LISTENER})
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
        """Does any bus of this name, in any process, listen to `event`?"""
        return any(_matches_any(str(group["pattern"]), event) for group in self._topic._log.groups())

    # ---- emitting ------------------------------------------------------------------------------

    def emit(self, event: str, *args: Any, timeout: float | None = None, **kwargs: Any) -> bool:
        """Let every listener, in every process, know. Returns whether there is one.

        Args:
            args, kwargs: what the handlers get: anything that a topic takes.
            timeout: seconds to wait for buses that are far behind; None: for ever.

        `error` calls this bus object's own handlers at once, and raises its argument where there is none.

        Raises:
            Full, ShutDown, QueueDeleted, Stalled, MessageTooLarge, EncodeError: as for Topic.publish().
            ValueError: a name with blanks or of more than 255 bytes.
        """
        if event in (ERROR, NEW_LISTENER):
            return self._emit_special(event, args, kwargs)
        check_subject(event)
        self._topic.publish([args, kwargs], event, timeout=timeout)
        return self.is_heard(event)

    def _emit_special(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        heard = self._emit_locally(event, args, kwargs)
        if not heard and event == ERROR:
            error = args[0] if args else None
            if isinstance(error, BaseException):
                raise error
            raise RuntimeError(f"unhandled error event of {self!r}: {error!r}")
        return heard

    def _emit_locally(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        found = [each for each in self._listeners if each.pattern == event]
        for each in found:
            self._forget_once(each)
            each.handler(*args, **kwargs)
        return bool(found)

    # ---- the loop ------------------------------------------------------------------------------

    def run(self, timeout: float | None = None) -> None:
        """Call handlers until stop() is called, the bus is shut down, or `timeout` seconds are over.

        Coroutine handlers run in an event loop of their own, one after another.
        """
        self._stopping.clear()
        loop: asyncio.AbstractEventLoop | None = None
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while not self._stopping.is_set():
                wait = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
                if wait <= 0:
                    return
                message = self._next(wait)
                if message is None:
                    continue
                for coroutine in self._handle(message):
                    loop = loop or asyncio.new_event_loop()
                    loop.run_until_complete(self._guard_async(coroutine))
        except (ShutDown, QueueDeleted):
            return
        finally:
            if loop is not None:
                loop.close()

    def run_in_thread(self) -> threading.Thread:
        """Run the loop in a daemon thread; stop() ends it."""
        self._stopping.clear()
        thread = threading.Thread(target=self.run, name=f"ringpost-events-{self.name}", daemon=True)
        self._threads.add(thread)
        thread.start()
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

    def _next(self, timeout: float) -> Message | None:
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

    def _handle(self, message: Message) -> list[Coroutine[Any, Any, Any]]:
        """Call the handlers; those of coroutine functions are returned, to be awaited."""
        started: list[Coroutine[Any, Any, Any]] = []
        try:
            args, kwargs = message.body
        except Exception as error:
            self._report(error)
            return started
        event = Event(message.subject, tuple(args), kwargs, message)
        for each in self._listeners:
            if not _matches(each.pattern, event.name) or not self._forget_once(each):
                continue

            def call(listener: _Listener = each) -> None:
                if listener.wants_event:
                    result = listener.handler(event)
                else:
                    result = listener.handler(*event.args, **event.kwargs)
                if inspect.iscoroutine(result):
                    started.append(result)

            self._guard(call)
        return started

    def _forget_once(self, listener: _Listener) -> bool:
        """False: it was for once, and was called."""
        if not listener.once:
            return True
        with self._lock:
            if listener not in self._listeners:
                return False
            self._listeners = [each for each in self._listeners if each is not listener]
            self._tell()
        return True

    def _guard(self, call: Callable[[], Any]) -> None:
        """A handler's exception goes to `error`, and stops nothing."""
        try:
            call()
        except Exception as error:
            self._report(error)

    async def _guard_async(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            await coroutine
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        try:
            if not self._emit_locally(ERROR, (error,), {}):
                _log.error("a handler of %r failed, and nobody listens to 'error'", self, exc_info=error)
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

    def __repr__(self) -> str:
        return f"<ringpost.EventBus {self.name}>"


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
