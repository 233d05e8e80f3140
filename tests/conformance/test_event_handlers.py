"""What handlers may be and do: coroutines, failures, listening and emitting while they are called."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, Call

Bus = ringpost.EventBus


@pytest.fixture
def bus(binding: Any, broker: ringpost.Broker) -> Bus:
    with broker.events("app", capacity=128 << 10) as bus:
        yield bus


@pytest.fixture
def calls() -> list[Any]:
    return []


def handle(bus: Bus) -> None:
    """All that was emitted so far, and what the handlers emit."""
    bus.once("end", bus.stop)
    bus.emit("end")
    bus.run(BOUND)


# ---- in the middle of an event --------------------------------------------------------------------


def test_one_that_was_for_once_may_listen_again(bus: Bus, calls: list[Any]) -> None:
    def again(number: int) -> None:
        calls.append(number)
        bus.once("a", again)

    bus.once("a", again)
    for number in range(1000):
        bus.emit("a", number)
    handle(bus)
    assert calls == list(range(1000))


def test_one_that_was_for_once_may_emit_its_own_event(bus: Bus, calls: list[Any]) -> None:
    def emit_again() -> None:
        calls.append("called")
        bus.emit("a")

    bus.once("a", emit_again)
    bus.emit("a")
    handle(bus)
    assert calls == ["called"]


def test_one_that_is_taken_off_meanwhile_is_called_for_this_event(bus: Bus, calls: list[Any]) -> None:
    def other() -> None:
        calls.append("other")

    bus.on("a", lambda: calls.append(bus.off("a", other)))
    bus.on("a", other)
    bus.emit("a")
    bus.emit("a")
    handle(bus)
    assert calls == [True, "other", False]


def test_one_that_is_added_meanwhile_is_called_from_the_next_event_on(bus: Bus, calls: list[Any]) -> None:
    bus.once("a", lambda n: bus.on("a", calls.append))
    bus.emit("a", 1)
    bus.emit("a", 2)
    handle(bus)
    assert calls == [2]


def test_a_handler_that_emits_more_than_there_is_room_for_does_not_wait_for_itself(
    bus: Bus, calls: list[Any]
) -> None:
    @bus.on("a")
    def emit_many() -> None:
        for number in range(500):
            bus.emit("b", number, bytes(1000))
        bus.emit("end")

    bus.on("b", lambda number, _: calls.append(number))
    bus.on("end", bus.stop)
    bus.emit("a")
    Call(bus.run, BOUND).result()
    assert calls == list(range(500))


def test_two_buses_that_fill_each_other_end(bus: Bus, broker: ringpost.Broker, calls: list[Any]) -> None:
    with broker.events("app") as other:
        for mine in (bus, other):
            mine.on("start", lambda mine=mine: [mine.emit("number", bytes(1000)) for _ in range(300)])
            mine.on("number", calls.append)
        loops = [Call(each.run) for each in (bus, other)]
        bus.emit("start")
        while len(calls) < 1200:
            assert loops[0].is_blocked()
        for each, loop in zip((bus, other), loops, strict=True):
            each.stop()
            loop.result()


def test_a_handler_waits_for_others_no_longer_than_asked(bus: Bus, broker: ringpost.Broker) -> None:
    with broker.events("app") as other:
        other.on("b", print)  # and never runs

        @bus.on("a")
        def emit_many() -> None:
            for _ in range(500):
                bus.emit("b", bytes(1000), timeout=0.01)

        errors: list[BaseException] = []
        bus.on("error", errors.append)
        bus.emit("a")
        bus.run(0)
    assert [type(each) for each in errors] == [ringpost.Full]


def test_a_handler_may_close_the_bus(bus: Bus) -> None:
    bus.on("a", bus.close)
    bus.emit("a")
    Call(bus.run).result()
    with pytest.raises(ValueError, match="closed"):
        bus.emit("a")


# ---- arguments ------------------------------------------------------------------------------------


def test_any_name_may_be_an_argument(bus: Bus, calls: list[Any]) -> None:
    bus.on("a", lambda **named: calls.append(named))
    bus.emit("a", event=1, self=2, args=3, handler=4)
    handle(bus)
    assert calls == [{"event": 1, "self": 2, "args": 3, "handler": 4}]


def test_only_a_single_parameter_called_event_gets_the_event(bus: Bus, calls: list[Any]) -> None:
    class Handlers:
        def method(self, event: ringpost.Event) -> None:
            calls.append(type(event))

        def __call__(self, event: object, more: object = None) -> None:
            calls.append((event, more))

    for each in (Handlers().method, Handlers(), functools.partial(lambda x, event: calls.append(x), "p")):
        bus.on("a", each)
    bus.on("a", calls.append)
    bus.emit("a", 1)
    handle(bus)
    assert calls == [ringpost.Event, (1, None), "p", 1]


def test_what_cannot_be_sent_is_an_error_of_emit(bus: Bus, calls: list[Any]) -> None:
    bus.on("a", calls.append)
    with pytest.raises(ringpost.EncodeError):
        bus.emit("a", object())
    with pytest.raises(ringpost.MessageTooLarge):
        bus.emit("a", bytes(1 << 20))
    handle(bus)
    assert calls == []


def test_large_arguments_arrive(bus: Bus, calls: list[Any]) -> None:
    bus.on("a", calls.append)
    bus.emit("a", bytes(20_000))
    handle(bus)
    assert calls == [bytes(20_000)]


# ---- coroutines -----------------------------------------------------------------------------------


def test_an_error_handler_may_be_a_coroutine_function(bus: Bus, calls: list[Any]) -> None:
    @bus.on("error")
    async def note(error: BaseException) -> None:
        await asyncio.sleep(0)
        calls.append(str(error))

    @bus.on("a")
    def fails() -> None:
        raise RuntimeError("plain")

    @bus.on("a")
    async def fails_later() -> None:
        raise RuntimeError("coroutine")

    bus.emit("a")
    handle(bus)
    assert bus.emit("error", RuntimeError("emitted")) is True
    assert calls == ["plain", "coroutine", "emitted"]


def test_inside_asyncio_an_emitted_error_is_handled_as_a_task(bus: Bus, calls: list[Any]) -> None:
    async def main() -> None:
        handled = asyncio.Event()

        @bus.on("error")
        async def note(error: object) -> None:
            await asyncio.sleep(0)
            calls.append(error)
            handled.set()

        assert bus.emit("error", "text") is True
        await asyncio.wait_for(handled.wait(), BOUND)

    asyncio.run(main())
    assert calls == ["text"]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_handler_that_fails_is_logged_and_stops_nothing(
    bus: Bus, calls: list[Any], is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(error: object) -> None:
        raise RuntimeError("of the error handler")

    async def coroutine(error: object) -> None:
        plain(error)

    bus.on("error", coroutine if is_async else plain)
    bus.on("a", lambda: 1 / 0)
    bus.on("a", lambda: calls.append("after"))
    bus.emit("a")
    handle(bus)
    assert calls == ["after"]
    assert "of the error handler" in caplog.text


@pytest.mark.parametrize("is_async_loop", [False, True])
def test_a_coroutine_that_is_cancelled_stops_nothing(bus: Bus, calls: list[Any], is_async_loop: bool) -> None:
    @bus.on("a")
    async def cancelled() -> None:
        raise asyncio.CancelledError

    @bus.on("b")
    async def after() -> None:
        calls.append("after")

    bus.emit("a")
    bus.emit("b")
    if is_async_loop:
        bus.on("end", bus.stop)
        bus.emit("end")
        asyncio.run(asyncio.wait_for(bus.run_async(), BOUND))
    else:
        handle(bus)
    assert calls == ["after"]


def test_once_is_once_for_coroutines_too(bus: Bus, calls: list[Any]) -> None:
    @bus.once("a")
    async def handler(number: int) -> None:
        calls.append(number)

    for number in range(3):
        bus.emit("a", number)
    handle(bus)
    assert calls == [0]


# ---- as Node has it -------------------------------------------------------------------------------


def test_who_hears_of_a_new_listener_may_come_before_it(bus: Bus, calls: list[Any]) -> None:
    def add_another(event: str, handler: object) -> None:
        if event == "a":
            bus.on("a", lambda: calls.append("B"))

    bus.once("new_listener", add_another)
    bus.on("a", lambda: calls.append("A"))
    bus.emit("a")
    handle(bus)
    assert calls == ["B", "A"]


def test_a_handler_that_listens_twice_is_called_twice(bus: Bus, calls: list[Any]) -> None:
    bus.on("a", calls.append)
    bus.on("a", calls.append)
    bus.emit("a", 1)
    handle(bus)
    assert calls == [1, 1]
    assert bus.off("a", calls.append) is True
    assert bus.listener_count("a") == 0


def test_all_listeners_of_one_event_can_be_removed(bus: Bus) -> None:
    for event in ("a", "a", "b"):
        bus.on(event, print)
    bus.remove_all_listeners("a")
    assert bus.event_names() == ["b"]
    bus.remove_all_listeners()
    assert bus.event_names() == []


def test_an_error_listener_for_once_is_gone_afterwards(bus: Bus, calls: list[Any]) -> None:
    bus.once("error", calls.append)
    bus.emit("error", "first")
    with pytest.raises(RuntimeError, match="second"):
        bus.emit("error", "second")
    assert calls == ["first"]


def test_wildcards_do_not_hear_errors_of_the_bus(bus: Bus, calls: list[Any]) -> None:
    bus.on("#", calls.append)
    with pytest.raises(KeyError):
        bus.emit("error", KeyError("x"))
    assert calls == []


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 256, "\ud800"])
def test_what_is_no_event_name_is_refused(bus: Bus, wrong: str) -> None:
    for call in (lambda: bus.emit(wrong), lambda: bus.on(wrong, print)):
        with pytest.raises(ValueError, match=r"name|word|blanks|Unicode"):
            call()
    assert bus.event_names() == []


def test_an_emitted_wildcard_is_a_word(bus: Bus, calls: list[Any]) -> None:
    bus.on("order.created", lambda: calls.append("created"))
    assert bus.emit("order.*") is False
    handle(bus)
    assert calls == []
