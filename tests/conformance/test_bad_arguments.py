"""Arguments that make no sense: an exception, never a crash, and the log goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest

import ringpost
from conformance.patience import BOUND
from ringpost._binding import _MODULES
from ringpost.codecs import PickleCodec

Queue = ringpost.Queue[Any]

CODEC = PickleCodec("a log")


@pytest.fixture
def place(shm_dir: Path) -> Iterator[Path]:
    place = shm_dir / "bad-arguments"
    place.mkdir(mode=0o700)
    yield place
    place.rmdir()


# ---- paths ---------------------------------------------------------------------------------------

PATHS: dict[str, Any] = {"None": None, "bytes": b"/dev/shm/x", "int": 5, "Path": Path("/dev/shm/x")}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("call", ["create", "attach", "remove", "collect"])
def test_a_path_is_a_str(binding: Any, call: str, path: Any) -> None:
    arguments = (path, "a log", CODEC) if call in ("create", "attach") else (path,)
    with pytest.raises(TypeError):
        getattr(binding, call)(*arguments)


@pytest.mark.parametrize("call", ["create", "attach", "remove", "collect"])
def test_a_path_has_no_nul(binding: Any, place: Path, call: str) -> None:
    """Cut off at the nul it would be another file."""
    victim = place / "other"
    log = binding.create(str(victim), "a log", CODEC, capacity=128 << 10)
    try:
        arguments = (f"{victim}\0x", "a log", CODEC) if call in ("create", "attach") else (f"{victim}\0x",)
        with pytest.raises(ValueError, match="null"):
            getattr(binding, call)(*arguments)
        assert victim.exists()
        log.put("still there")
        assert log.get() == "still there"
    finally:
        victim.unlink(missing_ok=True)


@pytest.mark.parametrize("path", ["", "/", ".", "/nowhere/at/all", "/dev/null", "/dev/shm", "/x" * 3000])
def test_paths_where_no_log_can_be(binding: Any, path: str) -> None:
    for arguments in ((binding.create, path, "a log", CODEC), (binding.attach, path, "a log", CODEC)):
        call, *rest = arguments
        with pytest.raises((OSError, ringpost.RingpostError)):
            call(*rest)


def test_there_is_nothing_to_remove(binding: Any, place: Path) -> None:
    assert binding.remove(str(place / "none")) is False
    assert binding.collect(str(place / "none")) is False


# ---- labels and codecs ---------------------------------------------------------------------------


@pytest.mark.parametrize("label", [b"bytes", 5], ids=repr)
def test_a_label_is_a_str(binding: Any, place: Path, label: Any) -> None:
    with pytest.raises(TypeError):
        binding.create(str(place / "log"), label, CODEC)


def test_a_codec_that_is_none(binding: Any, place: Path) -> None:
    log = binding.create(str(place / "log"), "a log", object(), capacity=128 << 10)
    with pytest.raises(AttributeError):
        log.put([])
    log.put("text needs none")
    assert log.get() == "text needs none"
    binding.remove(log.path)


# ---- timeouts, limits ----------------------------------------------------------------------------

CALLS: dict[str, Callable[[Queue, Any], object]] = {
    "put": lambda queue, timeout: queue.put("x", timeout=timeout),
    "put_many": lambda queue, timeout: queue.put_many(["x"], timeout=timeout),
    "get": lambda queue, timeout: queue.get(timeout=timeout),
    "get_many": lambda queue, timeout: queue.get_many(timeout=timeout),
    "join": lambda queue, timeout: queue.join(timeout),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class Naughty:
    def __float__(self) -> float:
        raise ZeroDivisionError


@every_call
@pytest.mark.parametrize("timeout", ["1", b"1", [1], object(), 1j], ids=lambda t: type(t).__name__)
def test_a_timeout_is_a_number(queue: Queue, call: Callable[..., object], timeout: Any) -> None:
    queue.put("x")
    with pytest.raises(TypeError):
        call(queue, timeout)
    assert queue.qsize() == 1


@every_call
@pytest.mark.parametrize("timeout", [-1, -1e-9, float("-inf"), float("nan"), -(10**30), Fraction(-1)])
def test_a_timeout_is_not_negative(queue: Queue, call: Callable[..., object], timeout: Any) -> None:
    queue.put("x")
    with pytest.raises(ValueError, match="non-negative"):
        call(queue, timeout)
    assert queue.qsize() == 1


@every_call
@pytest.mark.parametrize(
    "timeout",
    [
        1,
        True,
        1e-9,
        1e300,
        float("inf"),
        10**30,
        Fraction(1, 2),
        Decimal("0.5"),
        numpy.float32(1),
        numpy.int64(1),
    ],
    ids=repr,
)
def test_any_other_number_will_do(queue: Queue, call: Callable[..., object], timeout: Any) -> None:
    if call is not CALLS["join"]:
        queue.put("x")
    call(queue, timeout)


@every_call
def test_a_timeout_that_fails_is_heard(queue: Queue, call: Callable[..., object]) -> None:
    queue.put("x")
    with pytest.raises(ZeroDivisionError):
        call(queue, Naughty())
    assert queue.qsize() == 1


@pytest.mark.parametrize("limit", [True, 2.0, numpy.int64(2)], ids=repr)
def test_a_limit_is_any_number(queue: Queue, limit: Any) -> None:
    queue.put_many("abc")
    assert queue.get_many(limit) == list("abc")[: int(limit)]


class Undecided:
    def __bool__(self) -> bool:
        raise ZeroDivisionError


def test_block_is_a_truth(queue: Queue) -> None:
    queue.put("x", 1)  # type: ignore[arg-type]
    queue.put("y", [])  # type: ignore[arg-type]
    assert queue.get("yes") == "x"  # type: ignore[arg-type]
    assert queue.get(None) == "y"  # type: ignore[arg-type]
    for call in (lambda block: queue.put("x", block), queue.get, lambda block: queue.get_many(1, block)):
        with pytest.raises(ZeroDivisionError):
            call(Undecided())
    assert queue.empty()


def test_names_that_are_not_there(queue: Queue) -> None:
    for call in (queue.put, queue.get, queue.put_many, queue.get_many):
        with pytest.raises(TypeError):
            call(unheard_of=1)  # type: ignore[call-arg]
    assert queue.empty()


# ---- a log that nobody opened --------------------------------------------------------------------

BARE = """
import importlib, sys
log_type = importlib.import_module(sys.argv[1]).Log
arguments = {"put": ["x"], "put_nowait": ["x"], "put_many": [["x"]]}
try:
    log = log_type()
except TypeError:
    sys.exit()
try:
    getattr(log, sys.argv[2])(*arguments.get(sys.argv[2], []))
except Exception:
    pass
"""


@pytest.mark.parametrize(
    "call", ["put", "get_nowait", "put_many", "size", "full", "info", "task_done", "close", "leave"]
)
def test_a_log_made_by_hand_does_not_crash(binding: Any, call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARE, _MODULES[binding.NAME], call],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr}"
