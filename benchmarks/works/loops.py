"""asyncio: the same works, each process an event loop whose one task awaits every call."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Coroutine
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.messages import BATCH, SMALL, corrupt, cycle_of
from benchmarks.peer import wait_until
from benchmarks.rivals.asynchronous import AsyncLane, AsyncRival
from benchmarks.rivals.base import Rival, SendingLane
from benchmarks.works.latency import RoundTrip
from benchmarks.works.stream import Stream


class _InLoop:
    """A part with an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Not the loop: the rival's sockets may still want it."""


class _Ask(_InLoop):
    def __init__(self, there: AsyncLane, back: AsyncLane, size: int) -> None:
        super().__init__()
        self._messages = cycle_of(0, size)
        self._receiver = self._await(back.async_receiver())
        self._sender = self._await(there.async_sender())

    def run(self, count: int, start_at: int) -> array[int]:
        wait_until(start_at)
        took: array[int] = self._await(self._run(count))
        return took

    async def _run(self, count: int) -> array[int]:
        put, get, now = self._sender.put, self._receiver.get, time.perf_counter_ns
        took = array("q", bytes(8 * count))
        for at, message in enumerate(islice(cycle(self._messages), count)):
            asked = now()
            await put(message)
            got = await get()
            took[at] = now() - asked
            if got != message:
                raise corrupt(got, message)
        return took


class _Answer(_InLoop):
    def __init__(self, there: AsyncLane, back: AsyncLane, size: int) -> None:
        super().__init__()
        self._messages = cycle_of(0, size)
        self._receiver = self._await(there.async_receiver())
        self._sender = self._await(back.async_sender())

    def run(self, count: int, start_at: int) -> None:
        self._await(self._run(count))

    async def _run(self, count: int) -> None:
        put, get = self._sender.put, self._receiver.get
        for expected in islice(cycle(self._messages), count):
            got = await get()
            await put(got)
            if got != expected:
                raise corrupt(got, expected)


class AsyncRoundTrip(RoundTrip):
    """Two queues, a loop on each side."""

    name = "aio-latency"
    title = f"asyncio: round trip between two loops through two queues, {SMALL}-byte messages"
    needs = AsyncRival

    def lane(self, rival: Any, name: str, directory: Path) -> SendingLane:
        lane: SendingLane = rival.async_lane(name, self.size, directory)
        return lane

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        arguments = (*lanes, self.size)
        return [(_Answer, arguments), (_Ask, arguments)]


class _Put(_InLoop):
    many = False

    def __init__(self, lane: AsyncLane, index: int, size: int) -> None:
        super().__init__()
        self._messages = cycle_of(index, size)
        self._sender = self._await(lane.async_sender())

    def run(self, count: int, start_at: int) -> int:
        wait_until(start_at)
        began = time.monotonic_ns()
        self._await(self._run(count))
        return began

    async def _run(self, count: int) -> None:
        put, put_many = self._sender.put, self._sender.put_many
        if not self.many or put_many is None:
            for message in islice(cycle(self._messages), count):
                await put(message)
            return
        batches = [self._messages[at : at + BATCH] for at in range(0, len(self._messages), BATCH)]
        for batch in islice(cycle(batches), count // BATCH):
            await put_many(batch)


class _PutBatches(_Put):
    many = True


class _Get(_InLoop):
    many = False

    def __init__(self, lane: AsyncLane, senders: int, size: int) -> None:
        super().__init__()
        self._cycle = cycle_of(0, size)
        self._receiver = self._await(lane.async_receiver())

    def run(self, count: int, start_at: int) -> int:
        self._await(self._run(count))
        return time.monotonic_ns()

    async def _run(self, count: int) -> None:
        get, get_many = self._receiver.get, self._receiver.get_many
        if not self.many or get_many is None:
            for expected in islice(cycle(self._cycle), count):
                got = await get()
                if got != expected:
                    raise corrupt(got, expected)
            return
        length, position = len(self._cycle), 0
        unrolled = self._cycle + self._cycle[:BATCH]
        while position < count:
            some = await get_many(BATCH)
            at = position % length
            if some != unrolled[at : at + len(some)]:
                raise corrupt(some[0], unrolled[at])
            position += len(some)


class _GetBatches(_Get):
    many = True


class AsyncOneToOne(Stream):
    """One awaited call for each message."""

    name = "aio-1-to-1"
    title = f"asyncio: 1 producer to 1 consumer, {SMALL}-byte messages, one a call"
    needs = AsyncRival
    receiving = _Get
    sending = _Put

    def lane(self, rival: Any, name: str, directory: Path) -> SendingLane:
        lane: SendingLane = rival.async_lane(name, self.size, directory)
        return lane


class AsyncBatches(AsyncOneToOne):
    """Many messages a call, where the rival can."""

    name = "aio-batches"
    title = f"asyncio: 1 producer to 1 consumer, {SMALL}-byte messages, {BATCH} a call"
    receiving = _GetBatches
    sending = _PutBatches

    def fits(self, rival: Rival) -> bool:
        return isinstance(rival, AsyncRival) and rival.async_batches
