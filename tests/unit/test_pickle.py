"""Pickled messages: exactly multiprocessing's pickles, and only where both sides opted in."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import enum
import mmap
import multiprocessing
import os
import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

import msgspec
import numpy
import pytest

import ringpost
from ringpost.codecs import Kind, PickleCodec, StandardCodec

CODEC = PickleCodec("a queue")


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is Point and other.x == self.x

    __hash__ = None


SHARED = [1, 2]

ITEMS = {
    "none": None,
    "true": True,
    "int": 5,
    "huge int": 10**400,
    "float": 0.1,
    "infinity": float("inf"),
    "bytes": b"x" * 300,
    "large bytes": b"x" * 100_000,
    "bytearray": bytearray(b"x"),
    "text": "grüße",
    "surrogate": "\ud800",
    "tuple": (1, (2, ())),
    "set": {1, 2},
    "frozenset": frozenset({1}),
    "complex": 1j,
    "range": range(5),
    "object": Point(3),
    "class": Point,
    "function": os.path.join,
    "shared parts": [SHARED, SHARED],
    "many parts": [{"n": n, "text": str(n)} for n in range(5_000)],
    "exception": KeyError("x"),
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
def test_the_body_is_what_multiprocessing_would_send(item: object) -> None:
    """Twice: a pickler that is used again must not remember."""
    expected = bytes(ForkingPickler.dumps(item, pickle.HIGHEST_PROTOCOL))
    for _ in range(2):
        kind, body = CODEC.encode(item)
        assert kind == Kind.PICKLE
        assert bytes(body) == expected


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
def test_what_comes_back_is_what_multiprocessing_would_return(item: object) -> None:
    expected = pickle.loads(ForkingPickler.dumps(item))
    with ringpost.Queue() as queue:
        queue.put(item)
        back = queue.get(timeout=5)
    assert type(back) is type(expected)
    assert repr(back) == repr(expected) or back == expected


def test_parts_that_were_one_object_are_one_again() -> None:
    left, right = CODEC.decode(Kind.PICKLE, bytes(CODEC.encode([SHARED, SHARED])[1]), 0)
    assert left is right


def test_the_next_message_knows_nothing_of_the_last() -> None:
    """A memo kept between messages would refer to what another process never saw."""
    shared = ["x" * 1000]
    first, second = (bytes(CODEC.encode([shared, n])[1]) for n in range(2))
    assert pickle.loads(second) == [shared, 1]
    assert len(first) == len(second)


def test_reducers_registered_with_multiprocessing_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    CODEC.encode(["a pickler that is there before"])
    reducers = ForkingPickler._extra_reducers
    monkeypatch.setitem(reducers, threading.Barrier, lambda barrier: (int, (barrier.parties,)))
    assert pickle.loads(CODEC.encode(threading.Barrier(7))[1]) == 7


def test_locks_refuse_as_they_do_with_multiprocessing() -> None:
    """A lock from the fork context: any other starts a process that outlives the test."""
    lock = multiprocessing.get_context("fork").Lock()
    with ringpost.Queue() as queue, pytest.raises(ringpost.EncodeError, match="should only be shared"):
        queue.put(lock)


def test_many_threads_pickle_at_once() -> None:
    def work(number: int) -> bool:
        items = [{"thread": number, "n": n, "pad": "x" * n} for n in range(300)]
        return all(pickle.loads(CODEC.encode(item)[1]) == item for item in items)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4), timeout=30))


def test_pickling_an_item_that_puts_while_it_is_pickled() -> None:
    """The pickler in use is nobody else's."""
    with ringpost.Queue() as queue:
        queue.put([Nested(queue), "outer"])
        assert queue.get_nowait() == {"inner": 1}
        assert queue.get_nowait() == ["nested", "outer"]


class Nested:
    def __init__(self, queue: ringpost.Queue[object]) -> None:
        self.queue = queue

    def __reduce__(self):
        self.queue.put({"inner": 1})
        return str, ("nested",)


# ---- opting in ----------------------------------------------------------------------------------


def test_both_sides_opted_in(broker: ringpost.Broker) -> None:
    producer, consumer = (broker.queue("jobs", pickle=True) for _ in range(2))
    producer.put(Point(1))
    assert consumer.get_nowait() == Point(1)


EXACT = {
    **{name: ITEMS[name] for name in ("none", "true", "int", "float", "bytes", "text", "many parts")},
    "many rows": [["x", n] for n in range(50)],
    "nested": {"a": [1, {"b": [None, b"x", {2.5: [True]}]}], "c": {}, "d": []},
    "array": numpy.arange(3),
    "record": numpy.ones(1, [("a", "<i4")])[0],
}


@pytest.mark.parametrize("item", EXACT.values(), ids=EXACT)
def test_what_comes_back_as_it_was_is_not_pickled(broker: ringpost.Broker, item: object) -> None:
    """So that anybody can read it, and fast."""
    producer, consumer = broker.queue("jobs", pickle=True), broker.queue("jobs")
    producer.put(item)
    back = consumer.get_nowait()
    assert type(back) is type(item)
    assert (back == item) if not isinstance(item, numpy.ndarray) else (back == item).all()


@dataclasses.dataclass
class Frame:
    pixels: object


class Struct(msgspec.Struct):
    pixels: object


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    __slots__ = ()


Pair = collections.namedtuple("Pair", "left right")
GRID = numpy.arange(6.0).reshape(2, 3)
TYPED = {
    **{
        name: ITEMS[name] for name in ("bytearray", "tuple", "set", "frozenset", "complex", "object", "class")
    },
    "huge int": 10**400,
    "dataclass": Frame([1]),
    "Struct": Struct((1,)),
    "enum": Colour.RED,
    "subclass of str": Name("x"),
    "namedtuple": Pair(1, 2),
    "ordered": collections.OrderedDict(a=1),
    "moment": datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc),
    "UUID": uuid.UUID(int=7),
    "numbers": array.array("d", [1.5]),
    "numpy number": numpy.float32(1.5),
    "numpy moment": numpy.datetime64("2024-02-29"),
    "recarray": numpy.zeros(1, [("a", "<i4")]).view(numpy.recarray),
}


@pytest.mark.parametrize("item", TYPED.values(), ids=TYPED)
def test_everything_else_comes_back_as_what_it_was(broker: ringpost.Broker, item: object) -> None:
    queue = broker.queue("jobs", pickle=True)
    for each in (item, [item], {"a": 1, "b": [None, {"c": item}]}, Frame(item)):
        queue.put(each)
        back = queue.get_nowait()
        assert type(back) is type(each)
        assert back == each
        assert repr(back) == repr(each) or type(item) is Point


def test_a_dict_with_another_key(broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs", pickle=True)
    queue.put({(1, 2): "x", Colour.RED: "y"})
    assert [type(key) for key in queue.get_nowait()] == [tuple, Colour]


def test_arrays_within_come_back_writable(broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs", pickle=True)
    queue.put_many([{"a": GRID}, [GRID], Frame(GRID)])
    first, second, third = queue.get_many()
    for back in (first["a"], second[0], third.pixels):
        assert (back == GRID).all()
        back += 1


def test_an_endless_item_is_pickled(broker: ringpost.Broker) -> None:
    endless: list[object] = []
    endless.append(endless)
    queue = broker.queue("jobs", pickle=True)
    queue.put(endless)
    back = queue.get_nowait()
    assert back[0] is back


def test_buffers_that_cannot_be_pickled_come_back_as_bytes(broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs", pickle=True)
    with mmap.mmap(-1, 4) as memory:
        for item, expected in ((memoryview(b"abcdef")[::2], b"ace"), (memory, bytes(4))):
            queue.put(item)
            assert queue.get_nowait() == expected


def test_pointers_are_no_bytes(broker: ringpost.Broker) -> None:
    with pytest.raises(ringpost.EncodeError, match="pickling failed"):
        broker.queue("jobs", pickle=True).put(numpy.array([threading.Lock()]))


def test_a_consumer_that_did_not_opt_in_refuses(broker: ringpost.Broker) -> None:
    producer, consumer = broker.queue("jobs", pickle=True), broker.queue("jobs")
    consumer.put("before")
    assert consumer.get_nowait() == "before"
    producer.put(Point(1))
    with pytest.raises(ringpost.DecodeError, match=r"queue 'jobs' of ring:.*pickle=True.*trust") as raised:
        consumer.get_nowait()
    assert raised.value.codec == "pickle"
    assert raised.value.sequence == 1
    assert pickle.loads(raised.value.payload) == Point(1)
    assert consumer.empty()


def test_an_array_of_objects_needs_pickle(broker: ringpost.Broker) -> None:
    objects = numpy.array([{1}, None], dtype=object)
    with pytest.raises(ringpost.EncodeError, match=r"dtype object into queue 'jobs'.*pickle=True"):
        broker.queue("jobs").put(objects)
    trusting = broker.queue("jobs", pickle=True)
    trusting.put(objects)
    assert trusting.get_nowait().tolist() == [{1}, None]


def test_an_anonymous_queue_takes_pickles_only() -> None:
    for kind in set(Kind) - {Kind.PICKLE, Kind.PICKLE_BUFFERS, Kind.NDARRAY, Kind.RECORD}:
        with pytest.raises(ringpost.DecodeError, match="only pickles"):
            CODEC.decode(kind, StandardCodec("it").encode("x")[1], 3)
