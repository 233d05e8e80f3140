"""Objects with large buffers, pickled: what comes back is what multiprocessing would return, to the type of
each part."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pickle import PickleBuffer
from typing import Any

import numpy
import pytest
from crash.children import Nursery
from crash.fixtures import fork

import ringpost
from ringpost.codecs import Kind, PickleCodec, StandardCodec

__all__ = ["fork"]

LARGE = 100_000  # bytes
WAYS = {
    "get": lambda queue: queue.get_nowait(),
    "get_many": lambda queue: queue.get_many()[0],
    "receive": lambda queue: queue.consumer(auto_ack=True).receive(timeout=0).body,
}


@dataclasses.dataclass
class Frame:
    name: str
    pixels: numpy.ndarray[Any, Any]


def frozen(array: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


SHARED = numpy.arange(LARGE)
GRID = numpy.arange(120_000, dtype="u2").reshape(300, 400)

ITEMS: dict[str, Any] = {
    "an array in a dict": {"n": 1, "array": numpy.arange(LARGE, dtype="f8")},
    "in a dataclass": Frame("first", GRID),
    "columns": {"array": numpy.asfortranarray(GRID)},
    "with gaps": [GRID[::2, ::3]],
    "read-only": [frozen(numpy.arange(LARGE))],
    "large and small": [numpy.zeros(5), GRID, numpy.ones(3), GRID[:200], b"x" * LARGE],
    "the same twice": [SHARED, SHARED],
    "a view and its base": [SHARED, SHARED[10:]],
    "records": (numpy.zeros(LARGE, [("a", "<i4"), ("b", "S3")]),),
    "objects": [numpy.array([GRID, None, "x"], dtype=object)],
    "a buffer": PickleBuffer(b"x" * LARGE),
    "a writable buffer": [PickleBuffer(bytearray(b"x" * LARGE)), "end"],
    "a view of a buffer": [PickleBuffer(memoryview(b"0123456789" * LARGE)[5:-5])],
    "many": [numpy.full(LARGE // 8, n) for n in range(40)],
}


def same(left: Any, right: Any) -> bool:
    """Equal, of one type, and equally writable."""
    if type(left) is not type(right):
        return False
    if isinstance(left, numpy.ndarray):
        flags = left.flags
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and (flags.writeable, flags.f_contiguous) == (right.flags.writeable, right.flags.f_contiguous)
            and (left.dtype.hasobject or left.tobytes() == right.tobytes())
            and (not left.dtype.hasobject or same(left.tolist(), right.tolist()))
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and same(list(left.values()), list(right.values()))
    if dataclasses.is_dataclass(left):
        return same(vars(left), vars(right))
    return bool(left == right)


@pytest.fixture
def trusting(kind: str, make: Callable[..., Any], broker: ringpost.Broker) -> Iterator[ringpost.Queue[Any]]:
    """Queues that pickle, with room for all of these."""
    if kind == "anonymous":
        yield make(capacity=64 << 20)
    else:
        with broker.queue("pickles", capacity=64 << 20, pickle=True) as queue:
            yield queue


@pytest.mark.parametrize("take", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_it_comes_back_as_multiprocessing_would_return_it(
    trusting: ringpost.Queue[Any], take: Callable[..., Any], item: Any
) -> None:
    expected = pickle.loads(ForkingPickler.dumps((item,), pickle.HIGHEST_PROTOCOL))
    trusting.put(Wrapped((item,)))
    assert same(take(trusting).item, expected)
    trusting.put(item)
    assert same(take(trusting), expected[0])


class Wrapped:
    """What MessagePack does not know."""

    def __init__(self, item: Any) -> None:
        self.item = item


def wrapped(array: Any) -> Wrapped:
    return Wrapped({"array": array})


def test_what_comes_back_is_ones_own(trusting: ringpost.Queue[Any]) -> None:
    """It may be written to, is aligned, and lies in no memory that the queue uses again."""
    backs = []
    for value in range(50):
        sent = numpy.full(LARGE, value, dtype="f8")
        trusting.put(wrapped(sent))
        sent[:] = -1
        backs.append(trusting.get_nowait().item["array"])
    for value, back in enumerate(backs):
        assert (back == value).all()
        assert back.ctypes.data % 16 == 0
        back += 1
        assert (back == value + 1).all()
    trusting.close()
    assert (backs[7] == 8).all()


def test_parts_that_were_one_object_are_one_again(trusting: ringpost.Queue[Any]) -> None:
    trusting.put(wrapped([SHARED, SHARED]))
    left, right = trusting.get_nowait().item["array"]
    assert left is right


def test_a_batch_keeps_its_order(trusting: ringpost.Queue[Any]) -> None:
    items = [n if n % 3 else wrapped(numpy.full(LARGE, n, "u1")) for n in range(20)]
    assert trusting.put_many(items) == 20
    taken: list[Any] = []
    while len(taken) < 20:
        taken += trusting.get_many()
    assert [int(one.item["array"][-1]) if isinstance(one, Wrapped) else one for one in taken] == list(
        range(20)
    )


def test_headers_and_time_to_live_come_along(trusting: ringpost.Queue[Any]) -> None:
    producer = trusting.producer()
    producer.send(wrapped(GRID), headers={"camera": 1}, ttl=60)
    producer.send(wrapped(GRID), headers={"camera": 2})
    with trusting.consumer() as consumer, consumer.receive(timeout=0) as message:
        assert message.headers == {"camera": 1}
        assert (message.body.item["array"] == GRID).all()
        assert len(message.payload) > GRID.nbytes
    assert (trusting.get_nowait().item["array"] == GRID).all()


def test_an_expired_one_is_passed_over(trusting: ringpost.Queue[Any]) -> None:
    producer = trusting.producer()
    for _ in range(2):
        producer.send(wrapped(GRID), ttl=0.001)
        producer.send("after", ttl=60)
    time.sleep(0.05)
    assert trusting.get_nowait() == "after"
    assert trusting.get_many(1) == ["after"]


def test_another_process_gets_it(trusting: ringpost.Queue[Any], fork: Nursery) -> None:
    def child() -> None:
        item = trusting.get(timeout=10)
        item.item["array"][0, 0] += 1
        trusting.put(item)

    trusting.put(wrapped(GRID.copy()))
    assert fork(child).wait() == 0
    back = trusting.get_nowait().item["array"]
    back[0, 0] -= 1
    assert (back == GRID).all()


def test_subscribers_get_it(broker: ringpost.Broker, binding: Any) -> None:
    topic = broker.topic("frames", capacity=8 << 20, pickle=True)
    subscribers = [topic.subscribe("#") for _ in range(2)]
    topic.publish(wrapped(GRID), subject="camera.1")
    for subscriber in subscribers:
        back = subscriber.receive(timeout=5).body.item["array"]
        back[0] = 0  # one's own
        assert (back[1:] == GRID[1:]).all()


def test_what_cannot_be_pickled_next_to_a_buffer(trusting: ringpost.Queue[Any]) -> None:
    gaps = PickleBuffer(GRID[::2, ::2])
    for item in ([GRID, lambda: None], [GRID, gaps]):
        with pytest.raises(ringpost.EncodeError, match="pickling failed"):
            trusting.put(Wrapped(item))
    assert trusting.empty()
    assert trusting._log.info()["pool_used"] == 0


# ---- the format ---------------------------------------------------------------------------------


def encoded(item: object) -> tuple[int, bytes]:
    kind, parts = PickleCodec("a queue").encode(item)
    return kind, b"".join(parts) if isinstance(parts, tuple) else bytes(parts)


def test_large_buffers_travel_beside_the_stream() -> None:
    kind, parts = PickleCodec("a queue").encode([GRID, b"in between"])
    assert kind == Kind.PICKLE_BUFFERS
    assert [memoryview(part).nbytes for part in parts[2:]] == [GRID.nbytes]
    assert numpy.shares_memory(numpy.frombuffer(parts[2], "u1"), GRID)
    assert memoryview(parts[1]).nbytes < 300


def test_small_ones_travel_in_it() -> None:
    item = [numpy.arange(100)]
    assert encoded(item) == (Kind.PICKLE, bytes(ForkingPickler.dumps(item, pickle.HIGHEST_PROTOCOL)))


def test_who_did_not_opt_in_is_told_so() -> None:
    kind, body = encoded(Wrapped(GRID))
    with pytest.raises(ringpost.DecodeError, match="pickle=True") as raised:
        StandardCodec("a queue").decode(kind, memoryview(body), 3)
    assert (raised.value.payload, raised.value.codec) == (body, "pickle_buffers")


def test_broken_ones_are_refused() -> None:
    codec = PickleCodec("a queue")
    kind, body = encoded({"a": numpy.zeros(LARGE, "u1"), "b": numpy.ones(LARGE, "u1")})
    sizes = [0, 1, 7, 8, 9, 31, 32, 100, len(body) - 1, *range(200, len(body), 9973)]
    broken = [body[:size] for size in sizes] + [body + b"x"]
    for count in (0, 1, 3, 1 << 32, (1 << 64) - 1):
        broken.append(struct.pack("<Q", count) + body[8:])
    for at in (8, 16, 24):
        broken += [
            body[:at] + struct.pack("<Q", size) + body[at + 8 :] for size in (0, 5, 1 << 62, (1 << 64) - 1)
        ]
    for each in broken:
        with pytest.raises(ringpost.DecodeError) as raised:
            codec.decode(kind, each, 0)
        assert raised.value.payload == each


def test_a_broken_one_in_a_queue_takes_no_other_with_it(trusting: ringpost.Queue[Any]) -> None:
    kind, body = encoded(Wrapped(GRID))
    for each in (kind, body[:-1]), (kind, body[:-1]), (kind, body):
        trusting._log.send_raw(*each)
    with pytest.raises(ringpost.DecodeError) as raised:
        trusting.get_nowait()
    assert raised.value.payload == body[:-1]
    with pytest.raises(ringpost.DecodeError) as raised:
        trusting.get_many()
    assert raised.value.payload == body[:-1]
    assert (trusting.get_nowait().item == GRID).all()
