"""How a task waits: one descriptor for each thing that tasks of one loop wait for, and no thread.

An operation is an attempt, a function that takes (or puts) or raises Empty (or Full), and never waits. A task
attempts; if that fails it arms the descriptor, looks again, and sleeps until the loop finds it readable.
native/src/watch.h says why no wake-up is missed between processes. Within the loop:

    None is lost by cancelling. A message leaves the log inside an attempt, and no task is suspended between
    an attempt that succeeded and the return to whoever awaits it: a cancellation comes before it, or after
    it. Nor is a wake-up: who is cancelled after it was woken, or fails, wakes the next.

    One sleeper is woken at a time, and wakes the next when it got something: there may be more. Where what
    one can use another cannot (room for a small message, not for a large one), all are woken.

Before it sleeps, a task that waits alone spins: it lets the loop turn a few times, other tasks too, and
glances at the log. What is waited for comes within microseconds where processes converse, and an armed
descriptor costs a system call there and a sleeping core here. Spinning is bounded, and shrinks to nothing
where it is in vain, as in native/src/wait.c.

Slices: ten times a second the loop looks at what tasks wait for, because a waker may have died between its
store and its wake-up, and because of leases of the dead. Looking is a glance; a task is woken only if an
attempt is worth it. What is due at a known time (a delayed message, a lease, the end of a timeout) gets a
timer, however late: a slice wakes nobody where there is nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from ringpost._binding.contract import Watch
from ringpost.errors import Empty, Full, Stalled, was_put

R = TypeVar("R")

SLICE = 0.1  # seconds
GRACE = 0.002  # seconds that an attempt grants to who holds a lock: the loop stands still meanwhile
_PAUSE = 0.005  # seconds until the next attempt, if it still is held
_PATIENCE = 5.0  # seconds for a lock, where there is no timeout to go by
_IN_A_ROW = 64  # operations that did not sleep, until the loop's other tasks have a turn

_MOST_SPIN = 60e-6  # seconds
_LEAST_SPIN = 4e-6  # below it one does not spin
_SHORT_SLEEP = 150e-6  # a sleep that a longer spin would have spared
_GLANCES = 200  # at the log, between two turns of the loop

_Loop = asyncio.AbstractEventLoop


class Spot:
    """What tasks of one loop wait for, and the tasks."""

    def __init__(self, loop: _Loop, watch: Watch, wakes_all: bool) -> None:
        self._watch = watch
        self._wakes_all = wakes_all
        self._sleepers: dict[asyncio.Future[None], None] = {}
        self._error: BaseException | None = None
        loop.add_reader(watch.fileno(), self._told)

    def _told(self) -> None:
        """The descriptor is readable. It stays so until it is cleared; who sleeps attempts after that."""
        self._watch.clear()
        self.wake()

    def arm(self) -> float | None:
        return self._watch.arm()

    def is_worth_it(self) -> bool:
        return self._watch.look()

    def is_alone(self) -> bool:
        """Nobody sleeps here."""
        return not self._sleepers

    def glance(self) -> bool:
        return self._watch.glance(_GLANCES)

    def wake(self) -> None:
        """The one that has slept longest, or all."""
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)
                if not self._wakes_all:
                    return

    def pass_on(self) -> None:
        """Got something, or has given up: there may be more for the next."""
        if not self._wakes_all:
            self.wake()

    async def sleep(self, loop: _Loop, due: float | None) -> None:
        """Until woken, or `due` seconds from now."""
        ticker_of(loop).start(loop, self)
        sleeper = loop.create_future()
        self._sleepers[sleeper] = None
        timer = None if due is None else loop.call_later(due, _end, sleeper)
        try:
            await sleeper
        except BaseException:
            if not sleeper.cancelled():  # woken, and cancelled then: the wake-up is another's
                del self._sleepers[sleeper]
                self.pass_on()
            raise
        finally:
            self._sleepers.pop(sleeper, None)
            if timer is not None:
                timer.cancel()

    def look_around(self) -> bool:
        """At the end of a slice. False: nobody sleeps here."""
        if not self._sleepers:
            return False
        try:
            worth_it = self._watch.look()
        except Exception as error:  # somebody removed the file: no attempt would notice
            for sleeper in self._sleepers:
                if not sleeper.done():
                    sleeper.set_exception(error)
            return True
        if worth_it:
            self.wake()
        return True

    def close(self, loop: _Loop) -> None:
        """In its loop, or after that was closed."""
        if not loop.is_closed():
            loop.remove_reader(self._watch.fileno())
        self._watch.close()
        for sleeper in self._sleepers:
            if not sleeper.done() and not loop.is_closed():
                sleeper.set_result(None)


def _end(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class _Ticker:
    """Of one loop: ends slices, while anybody sleeps."""

    def __init__(self) -> None:
        self._spots: weakref.WeakSet[Spot] = weakref.WeakSet()
        self._runs = False
        self.spinning = False

    def start(self, loop: _Loop, spot: Spot) -> None:
        self._spots.add(spot)
        if not self._runs:
            self._runs = True
            loop.call_later(SLICE, self._tick, loop)

    def _tick(self, loop: _Loop) -> None:
        for spot in list(self._spots):
            if not spot.look_around():
                self._spots.discard(spot)
        self._runs = bool(self._spots)
        if self._runs:
            loop.call_later(SLICE, self._tick, loop)


_tickers: weakref.WeakKeyDictionary[_Loop, _Ticker] = weakref.WeakKeyDictionary()


def ticker_of(loop: _Loop) -> _Ticker:
    ticker = _tickers.get(loop)
    if ticker is None:
        ticker = _tickers[loop] = _Ticker()
    return ticker


class Waiting:
    """One handle's way to wait for one thing, in whatever loop it is used."""

    def __init__(self, open_watch: Callable[[], Watch], *, wakes_all: bool = False) -> None:
        self._open_watch = open_watch
        self._wakes_all = wakes_all
        self._spots: weakref.WeakKeyDictionary[_Loop, Spot] = weakref.WeakKeyDictionary()
        self._in_a_row = 0
        self._calls = 0  # of wake()
        self._spin_for = 0.0 if wakes_all or _is_alone() else _MOST_SPIN

    def _spot(self, loop: _Loop) -> Spot:
        spot = self._spots.get(loop)
        if spot is None:
            spot = self._spots[loop] = Spot(loop, self._open_watch(), self._wakes_all)
        return spot

    async def until(self, attempt: Callable[[], R], timeout: float | None = None) -> R:
        """What the attempt gives, once it gives something. Raises Empty or Full, as the attempt did last,
        after `timeout` seconds; 0: at once. At once, too, what came after it had put something."""
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW:
            self._in_a_row = 0
            await asyncio.sleep(0)  # nothing is taken yet: a cancellation here loses nothing
        try:
            return attempt()
        except (Empty, Full) as failure:
            if timeout == 0 or was_put(failure):
                raise
        return await self._sleep_until(attempt, timeout)

    async def _sleep_until(self, attempt: Callable[[], R], timeout: float | None) -> R:
        if timeout is not None and not timeout > 0:
            raise ValueError("'timeout' must be a non-negative number")
        deadline = None if timeout is None else time.monotonic() + timeout
        loop = asyncio.get_running_loop()
        spot = self._spot(loop)
        calls = self._calls
        armed = not await self._spin(loop, spot)
        while True:
            due = spot.arm() if armed else None
            try:
                if not armed or calls != self._calls or spot.is_worth_it():
                    calls = self._calls
                    result = attempt()
                    spot.pass_on()
                    return result
            except Stalled as stalled:
                if was_put(stalled):
                    spot.pass_on()
                    raise
                due = _PAUSE
            except (Empty, Full):
                pass
            except BaseException:
                spot.pass_on()  # shut down, or this one is broken: the others shall see for themselves
                raise
            if not armed and due is None:
                armed = True
                continue
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return attempt()  # its exception says why
                due = left if due is None else min(due, left)
            since = time.monotonic()
            await spot.sleep(loop, due)
            self._in_a_row = 0
            self._adapt_spin(time.monotonic() - since)
            armed = False

    async def _spin(self, loop: _Loop, spot: Spot) -> bool:
        """True as soon as an attempt is worth it. Nothing is taken: a cancellation here loses nothing."""
        ticker = ticker_of(loop)
        if self._spin_for < _LEAST_SPIN or ticker.spinning or not spot.is_alone():
            return False
        end = time.monotonic() + self._spin_for
        ticker.spinning = True
        try:
            while not spot.glance():
                if time.monotonic() >= end:
                    return False
                await asyncio.sleep(0)
            return True
        finally:
            ticker.spinning = False

    def _adapt_spin(self, slept: float) -> None:
        if self._spin_for == 0:
            return
        if slept < _SHORT_SLEEP:
            self._spin_for = min(self._spin_for * 2, _MOST_SPIN)
        else:
            self._spin_for = max(self._spin_for / 2, _LEAST_SPIN / 2)

    def wake(self) -> None:
        """Let everybody who waits in this loop attempt now; who spins does when it has."""
        self._calls += 1
        spot = self._spots.get(asyncio.get_running_loop())
        if spot is not None:
            spot.wake()

    def close(self) -> None:
        """Whoever waits attempts once more, and finds the handle closed. From any thread."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        for loop, spot in list(self._spots.items()):
            if loop is running or loop.is_closed():
                spot.close(loop)
            else:
                with contextlib.suppress(RuntimeError):  # closed just now
                    loop.call_soon_threadsafe(spot.close, loop)
        self._spots.clear()

    def __del__(self) -> None:
        """Forgotten without close(): its loops must not keep its descriptors."""
        with contextlib.suppress(Exception):
            self.close()


def _is_alone() -> bool:
    """With one core, who spins keeps off the one it waits for."""
    return len(os.sched_getaffinity(0)) < 2


async def patiently(call: Callable[[float], R]) -> R:
    """What needs a lock for a moment, and nothing else. Raises Stalled after five seconds."""
    deadline: float | None = None
    while True:
        try:
            return call(GRACE)
        except Stalled:
            now = time.monotonic()
            if deadline is None:
                deadline = now + _PATIENCE
            if now >= deadline:
                raise
        await asyncio.sleep(_PAUSE)
