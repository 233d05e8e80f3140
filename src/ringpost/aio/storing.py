"""How tasks wait for the disk: in one worker thread for each log, and together.

What is put goes into the ring at once. Then one flush of the log is under way at a time, for all tasks of a
loop; what is put meanwhile is for the next one. So any number of tasks share commits, and the loop never
waits.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import TypeVar

from ringpost.errors import Full, Stalled
from ringpost.store.later import LATER
from ringpost.store.log import StoredLog

R = TypeVar("R")

_PATIENCE = (
    5.0  # seconds, at least, for whoever writes to the disk: an item that is in the ring is in the queue
)

_Loop = asyncio.AbstractEventLoop


class Storing:
    """One operation that may have to wait for the disk."""

    def __init__(self) -> None:
        self._wanted: set[StoredLog] = set()

    def attempt(self, call: Callable[[], R]) -> R:
        """The call, which waits for no disk. Where the ring is full of what is not yet stored, a flush
        begins, and there will be room."""
        before = LATER.get()
        try:
            LATER.set(self._wanted)  # within: a signal handler may raise right behind it
            return call()
        except Full:
            for log in self._wanted:
                _flights_of(log).join(log)
            self._wanted.clear()
            raise
        finally:
            LATER.set(before)

    def begin(self) -> None:
        """Store what was put, while others do something else."""
        for log in self._wanted:
            _flights_of(log).join(log)

    async def wait(self, timeout: float | None = None) -> None:
        """Until what was put is on disk, if that was asked for. Raises StorageFailed; Stalled after `timeout`
        seconds, five at least."""
        for log in self._wanted:
            await stored(log, timeout)


async def stored(log: StoredLog, timeout: float | None) -> None:
    """Everything that was put before is on disk."""
    deadline = None if timeout is None else time.monotonic() + max(timeout, _PATIENCE)
    while True:
        try:
            await asyncio.shield(_flights_of(log).join(log))
            return
        except Stalled:
            if deadline is not None and time.monotonic() >= deadline:
                raise


class _Flights:
    """Of one log, in one loop."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._flying: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    def join(self, log: StoredLog) -> asyncio.Future[None]:
        """The first flush that begins from now on."""
        if self._flying is None:
            return self._begin(log, self._loop.create_future())
        if self._next is None:
            self._next = self._loop.create_future()
        return self._next

    def _begin(self, log: StoredLog, result: asyncio.Future[None]) -> asyncio.Future[None]:
        def flush() -> None:
            log.commit_until(log.stored.tail(), _PATIENCE)

        flight = self._loop.run_in_executor(None, flush)  # may raise: there is no thread to be had
        self._flying = result
        flight.add_done_callback(lambda done: self._end(log, done))
        return result

    def _end(self, log: StoredLog, flush: asyncio.Future[None]) -> None:
        result, following = self._flying, self._next
        self._flying = self._next = None
        if result is not None and not result.done():
            error = None if flush.cancelled() else flush.exception()
            if flush.cancelled():
                result.cancel()
            elif error is None:
                result.set_result(None)
            else:
                result.set_exception(error)
                result.exception()  # whoever waited may be gone
        if following is not None:
            try:
                self._begin(log, following)
            except RuntimeError as error:
                if not following.done():
                    following.set_exception(error)
                    following.exception()


_flights: weakref.WeakKeyDictionary[_Loop, weakref.WeakKeyDictionary[StoredLog, _Flights]] = (
    weakref.WeakKeyDictionary()
)


def _flights_of(log: StoredLog) -> _Flights:
    loop = asyncio.get_running_loop()
    of_loop = _flights.setdefault(loop, weakref.WeakKeyDictionary())
    flights = of_loop.get(log)
    if flights is None:
        flights = of_loop[log] = _Flights(loop)
    return flights
