"""Decoding runs no code unless pickle=True was asked for, wherever a message comes from.

The messages here make a directory when somebody unpickles them.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest

import ringpost
from ringpost import aio
from ringpost.codecs import Kind, StandardCodec
from ringpost.envelope import Envelope, seal
from ringpost.stored import Stored
from ringpost.typed import codec_for

BOUND = 10.0  # seconds


@dataclass
class Bomb:
    path: Path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@dataclass
class Point:
    x: int


class Own:
    def encode(self, item: object) -> bytes:
        return bytes(item)  # type: ignore[call-overload,no-any-return]

    def decode(self, data: bytes) -> bytes:
        return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "code was run"


def put(broker_queue: Any, path: Path, **properties: Any) -> None:
    """As somebody does who may put, whatever the queue's handles say."""
    broker_queue._log.send_raw(int(Kind.PICKLE), pickle.dumps(Bomb(path)), **properties)


def test_it_would_be_seen(broker: ringpost.Broker, path: Path) -> None:
    put(broker.queue("jobs"), path)
    broker.queue("jobs", pickle=True).get(timeout=BOUND)
    assert path.exists()


CODECS = {
    "standard": StandardCodec,
    "typed": codec_for(Point, None, False),
    "anything": codec_for(object, None, False),
    "own": codec_for(None, Own(), False),
}


@pytest.mark.parametrize("make", CODECS.values(), ids=CODECS)
def test_whatever_it_says_it_is(make: Callable[[str], Any], path: Path) -> None:
    """Of any kind; within MessagePack, as an extension of any code; in an array of objects."""
    bomb = pickle.dumps(Bomb(path))
    objects = bytes(msgspec.msgpack.encode(["|O", [1], False]))
    bodies = [(kind, bomb) for kind in range(256)]
    bodies += [
        (int(Kind.MSGPACK), msgspec.msgpack.encode({"a": [msgspec.msgpack.Ext(code, bomb)]}))
        for code in range(-128, 128)
    ]
    for head in (b"|O", b'"|O"', objects, numpy.lib.format.descr_to_dtype("|O").str.encode()):
        whole = (len(head).to_bytes(4, "little") + head).ljust(64, b"\0") + bomb
        bodies += [(int(Kind.NDARRAY), whole), (int(Kind.RECORD), whole)]
    codec, refused = make("a queue"), 0
    for kind, body in bodies:
        try:
            codec.decode(kind, body, 0)
        except ringpost.DecodeError:
            refused += 1
    assert refused >= 250
    assert not path.exists()


def get(broker: ringpost.Broker, path: Path) -> None:
    put(broker.queue("jobs"), path)
    broker.queue("jobs").get(timeout=BOUND)


def get_many(broker: ringpost.Broker, path: Path) -> None:
    put(broker.queue("jobs"), path)
    broker.queue("jobs").get_many(10, timeout=BOUND)


def get_typed(broker: ringpost.Broker, path: Path) -> None:
    put(broker.queue("jobs"), path)
    broker.queue("jobs", type=Point).get(timeout=BOUND)


def get_with_ones_own_codec(broker: ringpost.Broker, path: Path) -> None:
    put(broker.queue("jobs"), path)
    broker.queue("jobs", codec=Own()).get(timeout=BOUND)


def receive(broker: ringpost.Broker, path: Path) -> None:
    put(broker.queue("jobs"), path)
    message = broker.queue("jobs").consumer().receive(BOUND)
    assert message.payload == pickle.dumps(Bomb(path))
    _ = message.body


def dead_letter(broker: ringpost.Broker, path: Path) -> None:
    put(broker.queue("jobs"), path)
    broker.queue("jobs").consumer(dead_letters=True).receive(BOUND).reject()
    ((_, message),) = broker.queue("jobs").dead_letters().peek()
    _ = message.body


def subscribe(broker: ringpost.Broker, path: Path) -> None:
    subscriber = broker.topic("news").subscribe()
    put(broker.topic("news"), path)
    _ = subscriber.receive(BOUND).body


def retained(broker: ringpost.Broker, path: Path) -> None:
    stored = Stored(int(Kind.PICKLE), pickle.dumps(Bomb(path)), None, None, 0, time.time_ns())
    broker.topic("news")._retained().keep(b"", stored)
    _ = broker.topic("news").subscribe(retained=True).receive(BOUND).body


def request(broker: ringpost.Broker, path: Path) -> None:
    consumer = broker.queue("jobs").consumer()

    def answer() -> None:
        asked = consumer.receive(BOUND)
        assert asked.reply_to is not None
        headers = seal(Envelope(correlation_id=asked.correlation_id))
        put(broker._replies.queue_of(asked.reply_to), path, headers=headers)
        asked.ack()

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        broker.request("jobs", "question", timeout=BOUND)
    finally:
        answering.join(BOUND)


def get_in_a_loop(broker: ringpost.Broker, path: Path) -> None:
    put(broker.queue("jobs"), path)

    async def take() -> None:
        async with aio.connect(broker.url) as again:
            await (await again.queue("jobs")).get()

    asyncio.run(take())


ROUTES = [
    get, get_many, get_typed, receive, dead_letter, subscribe, retained, request, get_in_a_loop,
    get_with_ones_own_codec,
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES)
def test_wherever_it_comes_from(
    broker: ringpost.Broker, path: Path, route: Callable[[ringpost.Broker, Path], None]
) -> None:
    with pytest.raises(ringpost.DecodeError, match=r"pickle|kind") as raised:
        route(broker, path)
    assert raised.value.payload == pickle.dumps(Bomb(path))
    assert not path.exists()


def test_an_event(broker: ringpost.Broker, path: Path) -> None:
    failed: list[Exception] = []
    bus = broker.events("bus")
    bus.on("order.bad", lambda *unused: pytest.fail("it was called"))
    bus.on("error", failed.append)
    bus.on("end", lambda: bus.stop())
    put(bus._topic, path, subject=b"order.bad")
    bus.emit("end")
    bus.run(timeout=BOUND)
    assert [type(error) for error in failed] == [ringpost.DecodeError]
    assert not path.exists()


def test_headers(broker: ringpost.Broker, path: Path) -> None:
    """They are MessagePack, or nothing."""
    queue = broker.queue("jobs")
    queue._log.send_raw(int(Kind.TEXT), b"x", headers=pickle.dumps(Bomb(path)))
    queue._log.send_raw(
        int(Kind.TEXT), b"y",
        headers=msgspec.msgpack.encode({"h": {"a": msgspec.msgpack.Ext(5, pickle.dumps(Bomb(path)))}}),
    )  # fmt: skip
    consumer = queue.consumer()
    assert dict(consumer.receive(BOUND).headers) == {}
    _ = consumer.receive(BOUND).headers
    assert not path.exists()
