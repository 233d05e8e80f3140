"""Structured arrays as many messages: each record counts, whoever takes it and however."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy
import pytest

import ringpost
from ringpost.codecs import Kind, StandardCodec, record_head

MakeQueue = Callable[..., ringpost.Queue[Any]]

TICK = numpy.dtype([("time", "<i8"), ("price", "<f8"), ("size", "<f8"), ("id", "<u8")])
DTYPES = {
    "ticks": TICK,
    "one byte": numpy.dtype([("a", "u1")]),
    "odd": numpy.dtype([("a", "u1"), ("b", ">f8"), ("c", "S10")]),
    "padded": numpy.dtype([("a", "u1"), ("b", "<f8")], align=True),
    "nested": numpy.dtype([("a", [("b", "<f4", (3,)), ("c", "?")]), ("d", "M8[ns]")]),
    "another order": numpy.dtype({"names": ["b", "a"], "formats": ["<f8", "S3"], "offsets": [4, 1]}),
    "wide": numpy.dtype([("a", "u1", (10_000,))]),
}
CAPACITY = 256 << 10


def ticks(count: int, first: int = 0) -> numpy.ndarray[Any, Any]:
    made = numpy.zeros(count, TICK)
    made["id"] = numpy.arange(first, first + count)
    made["price"] = made["id"] / 4
    return made


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
def test_what_is_put_comes_out(queue: ringpost.Queue[Any], dtype: numpy.dtype[Any]) -> None:
    sent = numpy.frombuffer(os.urandom(20 * dtype.itemsize), "u1").view("u1").copy()
    records = sent.view(dtype)
    assert queue.put_many(records) == 20
    assert queue.qsize() == 20
    first = queue.get_nowait()
    assert first.dtype == dtype
    assert first.tobytes() == records[0].tobytes()
    assert [each.tobytes() for each in queue.get_many(3)] == [each.tobytes() for each in records[1:4]]
    some = queue.get_many(5, as_array=True)
    assert some.dtype == dtype
    assert some.tobytes() == records[4:9].tobytes()
    rest = queue.get_many(as_array=True)
    assert rest.tobytes() == records[9:].tobytes()
    assert queue.empty()
    with pytest.raises(ringpost.Empty):
        queue.get_many(as_array=True, block=False)
    with pytest.raises(ringpost.Empty):
        queue.get_many(as_array=True, timeout=0.01)


def test_views_of_other_memory(queue: ringpost.Queue[Any]) -> None:
    records = ticks(100)
    for part in (records[::-3], records[:0], records[5:6]):
        assert queue.put_many(part) == len(part)
        if len(part):
            assert (queue.get_many(as_array=True) == part).all()
        assert queue.empty()


def test_a_single_record(queue: ringpost.Queue[Any]) -> None:
    queue.put(ticks(3)[2])
    assert queue.get_nowait()["id"] == 2


def test_a_change_of_dtype_ends_a_batch(broker: ringpost.Broker, binding: Any) -> None:
    queue = broker.queue("mixed")
    other = numpy.zeros(4, [("x", "<i4")])
    queue.put_many(ticks(3))
    queue.put_many(other)
    queue.put("text")
    queue.put_many(ticks(2))
    assert len(queue.get_many(as_array=True)) == 3
    assert queue.get_many(as_array=True).dtype == other.dtype
    for _ in range(2):
        with pytest.raises(TypeError, match="no record"):
            queue.get_many(as_array=True)
    assert queue.get_nowait() == "text"
    assert (queue.get_many(as_array=True) == ticks(2)).all()


def test_records_that_were_given_back_come_first(queue: ringpost.Queue[Any]) -> None:
    queue.put_many(ticks(4))
    with queue.consumer(prefetch=1) as consumer:
        message = consumer.receive(timeout=0)
        assert message.body["id"] == 0
        message.nack()
    assert (queue.get_many(as_array=True, timeout=5) == ticks(4)).all()


def test_those_that_were_given_back_come_together(broker: ringpost.Broker, binding: Any) -> None:
    queue = broker.queue("given back")
    other = numpy.ones(2, [("x", "<i4")])
    for items in (ticks(50), other, ["text"], ticks(3)):
        queue.put_many(items)
    with queue.consumer(prefetch=100) as consumer:
        consumer.receive(timeout=0).nack()
    assert (queue.get_many(20, as_array=True, timeout=5) == ticks(20)).all()
    first = queue.get_many(as_array=True, timeout=5)
    assert (first == ticks(30, 20)).all()
    first["price"] = 0  # one's own
    assert (queue.get_many(as_array=True, timeout=5) == other).all()
    with pytest.raises(TypeError, match="no record"):
        queue.get_many(as_array=True, timeout=5)
    assert queue.get(timeout=5) == "text"
    assert (queue.get_many(as_array=True, timeout=5) == ticks(3)).all()
    assert queue.empty()
    assert queue.stats().consumers.in_flight == 0


def test_expired_ones_are_passed_over(broker: ringpost.Broker, binding: Any) -> None:
    queue = broker.queue("expired")
    for others in (0, 1):
        queue.producer().send(ticks(1)[0], ttl=0.05)
        with queue.consumer(prefetch=1) as consumer:
            consumer.receive(timeout=0).nack()
        time.sleep(0.06)
        queue.put_many(ticks(others, 1))
        if others:
            assert (queue.get_many(as_array=True, timeout=5) == ticks(1, 1)).all()
        with pytest.raises(ringpost.Empty):
            queue.get_many(as_array=True, timeout=0.01)


def test_larger_than_a_frame(queue: ringpost.Queue[Any], kind: str) -> None:
    large = numpy.zeros(3, [("a", "u1", (20_000,))])
    large["a"][:, 0] = [1, 2, 3]
    assert queue.put_many(large) == 3
    assert queue.qsize() == 3
    if kind == "anonymous":  # pickled, each by itself
        assert [each["a"][0] for each in (queue.get(), queue.get(), queue.get())] == [1, 2, 3]
    else:
        assert (queue.get_many(as_array=True) == large).all()
    assert queue.empty()


def test_a_full_queue_says_how_many_went_in(make: MakeQueue) -> None:
    queue = make(maxsize=10)
    with pytest.raises(ringpost.Full) as raised:
        queue.put_many(ticks(25), block=False)
    assert raised.value.put == 10  # type: ignore[attr-defined]
    assert (queue.get_many(as_array=True) == ticks(10)).all()


def test_across_processes(make: MakeQueue) -> None:
    """More than the ring holds: both sides wait for one another."""
    queue = make(capacity=CAPACITY)
    count, step = 100_000, 3001
    child = os.fork()
    if child == 0:
        for first in range(0, count, step):
            queue.put_many(ticks(min(step, count - first), first), timeout=30)
        os._exit(0)
    got = 0
    while got < count:
        some = queue.get_many(2000, as_array=True, timeout=30)
        assert (some == ticks(len(some), got)).all()
        got += len(some)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert queue.empty()


def test_priorities(broker: ringpost.Broker) -> None:
    queue = broker.queue("levels", priorities=True)
    queue.put_many(ticks(5))
    assert queue.qsize() == 5
    assert (queue.get_many(as_array=True, timeout=1) == ticks(5)).all()


def test_shut_down(queue: ringpost.Queue[Any]) -> None:
    queue.put_many(ticks(2))
    queue.shutdown()
    with pytest.raises(ringpost.ShutDown):
        queue.put_many(ticks(1))
    assert len(queue.get_many(as_array=True)) == 2
    with pytest.raises(ringpost.ShutDown):
        queue.get_many(as_array=True)


def test_no_limit_of_nothing(queue: ringpost.Queue[Any]) -> None:
    for limit in (0, -1):
        with pytest.raises(ValueError, match="'limit'"):
            queue.get_many(limit, as_array=True)


def test_a_watched_queue(queue: ringpost.Queue[Any]) -> None:
    queue.fileno()
    with pytest.raises(ringpost.Empty):
        queue.get_many(as_array=True, block=False)
    queue.put_many(ticks(2))
    assert len(queue.get_many(as_array=True, block=False)) == 2


def test_broken_heads() -> None:
    codec = StandardCodec("a queue")
    body = record_head(TICK) + bytes(32)
    assert codec.decode(Kind.RECORD, body, 0)["id"] == 0
    for broken in (
        body[:-1],
        body + b"x",
        body[:10],
        b"",
        b"\xff" * 64,
        record_head(numpy.dtype("f8")) + bytes(8),
    ):
        with pytest.raises(ringpost.DecodeError):
            codec.decode(Kind.RECORD, broken, 0)
