"""Records in storage that say what cannot be: StorageDamaged, which names them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pytest
from crash.children import Nursery
from crash.fixtures import fork as fork

import ringpost
from durable.conftest import lose_shared_memory

PASSPHRASE = "a passphrase of the shop"
Damage = Callable[[Any], None]


@pytest.fixture
def made(url: str, fork: Nursery, shm_dir: Path) -> Iterator[Callable[[str | None], None]]:
    """made(key): a queue, and a topic with a subscriber, by a process that died."""

    def make(key: str | None) -> None:
        with ringpost.connect(url, key=key) as broker:
            broker.queue("jobs", capacity=128 << 10).put_many(range(100))
            topic = broker.topic("news", capacity=128 << 10)
            topic.subscribe("a.*", name="reader").close()
            topic.publish(1, subject="a.b")

    def made(key: str | None = None) -> None:
        assert fork(make, key).wait() == 0
        lose_shared_memory(shm_dir)

    yield made
    lose_shared_memory(shm_dir)


def damage(place: Path, table: bytes, row: bytes, how: Damage) -> None:
    """As somebody does who may write to the file."""
    with (
        lmdb.open(str(place), max_dbs=20, map_size=1 << 30, lock=False) as store,
        store.begin(write=True, db=store.open_db(table, create=False)) as transaction,
    ):
        record = msgspec.msgpack.decode(transaction.get(row))
        how(record)
        transaction.put(row, msgspec.msgpack.encode(record))


def says(*way: str | int, value: Any) -> Damage:
    """This field has this value."""

    def change(record: Any) -> None:
        *others, last = way
        for each in others:
            record = record[each]
        record[last] = value

    return change


def refused(url: str, place: Path, key: str | None, told: str, also_by_verify: bool = True) -> None:
    def use_queue() -> None:
        ringpost.connect(url, key=key).queue("jobs").get(timeout=5)

    def use_topic() -> None:
        ringpost.connect(url, key=key).topic("news").subscribe("a.*", name="reader")

    calls = [use_topic if "news" in told or "Group" in told else use_queue]
    calls += [lambda: ringpost.verify(place, key=key)] if also_by_verify else []
    for call in calls:
        with pytest.raises(ringpost.StorageDamaged, match=told):
            call()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("next_number", each) for each in (-1, 1 << 40)],
        *[("id", each) for each in (b"x", bytes(300))],
        ("made_ns", -1),
        ("format", 2.5),
    ],
)
def test_the_broker_s(
    made: Callable[..., None], url: str, place: Path, fork: Nursery, field: str, value: Any
) -> None:
    made()
    damage(place, b"meta", b"broker", says(field, value=value))
    assert fork(refused, url, place, None, f"{place}: a BrokerRecord is damaged.*{field}").wait() == 0


@pytest.mark.parametrize(
    "way_and_value",
    [
        *[(0, each) for each in (-1, (1 << 64) - 1)],
        (1, b""),
        (2, 0, b""),
        *[(2, 1, each) for each in (-2, 3, 1 << 40)],
        *[(2, 2, each) for each in (-8, 0)],
        *[(2, 3, each) for each in (-1, 17)],
    ],
)
def test_keys(
    made: Callable[..., None], url: str, place: Path, fork: Nursery, way_and_value: tuple[Any, ...]
) -> None:
    made(PASSPHRASE)
    *way, value = way_and_value
    damage(place, b"meta", b"keys", says(*way, value=value))
    assert fork(refused, url, place, PASSPHRASE, f"the keys of {place} are damaged").wait() == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("number", each) for each in (-1, 1 << 32)],
        *[("id", each) for each in (b"", bytes(300))],
        *[("capacity", each) for each in (-1, 5, 1 << 43)],
        ("max_messages", -1),
        ("durability", "eternal"),
    ],
)
def test_a_log_s(
    made: Callable[..., None], url: str, place: Path, fork: Nursery, field: str, value: Any
) -> None:
    made()
    damage(place, b"logs", b"queue\0jobs", says(field, value=value))
    assert fork(refused, url, place, None, f"a LogRecord is damaged.*{field}").wait() == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(0, each) for each in (bytes(64), 5)],
        (1, bytes(256)),
        *[(field, -1) for field in (2, 5)],
        *[(6, each) for each in (bytes(31), -1)],
    ],
)
def test_a_group_s(
    made: Callable[..., None], url: str, place: Path, fork: Nursery, field: int, value: Any
) -> None:
    made()
    damage(place, b"groups", b"\0\0\0\2reader", says(field, value=value))
    assert fork(refused, url, place, None, "a GroupRecord is damaged", False).wait() == 0


def test_a_queue_s_group_that_contradicts_it(
    made: Callable[..., None], url: str, place: Path, fork: Nursery
) -> None:
    """More in hands than there ever was."""
    made()

    def hold(record: list[Any]) -> None:
        record[4], record[6] = 0, b"".join(bytes(16) + b"\xff" * 8 + bytes(8) for _ in range(9))

    damage(place, b"groups", b"\0\0\0\1", hold)
    assert fork(refused, url, place, None, "of a group of log 1 contradicts", False).wait() == 0


def test_the_last_number(made: Callable[..., None], url: str, place: Path, fork: Nursery) -> None:
    """What is there goes on."""

    def use() -> None:
        broker = ringpost.connect(url)
        with pytest.raises(ringpost.Unsupported, match="can have no more"):
            broker.queue("another")
        assert broker.queue("jobs").get(timeout=5) == 0
        os._exit(0)

    made()
    damage(place, b"meta", b"broker", says("next_number", value=(1 << 32) - 1))
    assert fork(use).wait() == 0


@pytest.mark.parametrize("capacity", [-5, 5, 1 << 43, 1 << 70])
def test_a_capacity_that_cannot_be_takes_no_name(durable: ringpost.Broker, capacity: int) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match=f"out of range .{capacity} bytes"):
            durable.queue("jobs", capacity=capacity)
    assert durable.list() == []
    durable.queue("jobs").put("x")
