"""What comes back is what was put, of every size: as it is, or as the kind of queue promises."""

from __future__ import annotations

import array
import collections
import contextlib
import datetime
import decimal
import enum
import fractions
import math
import multiprocessing
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

import ringpost
from conformance.conftest import MakeQueue
from conformance.patience import BOUND

Queue = ringpost.Queue[Any]

INLINE_MOST = 16_384
CAPACITY = 4 << 20
LARGEST = CAPACITY // 2 - 256


@pytest.fixture
def roomy(make: MakeQueue) -> Queue:
    return make(capacity=CAPACITY)


@pytest.fixture
def named(binding: Any, broker: ringpost.Broker) -> Queue:
    return broker.queue("named", capacity=CAPACITY)


@pytest.fixture
def anonymous(binding: Any) -> Iterator[Queue]:
    with ringpost.Queue[Any](capacity=CAPACITY) as queue:
        yield queue


@pytest.fixture(scope="module")
def standard() -> Iterator[Any]:
    """The one whose answers an anonymous queue has to give."""
    queue = multiprocessing.get_context("fork").Queue()
    yield queue
    queue.close()
    queue.join_thread()


def through(queue: Any, item: object) -> Any:
    queue.put(item, timeout=BOUND)
    return queue.get(timeout=BOUND)


def same(got: object, expected: object) -> bool:
    """Of the same type and value, all the way down."""
    if type(got) is not type(expected):
        return False
    if isinstance(expected, float):
        return math.copysign(1, got) == math.copysign(1, expected) and (  # type: ignore[arg-type]
            got == expected or (math.isnan(got) and math.isnan(expected))  # type: ignore[arg-type]
        )
    if isinstance(expected, (list, tuple)):
        return len(got) == len(expected) and all(map(same, got, expected))  # type: ignore[arg-type]
    if isinstance(expected, dict):
        return same(list(got.items()), list(expected.items()))  # type: ignore[attr-defined]
    return got == expected


# ---- the same for both kinds ---------------------------------------------------------------------

PLAIN: dict[str, Any] = {
    "no bytes": b"",
    "bytes": b"\x00\xff\n",
    "no text": "",
    "ASCII": "plain",
    "a nul": "before\0after",
    "Latin": "crème brûlée",
    "Chinese": "队列",
    "beyond the first plane": "🐍𝄞",
    "None": None,
    "True": True,
    "False": False,
    "integers": [
        0,
        -1,
        127,
        128,
        255,
        256,
        -128,
        -129,
        2**31,
        2**32,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        2**64 - 1,
    ],
    "floats": [0.0, -0.0, 1.5, -1e308, 5e-324, math.inf, -math.inf, math.nan, math.pi],
    "nothing in a list": [],
    "nothing in a dict": {},
    "nested": {"a": [1, {"b": [None, [b"x", "y", [2.5]]]}], "c": {}},
    "keys in their order": {"z": 1, "a": 2, "m": 3},
    "keys of other types": {7: "seven", 2.5: "two and a half", None: "none", True: "true", b"b": "bytes"},
    "many": list(range(3000)),
    "deep": [[[[[[[[[[[[[[[[["bottom"]]]]]]]]]]]]]]]]],
}


@pytest.mark.parametrize("item", PLAIN.values(), ids=PLAIN)
def test_plain_items_come_back_as_they_were(queue: Queue, item: object) -> None:
    assert same(through(queue, item), item)
    queue.put_many([item, item])
    assert same(queue.get_many(), [item, item])


def sizes() -> list[int]:
    """Around every power of two, where small becomes large, and where frames are rounded up."""
    powers = {2**power + near for power in range(21) for near in (-1, 0, 1)}
    edge = set(range(INLINE_MOST - 130, INLINE_MOST + 20))
    return sorted(size for size in powers | edge | set(range(70)) | {LARGEST} if 0 <= size <= LARGEST)


def patterned(size: int) -> bytes:
    """No two stretches of it are the same, so that a part in the wrong place shows."""
    return b"".join(number.to_bytes(4, "little") for number in range(size // 4 + 1))[:size]


def test_bytes_of_every_size(roomy: Queue) -> None:
    for size in sizes():
        item = patterned(size)
        assert through(roomy, item) == item, size


@pytest.mark.parametrize("letter", ["x", "é", "队"])
def test_text_of_every_size(roomy: Queue, letter: str) -> None:
    width = len(letter.encode())
    for size in sizes():
        item = letter * (size // width) + "." * (size % width)
        assert through(roomy, item) == item, size


def test_lists_of_every_size(roomy: Queue) -> None:
    for size in sizes():
        item = [size, patterned(size)][: 1 + (size < LARGEST)]
        assert through(roomy, item) == item, size


def test_sizes_in_batches(roomy: Queue) -> None:
    items = [patterned(size) for size in sizes() if size <= 2 * INLINE_MOST]
    for start in range(0, len(items), 20):
        batch = items[start : start + 20]
        roomy.put_many(batch, timeout=BOUND)
        taken: list[bytes] = []
        while len(taken) < len(batch):
            taken += roomy.get_many(timeout=BOUND)
        assert taken == batch


@pytest.mark.parametrize("size", [CAPACITY // 2 + 8192, CAPACITY, 2 * CAPACITY])
def test_what_can_never_fit_is_refused_at_once(roomy: Queue, size: int) -> None:
    with pytest.raises(ringpost.MessageTooLarge):
        roomy.put(bytes(size))
    assert roomy.empty()
    assert through(roomy, b"and it goes on") == b"and it goes on"


@pytest.mark.parametrize("kind_of_item", [list, set, bytearray])
def test_later_changes_do_not_show(queue: Queue, kind_of_item: Any) -> None:
    item = kind_of_item([1])
    queue.put(item)
    queue.put_many([item])
    item.clear()
    assert [len(queue.get()), len(queue.get())] == [1, 1]


def test_what_comes_back_is_nobody_elses(queue: Queue) -> None:
    item = {"key": [1]}
    queue.put_many([item, item])
    first, second = queue.get_many()
    assert first is not item
    first["key"].append(2)
    assert (second, item) == ({"key": [1]}, {"key": [1]})


# ---- named: MessagePack --------------------------------------------------------------------------

MOMENT = datetime.datetime(2024, 2, 29, 23, 59, 59, 999_999, datetime.timezone.utc)
IDENTITY = uuid.UUID(int=7)

TRANSLATED: dict[str, tuple[Any, Any]] = {
    "bytearray": (bytearray(b"abc"), b"abc"),
    "memoryview": (memoryview(b"abcdef")[1:4], b"bcd"),
    "memoryview with gaps": (memoryview(b"abcdef")[::2], b"ace"),
    "array": (array.array("B", [1, 2]), b"\x01\x02"),
    "tuple": ((1, (2, 3)), [1, [2, 3]]),
    "set": ({1}, [1]),
    "frozenset": (frozenset({1}), [1]),
    "a moment": (MOMENT, MOMENT),
    "UUID": (IDENTITY, str(IDENTITY)),
    "numpy number": ([numpy.float64(1.5), numpy.int32(-7)], [1.5, -7]),
}


@pytest.mark.parametrize(("item", "expected"), TRANSLATED.values(), ids=TRANSLATED)
def test_named_queues_speak_messagepack(named: Queue, item: object, expected: object) -> None:
    assert same(through(named, item), expected)
    named.put_many([item])
    assert same(named.get_many(), [expected])


UNSPEAKABLE: dict[str, Any] = {
    "class": int,
    "function": len,
    "exception": ValueError("x"),
    "complex": 1j,
    "a larger integer": 2**64,
    "a smaller integer": -(2**63) - 1,
    "range": range(3),
    "object": object(),
    "half a surrogate": "\ud800",
    "one of them inside": {"key": [1, object()]},
    "array of objects": numpy.array([object()]),
}


@pytest.mark.parametrize("item", UNSPEAKABLE.values(), ids=UNSPEAKABLE)
def test_named_queues_refuse_what_they_cannot_speak(named: Queue, item: object) -> None:
    with pytest.raises(ringpost.EncodeError):
        named.put(item)
    with pytest.raises(TypeError):
        named.put_many([item])
    assert named.empty()


# ---- anonymous: as multiprocessing.Queue ---------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


class Thing:
    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is Thing and same(other.value, self.value)

    __hash__ = None  # type: ignore[assignment]


class Words(str):
    __slots__ = ()


class Octets(bytes):
    __slots__ = ()


PICKLED: dict[str, Any] = {
    **PLAIN,
    "tuple": (1, (2, [3]), ()),
    "set": {1, "two", (3,)},
    "frozenset": frozenset({1}),
    "huge integer": -(3**5000),
    "complex": 1 - 2j,
    "range": range(3, 0, -1),
    "Ellipsis": ...,
    "NotImplemented": NotImplemented,
    "slice": slice(1, 2, 3),
    "bytearray": bytearray(b"abc"),
    "array": array.array("d", [1.5, 2.5]),
    "half a surrogate": "\ud800",
    "class": Thing,
    "built-in type": int,
    "function": through,
    "built-in function": len,
    "enum": Colour.RED,
    "namedtuple": Point(1, (2,)),
    "object": Thing([1, (2, {3})]),
    "subclass of str": Words("words"),
    "subclass of bytes": Octets(b"octets"),
    "moment": MOMENT,
    "decimal": decimal.Decimal("1.10"),
    "fraction": fractions.Fraction(1, 3),
    "path": pathlib.PurePosixPath("/a/b"),
    "UUID": IDENTITY,
    "ordered dict": collections.OrderedDict(b=1, a=2),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], maxlen=5),
    "numpy number": numpy.float32(1.5),
}


@pytest.mark.parametrize("item", PICKLED.values(), ids=PICKLED)
def test_anonymous_queues_return_what_multiprocessing_does(
    anonymous: Queue, standard: Any, item: object
) -> None:
    expected = through(standard, item)
    got = through(anonymous, item)
    assert same(got, expected)
    assert same(got, item)
    anonymous.put_many([item, item])
    assert same(anonymous.get_many(), [expected, expected])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        OSError(2, "none", "file"),
        ringpost.EncodeError("e"),
        StopIteration(3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions(anonymous: Queue, standard: Any, error: Exception) -> None:
    expected = through(standard, error)
    got = through(anonymous, error)
    assert type(got) is type(expected) is type(error)
    assert got.args == expected.args == error.args
    assert str(got) == str(error)


def test_what_is_one_object_stays_one(anonymous: Queue) -> None:
    inner: list[object] = []
    first, second = through(anonymous, [inner, inner])
    assert first is second
    inner.append(inner)
    loop = through(anonymous, inner)
    assert loop[0] is loop


def test_connections_travel(anonymous: Queue) -> None:
    here, there = multiprocessing.get_context("fork").Pipe()
    with here, there, contextlib.closing(through(anonymous, there)) as same_one:
        here.send("through the pipe")
        assert same_one.poll(BOUND)
        assert same_one.recv() == "through the pipe"
    multiprocessing.resource_sharer.stop(timeout=BOUND)  # type: ignore[attr-defined]


def test_what_cannot_be_pickled_fails_in_the_caller(anonymous: Queue) -> None:
    def local() -> None: ...

    class Stubborn:
        def __reduce__(self) -> str:
            raise ZeroDivisionError

    for item in (local, Stubborn(), [Stubborn()], (number for number in ())):
        with pytest.raises(ringpost.EncodeError):
            anonymous.put(item)
        assert anonymous.empty()
        assert through(anonymous, (1,)) == (1,)


# ---- arrays --------------------------------------------------------------------------------------

RECORD = numpy.dtype([("id", "<i8"), ("name", "S5"), ("position", "<f4", (2,))])

ARRAYS: dict[str, Any] = {
    "numbers": numpy.arange(12.0),
    "two dimensions": numpy.arange(12, dtype="i2").reshape(3, 4),
    "columns first": numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
    "with gaps": numpy.arange(24).reshape(4, 6)[::2, 1::2],
    "backwards": numpy.arange(5)[::-1],
    "no dimension": numpy.array(7),
    "empty": numpy.zeros((0, 3)),
    "big endian": numpy.arange(3, dtype=">u4"),
    "truth": numpy.array([True, False]),
    "text": numpy.array(["a", "bcd"]),
    "moments": numpy.array(["2024-02-29"], dtype="datetime64[D]"),
    "complex": numpy.array([1j, 2]),
    "records": numpy.array([(1, b"one", (1, 2)), (2, b"two", (3, 4))], RECORD),
    "just small": numpy.arange(INLINE_MOST - 512, dtype="u1"),
    "just large": numpy.arange(INLINE_MOST, dtype="u1"),
    "large": numpy.arange(100_000, dtype="i8"),
}


def same_array(got: Any, expected: Any) -> bool:
    return (
        type(got) is type(expected) is numpy.ndarray
        and (got.dtype, got.shape) == (expected.dtype, expected.shape)
        and bool((got == expected).all())
    )


@pytest.mark.parametrize("item", ARRAYS.values(), ids=ARRAYS)
def test_arrays_come_back_as_they_were(roomy: Queue, kind: str, item: Any) -> None:
    got = through(roomy, item)
    assert same_array(got, item)
    assert got.flags.writeable == (kind == "anonymous")
    roomy.put_many([item, item])
    taken = roomy.get_many(timeout=BOUND)
    while len(taken) < 2:
        taken += roomy.get_many(timeout=BOUND)
    assert same_array(taken[0], item)
    assert same_array(taken[1], item)


@pytest.mark.parametrize("item", ARRAYS.values(), ids=ARRAYS)
def test_anonymous_queues_return_the_arrays_of_multiprocessing(
    anonymous: Queue, standard: Any, item: Any
) -> None:
    got, expected = through(anonymous, item), through(standard, item)
    # up to Python 3.13 multiprocessing's older pickles swap the bytes of foreign byte orders; ours keep them
    assert same_array(got, expected.astype(item.dtype))
    assert (got.flags.writeable, got.strides) == (expected.flags.writeable, expected.strides)


def test_arrays_inside_other_items(roomy: Queue) -> None:
    array = numpy.arange(6).reshape(2, 3)
    got = through(roomy, {"array": array, "others": [array[0]]})
    assert same_array(got["array"], array)
    assert same_array(got["others"][0], array[0])


def test_an_array_outlives_the_queue(roomy: Queue) -> None:
    """What came back is not a view of shared memory."""
    got = through(roomy, numpy.arange(50_000))
    for _ in range(3):
        through(roomy, bytes(LARGEST))
    roomy.close()
    assert same_array(got, numpy.arange(50_000))
