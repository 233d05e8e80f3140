"""What cannot be encoded is refused in put(), with advice, and leaves the queue as it was."""

from __future__ import annotations

import collections
import threading

import pytest

import ringpost


class Unknown:
    pass


class Hostile:
    """Fails in its own way while it is pickled."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __reduce__(self):
        raise self.error


def nested(depth: int) -> list[object]:
    item: list[object] = []
    for _ in range(depth):
        item = [item]
    return item


def endless() -> list[object]:
    item: list[object] = []
    item.append(item)
    return item


REFUSED = {
    "object": Unknown(),
    "class": Unknown,
    "function": nested,
    "complex": 1j,
    "range": range(3),
    "generator": (n for n in ()),
    "deque": collections.deque([1]),
    "exception": ValueError("x"),
    "too large an int": 2**64,
    "too small an int": -(2**63) - 1,
    "huge int": 10**400,
    "inside a dict": {"a": [Unknown()]},
    "surrogate inside": ["\ud800"],
    "surrogate as key": {"\udfff": 1},
    "a buffer with gaps inside": [memoryview(b"abcdef")[::2]],
    "too deep": nested(100_000),
    "endless": endless(),
}


@pytest.fixture
def trusting(broker: ringpost.Broker, queue: ringpost.Queue[object]) -> ringpost.Queue[object]:
    return broker.queue("jobs", pickle=True)


@pytest.mark.parametrize("item", REFUSED.values(), ids=REFUSED.keys())
def test_it_names_the_queue_the_type_and_the_remedy(queue: ringpost.Queue[object], item: object) -> None:
    with pytest.raises(ringpost.EncodeError) as raised:
        queue.put(item)
    text = str(raised.value)
    assert text.startswith(f"cannot put a {type(item).__qualname__} into queue 'jobs' of ring:test-")
    assert "pickle=True on both sides" in text
    assert "MessagePack" in text
    assert raised.value.__cause__ is not None
    assert queue.qsize() == 0


@pytest.mark.parametrize("item", ["\ud800", "ok \udc80 \udfff", "x" * 20_000 + "\ud83d"], ids=len)
def test_a_lone_surrogate_is_no_text(queue: ringpost.Queue[object], item: str) -> None:
    with pytest.raises(ringpost.EncodeError, match=r"cannot put a str into queue 'jobs'.*surrogates"):
        queue.put(item)
    assert queue.qsize() == 0


@pytest.mark.parametrize("item", ["\ud800", ["\ud800"], {"\ud800": 1}], ids=["text", "item", "key"])
def test_a_lone_surrogate_can_be_pickled(trusting: ringpost.Queue[object], item: object) -> None:
    trusting.put(item)
    assert trusting.get_nowait() == item


def test_it_is_a_type_error(queue: ringpost.Queue[object]) -> None:
    with pytest.raises(TypeError):
        queue.put_nowait(Unknown())


def test_what_put_many_had_before_it_is_counted(queue: ringpost.Queue[object]) -> None:
    """Prepared but not yet sent items may be lost to the error; the count says what is there."""
    with pytest.raises(ringpost.EncodeError) as raised:
        queue.put_many(["a", b"b" * 50_000, "c", Unknown(), "never"])
    assert raised.value.put == queue.qsize()
    got = [queue.get_nowait() for _ in range(raised.value.put)]
    assert got == ["a", b"b" * 50_000, "c"][: len(got)]
    assert queue.empty()


@pytest.mark.parametrize("pickle", [False, True])
@pytest.mark.parametrize(
    "item", [threading.Lock(), (n for n in ()), [lambda: None]], ids=["lock", "generator", "lambda"]
)
def test_unpicklable_objects(broker: ringpost.Broker, item: object, pickle: bool) -> None:
    queue = broker.queue("jobs", pickle=pickle)
    with pytest.raises(
        ringpost.EncodeError, match=f"cannot put a {type(item).__qualname__} into queue 'jobs'"
    ):
        queue.put(item)
    assert queue.empty()
    queue.put([1, {2}])
    assert queue.get_nowait() == [1, {2} if pickle else [2]]


def test_an_anonymous_queue_says_so() -> None:
    with ringpost.Queue() as queue:
        with pytest.raises(ringpost.EncodeError, match="into an anonymous queue: pickling failed"):
            queue.put(threading.Lock())
        assert queue.empty()


@pytest.mark.parametrize(
    "error", [ValueError("no"), RecursionError("deep"), OSError(5, "io"), StopIteration()], ids=repr
)
def test_whatever_pickling_raises(trusting: ringpost.Queue[object], error: Exception) -> None:
    with pytest.raises(ringpost.EncodeError, match="pickling failed") as raised:
        trusting.put(Hostile(error))
    assert raised.value.__cause__ is error
    assert trusting.empty()


def test_the_next_message_is_whole_after_a_failed_pickle(trusting: ringpost.Queue[object]) -> None:
    """Picklers are reused: one that stopped half-way must not hand its beginning on."""
    for _ in range(5):
        with pytest.raises(ringpost.EncodeError):
            trusting.put([{"a": 1j}, Unknown(), threading.Lock()])
        trusting.put((1j, "after"))
        assert trusting.get_nowait() == (1j, "after")
