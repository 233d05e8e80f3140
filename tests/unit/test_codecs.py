"""What goes into a queue comes out as the documentation says."""

from __future__ import annotations

import array
import collections
import ctypes
import dataclasses
import datetime
import decimal
import enum
import mmap
import pickle
import uuid

import msgspec
import pytest

import ringpost
from ringpost.codecs import Kind
from unit.raw import raw_handle

BATCHES_OF_ONE = ("one", "many")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    pass


class Octets(bytes):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Order(msgspec.Struct):
    number: int
    tags: list[str]


class TaggedOrder(msgspec.Struct, tag="order"):
    number: int


Pair = collections.namedtuple("Pair", "left right")


class Six(ctypes.Structure):
    _fields_ = [("first", ctypes.c_short), ("rest", ctypes.c_ubyte * 4)]


def mapped(data: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456)
NOON_UTC = NOON.replace(tzinfo=datetime.timezone.utc)
SOME_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.fixture(params=BATCHES_OF_ONE)
def there_and_back(request: pytest.FixtureRequest, queue: ringpost.Queue[object]):
    """Through put() and get(), and through put_many() and get_many(): they encode in different places."""

    def one(item: object) -> object:
        queue.put(item)
        return queue.get_nowait()

    def many(item: object) -> object:
        assert queue.put_many([item]) == 1
        (back,) = queue.get_many()
        return back

    return one if request.param == "one" else many


def same(back: object, expected: object) -> bool:
    return type(back) is type(expected) and back == expected


@pytest.mark.parametrize(
    "item",
    [
        b"",
        b"\0\xff",
        bytes(range(256)) * 100,
        "",
        "ascii",
        "nul \0 inside",
        "grüße \N{SNOWMAN} \U0001f600",
        "é" * 20_000,
        None,
        True,
        False,
        0,
        -1,
        2**64 - 1,
        -(2**63),
        0.0,
        -0.5,
        float("inf"),
        [],
        {},
        {"nested": [{"deep": [1, [2, [3, [b"bytes", None]]]]}]},
        {1: "integer key", "text": 2, None: 3},
        {(1, 2): "tuple key"},
        list(range(10_000)),
        NOON_UTC,
    ],
    ids=lambda item: f"{type(item).__name__}-{str(item)[:15]!a}",
)
def test_comes_back_the_same(there_and_back, item: object) -> None:
    assert same(there_and_back(item), item)


def test_not_a_number_stays_one(there_and_back) -> None:
    back = there_and_back(float("nan"))
    assert back != back


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((1, (2, ())), [1, [2, []]]),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        (Pair(1, 2), [1, 2]),
        ({7}, [7]),
        (frozenset({7}), [7]),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Order(5, ["x"]), {"number": 5, "tags": ["x"]}),
        (TaggedOrder(5), {"type": "order", "number": 5}),
        ([Point(1, 2), Order(5, [])], [{"x": 1, "y": 2}, {"number": 5, "tags": []}]),
        (SOME_UUID, str(SOME_UUID)),
        (decimal.Decimal("1.50"), "1.50"),
        (NOON, NOON.isoformat()),
        (NOON.date(), "2024-02-29"),
        (NOON.time(), NOON.time().isoformat()),
        (datetime.timedelta(hours=1), "PT3600S"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Name("name"), "name"),
        (Octets(b"octets"), b"octets"),
        ([bytearray(b"a"), memoryview(b"b")], [b"a", b"b"]),
        (msgspec.msgpack.Ext(42, b"data"), msgspec.msgpack.Ext(42, b"data")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_comes_back_as_messagepack_has_it(there_and_back, item: object, expected: object) -> None:
    assert same(there_and_back(item), expected)


@pytest.mark.parametrize(
    "item",
    [
        bytearray(b"abcdef"),
        memoryview(b"abcdef"),
        memoryview(b"a.b.c.d.e.f")[::2],
        memoryview(b"fedcba")[::-1],
        memoryview(b"abcdef").cast("B", (2, 3)),
        memoryview(b"abcdef").cast("H"),
        memoryview(array.array("B", b"abcdef")),
        array.array("B", b"abcdef"),
        array.array("H", b"abcdef"),
        (ctypes.c_short * 3).from_buffer_copy(b"abcdef"),
        Six.from_buffer_copy(b"abcdef"),
        mapped(b"abcdef"),
        pickle.PickleBuffer(b"abcdef"),
    ],
    ids=[
        "bytearray",
        "memoryview",
        "every-second",
        "backwards",
        "two-dimensional",
        "shorts",
        "of-array",
        "array",
        "array-of-shorts",
        "ctypes-array",
        "ctypes-structure",
        "mmap",
        "pickle-buffer",
    ],
)
def test_bytes_likes_come_back_as_bytes(there_and_back, item: object) -> None:
    assert same(there_and_back(item), b"abcdef")


def test_items_of_a_memoryview_keep_their_width(there_and_back) -> None:
    numbers = array.array("d", [1.5, -2.5, 3.5])
    assert there_and_back(memoryview(numbers)[::2]) == numbers[::2].tobytes()


def test_empty_bytes_likes(there_and_back) -> None:
    for item in (bytearray(), memoryview(b""), memoryview(b"abc")[3:]):
        assert same(there_and_back(item), b"")


def test_a_bytearray_may_change_after_the_put(queue: ringpost.Queue[object]) -> None:
    small, large = bytearray(b"before"), bytearray(b"b" * 50_000)
    queue.put(small)
    queue.put(large)
    for item in (small, large):
        item[:] = b""  # would raise BufferError if the queue still held it
    assert queue.get() == b"before"
    assert queue.get() == b"b" * 50_000


@pytest.mark.parametrize(
    ("item", "seen_raw"),
    [
        (b"x", b"x"),
        (bytearray(b"x"), b"x"),
        ("x", "x"),
        ("é", "é"),
        (Name("x"), "x"),
        ({"x": 1}, (Kind.MSGPACK, b"\x81\xa1x\x01")),
        (None, (Kind.MSGPACK, b"\xc0")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_kind_in_the_frame(queue: ringpost.Queue[object], item: object, seen_raw: object) -> None:
    """A binding decodes bytes and text by itself, and shows its codec the kind of everything else."""
    queue.put(item)
    assert same(raw_handle(queue).get_nowait(), seen_raw)


def test_kinds_are_never_renumbered() -> None:
    assert {kind.name: kind.value for kind in Kind} == {
        "BYTES": 0,
        "TEXT": 1,
        "MSGPACK": 2,
        "NDARRAY": 3,
        "PICKLE": 4,
        "OWN": 5,
        "RECORD": 6,
        "PICKLE_BUFFERS": 7,
    }


def test_messages_of_every_kind_keep_their_order(queue: ringpost.Queue[object]) -> None:
    items = [b"bytes", "text", "tëxt", {"a": 1}, bytes(40_000), 5, None, ["x" * 30_000]] * 3
    assert queue.put_many(items) == len(items)
    assert [queue.get_nowait() for _ in items] == items
