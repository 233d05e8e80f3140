"""Typed messages and codecs of one's own."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import numpy
import pytest

import ringpost
from conformance.patience import BOUND


class Order(msgspec.Struct):
    id: int
    items: list[str] = []


@dataclass
class Point:
    x: float
    y: float


class Movie(TypedDict):
    name: str
    year: int


ITEMS: dict[Any, list[Any]] = {
    Order: [Order(1), Order(2, ["tea"])],
    Point: [Point(1.0, 2.5)],
    Movie: [Movie(name="M", year=1931)],
    str: ["text", "ümlaut", ""],
    bytes: [b"bytes", b""],
    int: [7, -(2**63)],
    dict[str, int]: [{"a": 1}],
    int | str: [1, "a"],
}


@pytest.fixture(autouse=True)
def _binding(binding: Any) -> None:
    pass


@pytest.mark.parametrize("kind", ITEMS, ids=str)
def test_items_come_back_as_their_type(broker: ringpost.Broker, kind: Any) -> None:
    queue: ringpost.Queue[Any] = broker.queue("q", type=kind)
    for item in ITEMS[kind]:
        queue.put(item)
    queue.put_many(ITEMS[kind])
    found = [queue.get_nowait() for _ in ITEMS[kind]] + queue.get_many()
    assert found == ITEMS[kind] * 2
    if kind in (Order, Point, str, bytes, int):
        assert all(type(each) is kind for each in found)
    queue.producer().send(ITEMS[kind][0], headers={"a": 1})
    with queue.consumer() as consumer, consumer.receive(0) as message:
        assert message.body == ITEMS[kind][0]


@pytest.mark.parametrize("wrong", [b"bytes", "text", {"id": 1}, [1], None, Point(1, 2), 7])
def test_what_is_of_another_type_cannot_be_put(broker: ringpost.Broker, wrong: Any) -> None:
    queue: ringpost.Queue[Any] = broker.queue("q", type=Order)
    for put in (queue.put, lambda item: queue.put_many([item]), queue.producer().send):
        with pytest.raises(ringpost.EncodeError, match="of type Order"):
            put(wrong)
    assert queue.qsize() == 0


@pytest.mark.parametrize("wrong", [b"bytes", "text", {"id": "one"}, {"items": []}, [1], None, 7])
def test_get_refuses_what_does_not_fit(broker: ringpost.Broker, wrong: Any) -> None:
    broker.queue("q").put(wrong)
    broker.queue("q").put({"id": 1})
    queue = broker.queue("q", type=Order)
    with pytest.raises(ringpost.DecodeError, match="no Order"):
        queue.get_nowait()
    assert queue.get_nowait() == Order(1)


@pytest.mark.parametrize("auto_ack", [False, True])
def test_a_bad_message_is_a_dead_letter_with_the_reason(broker: ringpost.Broker, auto_ack: bool) -> None:
    plain, queue = broker.queue("orders"), broker.queue("orders", type=Order)
    for item in ({"id": 1}, {"id": "one"}, b"noise", {"id": 2}):
        plain.put(item)
    with queue.consumer(auto_ack=auto_ack) as consumer:
        assert [consumer.receive(0).body for _ in range(2)] == [Order(1), Order(2)]
        with pytest.raises(ringpost.Empty):
            consumer.receive(0)
    letters = plain.dead_letters().peek()
    assert [death.reason.partition(" - ")[0] for death, _ in letters] == [
        "invalid: Expected `int`, got `str`",
        "invalid: Expected `object`, got `bytes`",
    ]


def test_reasons_read_well_whatever_the_message_is(broker: ringpost.Broker) -> None:
    record = numpy.zeros(1, [("a", "u1")])
    broker.queue("orders").put(numpy.zeros(3))
    broker.queue("orders").put_many(record)
    broker.queue("orders", pickle=True).put({1j})
    broker.queue("orders", codec=Shout()).put("x")
    queue = broker.queue("orders", type=Order)
    with queue.consumer() as consumer, pytest.raises(ringpost.Empty):
        consumer.receive(0)
    broker.queue("shouts").put({"id": 1})
    broker.queue("shouts", codec=Shout()).put("bad")
    with broker.queue("shouts", codec=Shout()).consumer() as shouts, pytest.raises(ringpost.Empty):
        shouts.receive(0)
    letters = queue.dead_letters().peek() + broker.queue("shouts").dead_letters().peek()
    assert [death.reason for death, _ in letters] == [
        "invalid: it is no Order: its codec is ndarray",
        "invalid: it is no Order: its codec is record",
        "invalid: it is no Order: its codec is pickle",
        "invalid: it is no Order: its codec is own",
        "invalid: it was put through a handle without codec=",
        "invalid: bad",
    ]


def test_good_messages_need_no_dead_letters(broker: ringpost.Broker) -> None:
    queue = broker.queue("orders", type=Order)
    queue.put(Order(1))
    with queue.consumer() as consumer:
        consumer.receive(0).ack()
    assert broker.list() == ["orders"]


def test_topics_have_types_too(broker: ringpost.Broker) -> None:
    topic = broker.topic("ticks", type=Point)
    subscriber, named = topic.subscribe(), topic.subscribe(name="n")
    broker.topic("ticks").publish("no point")
    topic.publish(Point(1, 2))
    for each in (subscriber, named):
        assert each.receive(BOUND).body == Point(1, 2)
    assert len(broker.queue("ticks.dead").get_many()) == 2
    with pytest.raises(ringpost.EncodeError):
        topic.publish("no point either")  # type: ignore[arg-type]


class Shout:
    """The two methods."""

    def encode(self, item: str) -> bytes:
        return item.upper().encode()

    def decode(self, data: bytes) -> str:
        if data == b"BAD":
            raise ValueError("bad")
        return data.decode() + "!"


def test_a_codec_of_ones_own(broker: ringpost.Broker) -> None:
    queue = broker.queue("q", codec=Shout())
    queue.put("hello")
    queue.put_many(["large" * 10_000])
    assert queue.get_nowait() == "HELLO!"
    assert queue.get_nowait() == "LARGE" * 10_000 + "!"
    with pytest.raises(ringpost.EncodeError, match="codec"):
        queue.put(7)  # type: ignore[arg-type]
    queue.put("bad")
    with pytest.raises(ringpost.DecodeError, match="bad"):
        queue.get_nowait()
    queue.put("secret")
    with pytest.raises(ringpost.DecodeError, match="codec="):
        broker.queue("q").get_nowait()
    broker.queue("q").put("plain")
    with pytest.raises(ringpost.DecodeError, match="without codec="):
        queue.get_nowait()


def test_a_pickled_handle_keeps_its_type_or_codec(broker: ringpost.Broker) -> None:
    typed, own = broker.queue("typed", type=Order), broker.queue("own", codec=Shout())
    typed.put(Order(7))
    own.put("x")
    with pickle.loads(pickle.dumps(typed)) as again:
        assert again.get_nowait() == Order(7)
    with pickle.loads(pickle.dumps(own)) as again:
        assert again.get_nowait() == "X!"


def test_settings_that_make_no_sense_are_refused(broker: ringpost.Broker) -> None:
    with pytest.raises(ValueError, match="exclude"):
        broker.queue("q", type=Order, pickle=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="encode"):
        broker.queue("q", codec=object())  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="type"):
        broker.queue("q", type=7)
    assert broker.list() == []
