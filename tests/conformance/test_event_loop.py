"""The loops that call handlers: when they begin and end, and what they leave for the next one."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, MOMENT, Call, eventually

Bus = ringpost.EventBus


@pytest.fixture
def bus(binding: Any, broker: ringpost.Broker) -> Bus:
    with broker.events("app") as bus:
        yield bus


@pytest.fixture
def calls(bus: Bus) -> list[Any]:
    """The arguments of events called "a"."""
    found: list[Any] = []
    bus.on("a", found.append)
    return found


def test_a_timeout_is_kept_with_and_without_listeners(bus: Bus) -> None:
    for _ in range(2):
        start = time.monotonic()
        bus.run(timeout=0.05)
        assert time.monotonic() - start >= 0.049
        bus.on("a", print)


def test_a_timeout_of_0_handles_what_is_there(bus: Bus, calls: list[Any]) -> None:
    bus.run(timeout=0)
    for number in range(1000):
        bus.emit("a", number)
    bus.run(timeout=0)
    assert calls == list(range(1000))
    bus.on("b", lambda: bus.emit("b"))
    bus.emit("b")
    bus.run(timeout=0)  # not what the handlers emit


def test_stopping_leaves_the_rest_for_the_next_run(bus: Bus, calls: list[Any]) -> None:
    bus.on("a", lambda number: bus.stop())
    for number in range(3):
        bus.emit("a", number)
    for expected in ([0], [0, 1], [0, 1, 2]):
        bus.run(BOUND)
        assert calls == expected


def test_a_loop_is_stopped_by_another_thread(bus: Bus, calls: list[Any]) -> None:
    call = Call(bus.run)
    assert call.is_blocked()
    bus.stop()
    call.result()
    bus.emit("a", 1)
    bus.run(0)
    assert calls == [1]


def test_stop_right_after_the_start_of_a_thread_ends_it(bus: Bus, calls: list[Any]) -> None:
    for _ in range(5):
        thread = bus.run_in_thread()
        bus.stop()
        assert not thread.is_alive()


def test_a_thread_that_is_about_to_start_is_stopped(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, run = threading.Event(), bus._run

    def run_late() -> None:
        assert begin.wait(BOUND)
        run()

    monkeypatch.setattr(bus, "_run", run_late)
    thread = bus.run_in_thread()
    stopping = Call(bus.stop)
    assert stopping.is_blocked()
    begin.set()
    stopping.result()
    assert not thread.is_alive()


def test_several_threads_handle_each_event_once(bus: Bus, calls: list[Any]) -> None:
    threads = [bus.run_in_thread() for _ in range(3)]
    for number in range(300):
        bus.emit("a", number)
    eventually(lambda: len(calls) >= 300)
    bus.stop()
    assert sorted(calls) == list(range(300))
    assert not any(thread.is_alive() for thread in threads)


def test_a_handler_in_a_thread_may_stop_or_close_the_bus(bus: Bus) -> None:
    bus.on("stop", bus.stop)
    thread = bus.run_in_thread()
    bus.emit("stop")
    thread.join(BOUND)
    assert not thread.is_alive()
    bus.on("close", bus.close)
    thread = bus.run_in_thread()
    bus.emit("close")
    thread.join(BOUND)
    assert not thread.is_alive()


def test_a_loop_hears_of_the_first_listener(bus: Bus) -> None:
    bus.run_in_thread()
    heard = threading.Event()
    bus.on("late", heard.set)
    bus.emit("late")
    assert heard.wait(BOUND)
    bus.stop()


@pytest.mark.parametrize("end", ["close", "destroy"])
def test_a_loop_ends_with_its_bus(bus: Bus, broker: ringpost.Broker, calls: list[Any], end: str) -> None:
    call = Call(bus.run)
    assert call.is_blocked()
    bus.close() if end == "close" else broker.destroy()
    call.result()


def test_a_loop_may_run_inside_a_handler(bus: Bus, calls: list[Any]) -> None:
    bus.once("outer", lambda: bus.run(0))
    bus.emit("outer")
    bus.emit("a", "inner")
    bus.run(MOMENT)
    assert calls == ["inner"]


def test_sys_exit_in_a_handler_ends_the_program_not_the_bus(bus: Bus, calls: list[Any]) -> None:
    def leave(*_: object) -> None:
        raise SystemExit(3)

    bus.prepend_listener("a", leave)
    bus.emit("a", 1)
    bus.emit("a", 2)
    with pytest.raises(SystemExit):
        bus.run(BOUND)
    bus.off("a", leave)
    bus.run(0)
    assert calls == [2]


# ---- inside asyncio -------------------------------------------------------------------------------


def test_other_tasks_go_on_meanwhile(bus: Bus, calls: list[Any]) -> None:
    async def main() -> None:
        running = asyncio.ensure_future(bus.run_async())
        for number in range(10):
            bus.emit("a", number)
            await asyncio.sleep(0)
        while len(calls) < 10:
            await asyncio.sleep(0.001)
        bus.stop()
        await asyncio.wait_for(running, BOUND)

    asyncio.run(main())
    assert calls == list(range(10))


def test_a_cancelled_loop_loses_no_event(bus: Bus, calls: list[Any]) -> None:
    async def main() -> None:
        for number in range(20):
            running = asyncio.ensure_future(bus.run_async())
            await asyncio.sleep(0.001)
            running.cancel()
            bus.emit("a", number)
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(main())
    bus.run(0)
    assert sorted(calls) == list(range(20))


def test_the_loop_ends_when_its_coroutines_have(bus: Bus) -> None:
    ended: list[str] = []

    @bus.on("a")
    async def slow() -> None:
        bus.stop()
        await asyncio.sleep(0.02)
        ended.append("slow")

    bus.emit("a")
    asyncio.run(asyncio.wait_for(bus.run_async(), BOUND))
    assert ended == ["slow"]


def test_a_failing_coroutine_stops_no_other(bus: Bus, calls: list[Any]) -> None:
    errors: list[BaseException] = []
    bus.on("error", errors.append)

    @bus.prepend_listener("a")
    async def fails(number: int) -> None:
        raise ZeroDivisionError(number)

    bus.on("end", bus.stop)
    for number in range(3):
        bus.emit("a", number)
    bus.emit("end")
    asyncio.run(asyncio.wait_for(bus.run_async(), BOUND))
    assert (calls, sorted(str(each) for each in errors)) == ([0, 1, 2], ["0", "1", "2"])
