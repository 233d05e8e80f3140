"""Event buses: Node's EventEmitter between processes."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, Call, eventually

Bus = ringpost.EventBus


@pytest.fixture
def bus(binding: Any, broker: ringpost.Broker) -> Bus:
    with broker.events("app") as bus:
        yield bus


def run(bus: Bus, seconds: float = 0.3) -> None:
    """The loop, for so long or until stop()."""
    bus.run(timeout=seconds)


# ---- listening ----------------------------------------------------------------------------------


def test_a_handler_gets_what_was_emitted(bus: Bus) -> None:
    calls: list[Any] = []

    def handler(*args: Any, **kwargs: Any) -> None:
        calls.append((args, kwargs))
        bus.stop()

    bus.on("order.created", handler)
    assert bus.emit("order.created", {"id": 7}, "x", urgent=True) is True
    run(bus, BOUND)
    assert calls == [(({"id": 7}, "x"), {"urgent": True})]


def test_a_bus_that_pickles_is_understood_by_one_that_does_not(bus: Bus, broker: ringpost.Broker) -> None:
    """As far as arguments need no pickle."""
    calls: list[Any] = []
    bus.on("#", lambda *args: calls.append(args))
    bus.on("#", bus.stop)
    with broker.events("app", pickle=True) as trusting:
        trusting.on("tuple", lambda *args: (calls.append(args), trusting.stop()))
        trusting.emit("plain", 1, {"a": "x"})
        run(bus, BOUND)
        trusting.emit("tuple", (1, {2}))
        run(trusting, BOUND)
    assert calls == [(1, {"a": "x"}), ((1, {2}),)]


def test_as_a_decorator_the_function_stays_what_it_is(bus: Bus) -> None:
    @bus.on("a")
    def handler() -> str:
        return "itself"

    assert handler() == "itself"
    assert bus.listeners("a") == [handler]


def test_handlers_are_called_in_order_and_prepended_ones_first(bus: Bus) -> None:
    calls: list[str] = []
    bus.on("a", lambda: calls.append("first"))
    bus.add_listener("a", lambda: calls.append("second"))
    bus.prepend_listener("a", lambda: calls.append("before"))
    bus.on("a", bus.stop)
    bus.emit("a")
    run(bus, BOUND)
    assert calls == ["before", "first", "second"]


def test_once_is_once(bus: Bus) -> None:
    calls: list[int] = []
    bus.once("a", calls.append)

    @bus.once("a")
    def also(number: int) -> None:
        calls.append(-number)

    for number in (1, 2, 3):
        bus.emit("a", number)
    bus.on("end", bus.stop)
    bus.emit("end")
    run(bus, BOUND)
    assert calls == [1, -1]
    assert bus.listeners("a") == []


def test_off_takes_one_or_all(bus: Bus) -> None:
    one, other = (lambda: None), (lambda: None)
    bus.on("a", one)
    bus.on("a", other)
    assert bus.off("a", one) is True
    assert bus.off("a", one) is False
    assert bus.listeners("a") == [other]
    assert bus.remove_listener("a") is True
    assert bus.event_names() == []
    bus.on("b", one)
    bus.remove_all_listeners()
    assert bus.emit("b") is False


def test_wildcards(bus: Bus) -> None:
    calls: list[str] = []

    @bus.on("order.*")
    def star(event: ringpost.Event) -> None:
        calls.append(f"star {event.name}")

    @bus.on("#.created")
    def ends(event: ringpost.Event) -> None:
        calls.append(f"ends {event.name} {event.data}")

    bus.on("end", lambda _: bus.stop())
    for name in ("order.created", "order.line.created", "order", "order.paid", "end"):
        bus.emit(name, 1)
    run(bus, BOUND)
    assert calls == [
        "star order.created",
        "ends order.created 1",
        "ends order.line.created 1",
        "star order.paid",
    ]


def test_an_event_says_all(bus: Bus) -> None:
    events: list[ringpost.Event] = []

    @bus.on("a")
    def handler(event: ringpost.Event) -> None:
        events.append(event)
        bus.stop()

    bus.emit("a", 1, 2, x=3)
    run(bus, BOUND)
    (event,) = events
    assert (event.name, event.args, event.kwargs, event.data) == ("a", (1, 2), {"x": 3}, (1, 2))
    assert event.message.subject == "a"


def test_asking_who_listens(bus: Bus, broker: ringpost.Broker) -> None:
    bus.on("a", print)
    bus.on("a.*", print)
    assert bus.event_names() == ["a", "a.*"]
    assert bus.listener_count("a.b") == 1
    assert bus.listener_count("b") == 0
    with broker.events("app") as other:
        assert other.event_names() == []
        assert other.is_heard("a.b")
        assert not other.is_heard("b")
        assert other.emit("b") is False
        assert other.emit("a") is True


def test_new_listeners_are_announced(bus: Bus) -> None:
    seen: list[Any] = []
    bus.on("new_listener", lambda event, handler: seen.append((event, handler)))
    bus.on("a", print)
    assert seen == [("a", print)]
    assert bus.emit("new_listener", "b", None) is True
    assert seen[-1] == ("b", None)


def test_what_is_no_handler_or_no_name_is_refused(bus: Bus) -> None:
    with pytest.raises(TypeError, match="callable"):
        bus.on("a", 7)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="blanks"):
        bus.on("a b", print)
    with pytest.raises(ValueError, match="blanks"):
        bus.emit("a b")


def test_more_patterns_than_fit_are_heard_too(bus: Bus) -> None:
    calls: list[str] = []
    for number in range(60):
        bus.on(f"event.number.{number}.of.many", lambda n=number: calls.append(n))
    bus.on("end", bus.stop)
    for number in (0, 30, 59):
        bus.emit(f"event.number.{number}.of.many")
    bus.emit("end")
    run(bus, BOUND)
    assert calls == [0, 30, 59]


# ---- errors -------------------------------------------------------------------------------------


def test_an_error_nobody_listens_to_is_raised(bus: Bus) -> None:
    with pytest.raises(ZeroDivisionError):
        bus.emit("error", ZeroDivisionError("x"))
    with pytest.raises(RuntimeError, match="unhandled"):
        bus.emit("error", "text")


def test_an_error_somebody_listens_to_is_told(bus: Bus) -> None:
    errors: list[Any] = []
    bus.on("error", errors.append)
    failure = ZeroDivisionError("x")
    assert bus.emit("error", failure) is True
    assert errors == [failure]


def test_a_failing_handler_stops_nothing(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[str] = []

    @bus.on("a")
    def fails() -> None:
        raise ZeroDivisionError("in a handler")

    bus.on("a", lambda: calls.append("after"))
    bus.on("end", bus.stop)
    bus.emit("a")
    bus.emit("end")
    run(bus, BOUND)
    assert calls == ["after"]
    assert "nobody listens to 'error'" in caplog.text
    errors: list[BaseException] = []
    bus.on("error", errors.append)
    bus.emit("a")
    bus.emit("end")
    run(bus, BOUND)
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_wrong_arguments_are_an_error_too(bus: Bus) -> None:
    errors: list[BaseException] = []
    bus.on("error", errors.append)
    bus.on("a", lambda one: None)
    bus.on("end", bus.stop)
    bus.emit("a", 1, 2)
    bus.emit("end")
    run(bus, BOUND)
    assert [type(error) for error in errors] == [TypeError]


# ---- loops --------------------------------------------------------------------------------------


def test_a_thread_runs_the_loop(bus: Bus) -> None:
    heard = threading.Event()
    bus.on("a", heard.set)
    thread = bus.run_in_thread()
    bus.emit("a")
    assert heard.wait(BOUND)
    bus.stop()
    assert not thread.is_alive()


def test_listeners_may_come_and_go_while_the_loop_runs(bus: Bus) -> None:
    calls: list[int] = []
    thread = bus.run_in_thread()
    for number in range(5):
        bus.on(f"event.{number}", lambda n=number: calls.append(n))
        assert bus.emit(f"event.{number}") is True
        eventually(lambda n=number: calls[-1:] == [n])
        bus.off(f"event.{number}")
        assert bus.emit(f"event.{number}") is False
    bus.stop()
    assert not thread.is_alive()
    assert calls == list(range(5))


def test_the_loop_ends_at_its_timeout(bus: Bus) -> None:
    bus.on("never", print)
    Call(bus.run, 0.1).result()


def test_coroutine_functions_are_handlers(bus: Bus) -> None:
    calls: list[str] = []

    @bus.on("a")
    async def handler(name: str) -> None:
        await asyncio.sleep(0)
        calls.append(name)

    @bus.on("a")
    async def fails(name: str) -> None:
        raise ZeroDivisionError(name)

    errors: list[BaseException] = []
    bus.on("error", errors.append)
    bus.on("end", bus.stop)
    bus.emit("a", "x")
    bus.emit("end")
    run(bus, BOUND)
    assert (calls, [str(each) for each in errors]) == (["x"], ["x"])


def test_inside_asyncio_coroutines_run_side_by_side(bus: Bus) -> None:
    order: list[str] = []

    async def main() -> None:
        both = asyncio.Barrier(2) if hasattr(asyncio, "Barrier") else None

        @bus.on("a")
        async def handler(name: str) -> None:
            if both is not None:
                await both.wait()
            order.append(name)
            if len(order) == 2:
                bus.stop()

        bus.emit("a", "x")
        bus.emit("a", "y")
        await asyncio.wait_for(bus.run_async(), BOUND)

    asyncio.run(main())
    assert sorted(order) == ["x", "y"]


def test_the_loop_ends_when_the_bus_is_deleted(binding: Any, broker: ringpost.Broker) -> None:
    bus = broker.events("gone")
    bus.on("a", print)
    call = Call(bus.run)
    assert call.is_blocked()
    broker.destroy()
    call.result()


# ---- between processes --------------------------------------------------------------------------


def report_one(url: str, report: ringpost.Queue[Any], number: int) -> None:
    bus = ringpost.connect(url).events("app")

    @bus.on("order.*")
    def handler(event: ringpost.Event) -> None:
        report.put([number, event.name])
        bus.stop()

    bus.run(timeout=BOUND)


def test_every_process_hears_it(bus: Bus, broker: ringpost.Broker) -> None:
    report = broker.queue("report")
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            try:
                report_one(broker.url, report, number)
            finally:
                os._exit(0)
        children.append(child)
    bus._topic.wait_for_subscribers(3, timeout=BOUND)
    assert bus.emit("order.created", 1) is True
    assert sorted(report.get(timeout=BOUND) for _ in range(3)) == [[n, "order.created"] for n in range(3)]
    for child in children:
        os.waitpid(child, 0)


def test_the_dead_are_not_waited_for(bus: Bus, broker: ringpost.Broker) -> None:
    child = os.fork()
    if child == 0:
        mine = ringpost.connect(broker.url).events("app")
        mine.on("a", print)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    for _ in range(2000):
        bus.emit("a", bytes(10_000), timeout=BOUND)
