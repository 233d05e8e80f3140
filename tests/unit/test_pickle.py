"""Pickled messages: exactly multiprocessing's pickles, and only where both sides opted in."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler

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


def test_messagepack_goes_first_even_where_pickle_is_allowed(broker: ringpost.Broker) -> None:
    producer, consumer = broker.queue("jobs", pickle=True), broker.queue("jobs")
    producer.put((1, "x"))
    assert consumer.get_nowait() == [1, "x"]


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
    array = numpy.array([{1}, None], dtype=object)
    with pytest.raises(ringpost.EncodeError, match=r"dtype object into queue 'jobs'.*pickle=True"):
        broker.queue("jobs").put(array)
    trusting = broker.queue("jobs", pickle=True)
    trusting.put(array)
    assert trusting.get_nowait().tolist() == [{1}, None]


def test_an_anonymous_queue_takes_pickles_only() -> None:
    for kind in set(Kind) - {Kind.PICKLE, Kind.PICKLE_BUFFERS, Kind.NDARRAY, Kind.RECORD}:
        with pytest.raises(ringpost.DecodeError, match="only pickles"):
            CODEC.decode(kind, StandardCodec("it").encode("x")[1], 3)
