"""A signal handler that raises between any two steps of the cffi binding loses no message, and no room.

Each call is made again and again; in the n-th try an exception is raised at the n-th step of the interpreter
inside the binding, as a handler's would be, until a try gets through.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

import ringpost
from ringpost import _binding
from ringpost.codecs import StandardCodec
from ringpost.errors import Empty

_cffi = pytest.importorskip("ringpost._binding._cffi", reason="no cffi here: pip install 'ringpost[cffi]'")

HERE = str(Path(_cffi.__file__).parent)
ENDING = str(Path(HERE, "ending.py"))  # finalizers: what they raise goes nowhere
RETURNS = {dis.opmap[name] for name in ("RETURN_VALUE", "RETURN_CONST") if name in dis.opmap}
LARGE = b"large" * 4000
CAPACITY = 128 << 10
WHOLE = bytes(CAPACITY // 2)
MOST = 5000  # steps; no call has as many


class Tick(Exception):
    """What the handler raises."""


class Ended(SimpleNamespace):
    """What the Tick that ended a call told; without its frames, which hold messages."""


class Clock:
    """Raises a Tick at one step of the binding's code. No handler runs where a function returns."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(HERE) or code.co_filename == ENDING:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and code.co_code[frame.f_lasti] not in RETURNS:
            self.left -= 1
            if self.left == 0:
                raise Tick
        return self


def trace_in_vain() -> None:
    """The first function that is traced by steps has none in CPython 3.12.1."""

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        (lambda: None)()
    finally:
        sys.settrace(before)


def at_each_step(prepare: Callable[[], object], call: Callable[[], Any]) -> Iterator[Any]:
    """What the call returned, or Ended: of try after try, until one gets through."""
    trace_in_vain()
    for step in range(1, MOST):
        prepare()
        clock = Clock(step)
        before = sys.gettrace()
        sys.settrace(clock)
        try:
            result = call()
        except Tick as tick:
            result = Ended(**vars(tick))
        finally:
            sys.settrace(before)
        yield result
        if clock.left > 0:
            assert step > 10
            return
    raise AssertionError(f"it has more than {MOST} steps")


@pytest.fixture
def log(shm_dir: Path) -> Iterator[Any]:
    binding: Any = _binding.load("cffi")
    path = str(shm_dir / "interrupts")
    yield binding.create(path, "a log", StandardCodec("a log"), capacity=CAPACITY)
    binding.remove(path)


def rest_of(log: Any) -> list[Any]:
    items = []
    while True:
        try:
            items.append(log.get(False))
        except Empty:
            return items


def check_nothing_is_in_use(log: Any) -> None:
    """No message, and no room: half of it is there for one message."""
    assert (log.size(), log.group().info()["in_flight"]) == (0, 0)
    log.put(WHOLE, False)
    assert log.get(False) == WHOLE


# ---- taking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"body", "text", LARGE], ids=["bytes", "text", "large"])
def test_get(log: Any, body: Any) -> None:
    for result in at_each_step(lambda: log.put(body), lambda: log.get(False)):
        assert body == (result if not isinstance(result, Ended) else log.get(False))
        assert rest_of(log) == []
    check_nothing_is_in_use(log)


def test_get_what_was_given_back(log: Any) -> None:
    group = log.group()

    def give_back() -> None:
        log.put(b"body")
        group.give_back(group.receive(1))

    for result in at_each_step(give_back, lambda: log.get(False)):
        assert (rest_of(log) if isinstance(result, Ended) else [result]) == [b"body"]
    check_nothing_is_in_use(log)


@pytest.mark.parametrize("last", [b"c", LARGE], ids=["small", "large"])
def test_get_many(log: Any, last: bytes) -> None:
    for result in at_each_step(lambda: log.put_many([b"a", b"b", last]), lambda: log.get_many(3, False)):
        if isinstance(result, Ended):
            result = [*getattr(result, "items", []), *getattr(result, "payloads", [])]
        assert [*result, *rest_of(log)] == [b"a", b"b", last]
    check_nothing_is_in_use(log)


@pytest.mark.parametrize("into", [deque(), set()], ids=["deque", "set"])
@pytest.mark.parametrize("last", [b"c", LARGE], ids=["small", "large"])
def test_receive(log: Any, into: Any, last: bytes) -> None:
    """They are all in `into`, or all in the log, in nobody's hands."""
    group, bodies = log.group(), [b"a", b"b", last]
    for _ in at_each_step(
        lambda: log.put_many(bodies), lambda: group.receive(3, 0, False, None, _cffi.Delivery, into)
    ):
        got = sorted(each.body for each in into)
        assert group.info()["in_flight"] == len(into)
        group.settle(into)
        into.clear()
        assert sorted([*got, *rest_of(log)]) == bodies
        check_nothing_is_in_use(log)


@pytest.mark.parametrize("last", [b"c", LARGE], ids=["small", "large"])
def test_take(log: Any, last: bytes) -> None:
    """They are in `into`, or come with the next call."""
    group, bodies, into = log.group(), [b"a", b"b", last], deque[Any]()
    for _ in at_each_step(
        lambda: log.put_many(bodies), lambda: group.take(3, False, None, _cffi.Delivery, into)
    ):
        while len(into) < 3:
            group.take(3, False, None, _cffi.Delivery, into)
        assert [each.body for each in into] == bodies
        into.clear()
        check_nothing_is_in_use(log)


def test_hand_out(log: Any) -> None:
    group, held = log.group(), set[Any]()
    log.put_many([b"a", b"b"])
    ahead = deque(group.receive(2))
    both = set(ahead)
    for _ in at_each_step(lambda: held.clear(), lambda: _cffi.hand_out(ahead, held)):
        assert {*ahead, *held} == both
        ahead.extend(held)
    group.settle(both)


# ---- putting -------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"body", LARGE], ids=["small", "large"])
def test_put(log: Any, body: bytes) -> None:
    """It is there once or not at all, and no room is lost."""
    for result in at_each_step(lambda: None, lambda: log.put(body)):
        assert rest_of(log) in ([[body]] if result is None else [[], [body]])
        check_nothing_is_in_use(log)


@pytest.mark.parametrize("last", [b"c", LARGE], ids=["small", "large"])
def test_put_many_tells_how_many_went_in(log: Any, last: bytes) -> None:
    items = [b"a", last, b"b"]
    for result in at_each_step(lambda: None, lambda: log.put_many(items)):
        done = getattr(result, "put", 0) if isinstance(result, Ended) else result
        assert rest_of(log) == items[:done]
        check_nothing_is_in_use(log)


def test_put_records_tells_how_many_went_in(log: Any) -> None:
    for result in at_each_step(lambda: None, lambda: log.put_records(9, b"", bytes(100 * 64), 64)):
        done = getattr(result, "put", 0) if isinstance(result, Ended) else result
        assert log.size() == done
        log.take_records(9, b"", bytearray(100 * 64), 64)
        check_nothing_is_in_use(log)


def test_a_loan(log: Any) -> None:
    def lend() -> None:
        loan = log.borrow(20_000, False)
        loan.buffer[:5] = b"array"
        loan.commit(0)

    for result in at_each_step(lambda: None, lend):
        got = rest_of(log)
        assert len(got) == 1 or (isinstance(result, Ended) and got == [])
        assert all(each[:5] == b"array" for each in got)
        check_nothing_is_in_use(log)


# ---- the collector of cycles ---------------------------------------------------------------------


def test_a_consumer_in_a_cycle_with_its_log_gives_its_messages_back(log: Any) -> None:
    """Its finalizer calls the native core, whatever the collector found first."""

    class Holder:
        def __init__(self) -> None:
            self.me = self
            self.log = _binding.load("cffi").attach(log.path, "another", StandardCodec("another"))
            self.group: Any = self.log.group()
            self.messages = self.group.receive(1)
            self.view = memoryview(self.messages[0].view())

        def __del__(self) -> None:
            seen.append(bytes(self.view[:5]))
            self.group.give_back(self.messages)

    seen: list[bytes] = []
    for _ in range(20):
        log.put(LARGE)
        Holder()
        gc.collect()
        assert log.get(False) == LARGE
    assert seen == [b"large"] * 20
    check_nothing_is_in_use(log)


def test_who_is_brought_back_by_a_finalizer_has_a_log(log: Any) -> None:
    class Phoenix:
        def __init__(self) -> None:
            self.me = self
            self.log = _binding.load("cffi").attach(log.path, "another", StandardCodec("another"))

        def __del__(self) -> None:
            back.append(self)

    back: list[Phoenix] = []
    Phoenix()
    gc.collect()
    gc.collect()
    back[0].log.put(b"still there")
    assert log.get(False) == b"still there"
    back[0].me = None  # type: ignore[assignment]
    back.clear()
    gc.collect()
    assert isinstance(log, ringpost._binding._cffi.Log)
