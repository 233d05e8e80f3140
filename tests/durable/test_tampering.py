"""Somebody writes to a sealed broker's files, and has no key: it is found, and what was changed is named."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from conformance.patience import BOUND

import ringpost
from durable.sealing import KEY, Put, after_reboot, changing, drain, environment_of, rows_of
from ringpost.store import format as form

ITEMS = [b"item %d " % number + bytes(900) for number in range(300)]
POSITION = slice(4, 12)  # in the key of a block


@pytest.fixture
def filled(sealed: ringpost.Broker) -> ringpost.Broker:
    """With blocks in two logs."""
    for name in ("jobs", "other"):
        queue = sealed.queue(name, capacity=128 << 10)
        for start in range(0, 300, 20):
            queue.put_many(ITEMS[start : start + 20])
    return sealed


def blocks_of(broker: ringpost.Broker, number: int) -> dict[bytes, bytes]:
    rows = rows_of(environment_of(broker), form.BLOCKS)
    return {key: value for key, value in rows.items() if key[:4] == form.number_key(number)}


def expect_damage(broker: ringpost.Broker, shm_dir: Path, key: bytes, name: str = "jobs") -> None:
    """verify() and consumers name the block, and nothing of it is handed out."""
    named = re.escape(f"block {form.describe(key)} is damaged")
    place = broker.url.removeprefix("ring://")
    found = ringpost.verify(place, key=KEY)
    assert [problem for problem in found.problems if re.search(named, problem)]
    broker = after_reboot(broker, shm_dir)
    got: list[bytes] = []
    with pytest.raises(ringpost.StorageDamaged, match=named):  # noqa: PT012
        while True:
            got += broker.queue(name).get_many(10, block=False)
    assert got == ITEMS[: len(got)]
    broker.close()


def test_a_bit_of_any_byte(filled: ringpost.Broker) -> None:
    """Each byte of the header, the nonce and the tag, and some of the rest."""
    (key, value), *_ = blocks_of(filled, 1).items()
    environment, chance = environment_of(filled), random.Random(1)
    record = filled.queue("jobs")._log.storage.record  # type: ignore[attr-defined]
    values = environment.values(record.id)
    places = [
        *range(form.HEADER + 24),
        *range(len(value) - 16, len(value)),
        *chance.sample(range(len(value)), 300),
    ]
    for at in places:
        changed = bytearray(value)
        changed[at] ^= 1 << chance.randrange(8)
        with pytest.raises(ringpost.StorageDamaged, match=f"block {form.describe(key)} is damaged"):
            values.frames(key, bytes(changed))
    assert values.frames(key, value)[0].frames == 20


def flip(put: Put, mine: dict[bytes, bytes], others: dict[bytes, bytes]) -> bytes:
    key = sorted(mine)[3]
    value = bytearray(mine[key])
    value[-1] ^= 1
    put(key, bytes(value))
    return key


def cut(put: Put, mine: dict[bytes, bytes], others: dict[bytes, bytes]) -> bytes:
    key = sorted(mine)[3]
    put(key, mine[key][:-100])
    return key


def swap(put: Put, mine: dict[bytes, bytes], others: dict[bytes, bytes]) -> bytes:
    one, two = sorted(mine)[3:5]
    put(one, mine[two])
    put(two, mine[one])
    return one


def swap_in_disguise(put: Put, mine: dict[bytes, bytes], others: dict[bytes, bytes]) -> bytes:
    """Each with the header that belongs there."""
    one, two = sorted(mine)[3:5]
    put(one, mine[one][: form.HEADER] + mine[two][form.HEADER :])
    put(two, mine[two][: form.HEADER] + mine[one][form.HEADER :])
    return one


def take_from_another_log(put: Put, mine: dict[bytes, bytes], others: dict[bytes, bytes]) -> bytes:
    """The same messages at the same position."""
    key = sorted(mine)[3]
    put(key, others[form.number_key(2) + key[4:]])
    return key


def unseal(put: Put, mine: dict[bytes, bytes], others: dict[bytes, bytes]) -> bytes:
    """A plain block, as anybody can make it."""
    key = sorted(mine)[3]
    header = form.header_of(mine[key])
    frames = form.void_frames(header.sequence, header.frames, header.size)
    put(key, form.pack_block(header, frames))
    return key


@pytest.mark.parametrize("how", [flip, cut, swap, swap_in_disguise, take_from_another_log, unseal])
def test_blocks(filled: ringpost.Broker, shm_dir: Path, how: object) -> None:
    mine, others = blocks_of(filled, 1), blocks_of(filled, 2)
    with changing(environment_of(filled), form.BLOCKS) as put:
        key = how(put, mine, others)  # type: ignore[operator]
    expect_damage(filled, shm_dir, key)


def test_a_missing_block(filled: ringpost.Broker, shm_dir: Path) -> None:
    """Positions are dense."""
    key = sorted(blocks_of(filled, 1))[3]
    with changing(environment_of(filled), form.BLOCKS) as put:
        put(key, None)
    queue, got = after_reboot(filled, shm_dir).queue("jobs"), []
    with pytest.raises(ringpost.StorageDamaged, match=f"position {form.position_of(key)} is missing"):  # noqa: PT012
        while True:
            got += queue.get_many(10, block=False)
    assert got == ITEMS[:60]


def test_a_log_with_the_number_of_another(filled: ringpost.Broker, shm_dir: Path) -> None:
    """Somebody turns back the number that the next log gets: it does not read another one's messages."""
    environment = environment_of(filled)
    old = environment.broker
    with changing(environment, form.META) as put:
        put(b"broker", form.encode(form.BrokerRecord(old.format, old.id, old.made_ns, 1)))
    with pytest.raises(ringpost.StorageDamaged):
        filled.queue("new")
    broker = after_reboot(filled, shm_dir)
    assert drain(broker.queue("jobs")) == ITEMS
    broker.close()


@pytest.mark.parametrize("table", [form.LOGS, form.PROGRESS, form.GROUPS])
@pytest.mark.parametrize("what", ["changed", "cut", "swapped", "unsealed"])
def test_everything_else(filled: ringpost.Broker, shm_dir: Path, table: bytes, what: str) -> None:
    rows = rows_of(environment_of(filled), table)
    first, second, *_ = rows
    with changing(environment_of(filled), table) as put:
        if what == "changed":
            put(first, rows[first][:-1] + bytes([rows[first][-1] ^ 128]))
        elif what == "cut":
            put(first, rows[first][:20])
        elif what == "swapped":
            put(first, rows[second])
        else:
            put(first, form.Progress(0, 0, 0).pack())
    broker = after_reboot(filled, shm_dir)
    with pytest.raises(
        ringpost.StorageDamaged, match=f"entry {first.hex()} of table {table.decode()} is damaged"
    ):
        broker.queue("jobs").get(timeout=BOUND)
    broker.close()


@pytest.mark.parametrize("table", [b"scheduled", b"sent", b"retained"])
def test_the_side_store(sealed: ringpost.Broker, table: bytes) -> None:
    topic = sealed.topic("news")
    topic.publish("x", subject="a", retain=True)
    topic.publish("y", subject="b", retain=True)
    with sealed.queue("jobs").producer(dedup_window=1000) as producer:
        producer.send("x", message_id="1")
        producer.send("y", delay=0.5)
        producer.send("z", delay=0.6)
    store = sealed._engine.side_store()
    with store.write() as transaction, transaction.cursor(store.table(table)) as cursor:
        for key, value in list(cursor):
            if value:
                transaction.put(key, value[:-1] + bytes([value[-1] ^ 1]), db=store.table(table))
    with pytest.raises(ringpost.StorageDamaged, match=f"of table {table.decode()} is damaged"):  # noqa: PT012
        if table == b"retained":
            topic.subscribe(retained=True)
        elif table == b"sent":
            sealed.queue("jobs").producer(dedup_window=1000).send("x", message_id="1")
        else:
            for _ in range(3):
                sealed.queue("jobs").get(timeout=BOUND)


def test_a_damaged_block_is_given_up_on_request(filled: ringpost.Broker, shm_dir: Path) -> None:
    key = sorted(blocks_of(filled, 1))[3]
    with changing(environment_of(filled), form.BLOCKS) as put:
        put(key, blocks_of(filled, 2)[form.number_key(2) + key[4:]])
    place = filled.url.removeprefix("ring://")
    assert ringpost.verify(place, key=KEY, skip_damaged=True).given_up == (form.describe(key),)
    assert ringpost.verify(place, key=KEY).ok
    assert drain(after_reboot(filled, shm_dir).queue("jobs")) == ITEMS[:60] + ITEMS[80:]
