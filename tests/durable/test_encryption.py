"""A sealed broker: everything comes back, and nothing that was said is to be found in its files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conformance.patience import BOUND, Call

import ringpost
from durable.sealing import KEY, after_reboot, bytes_on_disk, drain, environment_of, rows_of
from ringpost.store import format as form
from ringpost.store import transactions
from ringpost.store.values import SealedValues

LARGE = 300_000
NAMES_ARE_PLAIN = (b"jobs", b"news", b"late reader")


class Said:
    """What was said, one thing everywhere."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, what: str) -> str:
        self.words.append(f"said-{what}-{len(self.words)}")
        return self.words[-1]


def say_everything(broker: ringpost.Broker, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = broker.queue("jobs")
    jobs.put(said("text"))
    jobs.put(said("bytes").encode())
    jobs.put({said("name"): [said("item"), 1.5]})
    jobs.put(said("large") + "x" * LARGE)
    jobs.put(np.frombuffer(said("array").encode(), "u1"))
    with jobs.producer(dedup_window=1000) as producer:
        producer.send(1, headers={said("header"): said("value")}, message_id=said("id"))
        producer.send(2, correlation_id=said("correlation"), key=said("key"), content_type=said("type"))
        producer.send(said("later"), delay=1000)
    with broker.queue("ranked", priorities=True).producer() as producer:
        producer.send(said("urgent"), priority=5)
    news = broker.topic("news", retention=ringpost.Retention(compact=True))
    news.subscribe(said("pattern") + ".#", name="late reader")
    news.publish(said("news"), subject=said("subject"), retain=True)
    news.publish(said("keyed"), key=said("compacted"), retain=True)
    broker.queue("doomed").put(said("doomed"))
    broker.queue("doomed").consumer(dead_letters=True).receive(BOUND).reject(said("reason"))
    with monkeypatch.context() as patch, broker.transaction() as tx:
        patch.setattr(transactions, "_put", lambda *unused: None)  # as if it died there: the record stays
        patch.setattr(transactions.Transactions, "_end", lambda *unused: None)
        tx.send("jobs", said("decided"))
    broker.flush()


@pytest.mark.parametrize("is_sealed", [True, False])
def test_what_is_said_is_not_in_the_files(
    place: Path, shm_dir: Path, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> None:
    """Unsealed it is, all of it: so they are looked through well."""
    pytest.importorskip("cryptography", reason="needs cryptography")
    monkeypatch.delenv("RINGPOST_KEY", raising=False)
    broker, said = ringpost.connect(f"ring://{place}", key=KEY if is_sealed else None), Said()
    say_everything(broker, said, monkeypatch)
    on_disk = bytes_on_disk(place)
    found = [word for word in said.words if word.encode() in on_disk]
    assert found == ([] if is_sealed else said.words)
    assert len(said.words) > 20
    assert all(name in on_disk for name in NAMES_ARE_PLAIN)
    broker.destroy()


def test_every_kind_comes_back(
    sealed: ringpost.Broker, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    say_everything(sealed, said, monkeypatch)
    text, data, name, item, large, array, *_ = said.words
    broker = after_reboot(sealed, shm_dir)
    consumer = broker.queue("jobs").consumer()
    messages = [consumer.receive(BOUND) for _ in range(8)]
    bodies: list[Any] = [message.body for message in messages]
    assert bodies[:4] == [text, data.encode(), {name: [item, 1.5]}, large + "x" * LARGE]
    assert bytes(bodies[4]) == array.encode()
    assert bodies[5:] == [1, 2, said.words[-1]]
    assert next(iter(messages[5].headers.values())) in said.words
    assert {messages[5].id, messages[6].correlation_id, messages[6].key} <= set(said.words)
    with broker.queue("jobs").producer(dedup_window=1000) as producer:
        assert not producer.send("again", message_id=messages[5].id)
        assert producer.send("new", message_id="new")
    assert broker.queue("ranked").get(timeout=BOUND).startswith("said-urgent")
    assert len(broker.topic("news").subscribe(start="earliest").receive_many(2, timeout=BOUND)) == 2
    (subject,) = (word for word in said.words if word.startswith("said-subject"))
    retained = broker.topic("news").subscribe(subject, retained=True).receive(BOUND)
    assert (retained.retained, retained.body[:9]) == (True, "said-news")
    assert broker.topic("news").clear_retained(retained.subject)
    ((death, dead),) = broker.queue("doomed").dead_letters().peek()
    assert (death.reason in said.words, dead.body in said.words) == (True, True)
    broker.close()


def test_what_is_due_later_comes(sealed: ringpost.Broker, shm_dir: Path) -> None:
    with sealed.queue("jobs").producer() as producer:
        producer.send("later", delay=0.3)
    broker = after_reboot(sealed, shm_dir)
    assert broker.queue("jobs").get(timeout=BOUND) == "later"
    broker.close()


def test_a_lease_survives(sealed: ringpost.Broker, shm_dir: Path) -> None:
    queue = sealed.queue("jobs")
    queue.put_many(range(100))
    consumer = queue.consumer()
    held = consumer.receive_many(10, timeout=BOUND)
    consumer.receive_many(90, timeout=BOUND)[0].ack()
    held[3].ack()
    sealed.flush()
    broker = after_reboot(sealed, shm_dir)
    again = broker.queue("jobs").consumer().receive_many(100, timeout=BOUND)
    assert sorted(message.body for message in again) == sorted(set(range(100)) - {3, 10})
    broker.close()


def test_a_backlog_many_times_the_ring(sealed: ringpost.Broker, shm_dir: Path) -> None:
    """Blocks of full size, and as few pages as they take unsealed."""
    queue = sealed.queue("long", capacity=256 << 10, durability="interval")
    items = [bytes([number % 256]) * 1000 for number in range(4000)]
    queue.put_many(items)
    sealed.flush()
    values = rows_of(environment_of(sealed), form.BLOCKS).values()
    assert max(map(len, values)) <= form.PAGES
    assert sum(len(value) > form.PAGES - 2048 for value in values) > 20
    broker = after_reboot(sealed, shm_dir)
    assert drain(broker.queue("long")) == items
    broker.close()


def test_compaction_and_retention(sealed: ringpost.Broker, shm_dir: Path) -> None:
    settings = sealed.topic("settings", retention=ringpost.Retention(compact=True), capacity=128 << 10)
    recent = sealed.topic("recent", retention=ringpost.Retention(messages=100), capacity=128 << 10)
    for number in range(3000):
        settings.publish([number, "x" * 200], key=f"key {number % 7}", durability="interval")
        recent.publish([number, "x" * 200], durability="interval")
    sealed.flush()
    keys = rows_of(environment_of(sealed), form.KEYS)
    assert len(keys) == 7
    broker = after_reboot(sealed, shm_dir)
    found = broker.topic("settings").subscribe(start="earliest").receive_many(3000, timeout=BOUND)
    assert {message.key: message.body[0] for message in found} == {
        f"key {number % 7}": number for number in range(2993, 3000)
    }
    assert len(found) < 1500
    last = broker.topic("recent").subscribe(start=2900).receive_many(1000, timeout=BOUND)
    assert [message.body[0] for message in last] == list(range(2900, 3000))
    assert ringpost.verify(broker.url.removeprefix("ring://"), key=KEY).ok
    broker.close()


def test_a_transaction_of_the_dead_is_carried_out(
    sealed: ringpost.Broker, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say_everything(sealed, Said(), monkeypatch)
    assert len(rows_of(environment_of(sealed), form.TRANSACTIONS)) == 1
    broker = after_reboot(sealed, shm_dir)
    assert drain(broker.queue("jobs"))[-1].startswith("said-decided")
    assert rows_of(environment_of(broker), form.TRANSACTIONS) == {}
    broker.close()


def test_a_backup_leaves_what_is_kept_aside_sealed(sealed: ringpost.Broker, tmp_path: Path) -> None:
    """Of threads that write there meanwhile, too: a process has one side store."""
    sealed.queue("jobs").producer().send("late", delay=60)
    store = sealed._engine.side_store()
    sealed.backup(tmp_path / "copy")
    assert isinstance(store.values, SealedValues)


def test_a_backup_has_the_same_key(sealed: ringpost.Broker, tmp_path: Path) -> None:
    with sealed.queue("jobs").producer(dedup_window=1000) as producer:
        producer.send("one", message_id="1")
        producer.send(b"x" * LARGE)
    to = tmp_path / "copy"
    sealed.backup(to)
    assert ringpost.verify(to, key=KEY).ok
    with pytest.raises(ringpost.KeyRefused):
        ringpost.connect(f"ring://{to}").queue("jobs")
    with ringpost.connect(f"ring://{to}", key=KEY) as copy:
        assert drain(copy.queue("jobs")) == ["one", b"x" * LARGE]
        with copy.queue("jobs").producer(dedup_window=1000) as producer:
            assert not producer.send("one", message_id="1")
        copy.destroy()


def test_an_unsealed_one_is_written_as_ever(
    durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment_of(durable).broker.format == form.SEALED:
        pytest.skip("RINGPOST_KEY is set")
    durable.queue("jobs").put("x")
    durable.flush()
    assert environment_of(durable).broker.format == 1
    (block,) = rows_of(environment_of(durable), form.BLOCKS).values()
    assert block[:4] == b"rpb1"
    assert block[52:64] == bytes(12)  # key, reserved
    assert set(rows_of(environment_of(durable), form.META)) == {b"broker"}


def test_the_same_again_looks_otherwise(sealed: ringpost.Broker) -> None:
    """Nonces are drawn: equal messages are not seen to be equal."""
    for _ in range(20):
        sealed.queue("jobs").put("x" * 100)
        time.sleep(0)
    blocks = [value[form.HEADER :] for value in rows_of(environment_of(sealed), form.BLOCKS).values()]
    assert len(blocks) == 20
    assert len({block[:24] for block in blocks}) == 20
    assert len({block[24:] for block in blocks}) == 20


def test_a_backup_leaves_what_waits_sealed(sealed: ringpost.Broker, place: Path, tmp_path: Path) -> None:
    """Somebody sends, and waits for who has the side store, while a backup is made."""
    queue, text = sealed.queue("jobs"), b"a secret that waits to be sent"
    with queue.producer() as producer:
        producer.send("first", delay=0.001)
        with sealed._engine.side_store().alone():  # type: ignore[attr-defined]
            send = Call(producer.send, text, delay=0.001)
            assert send.is_blocked()
            backup = Call(sealed.backup, tmp_path / "copy")
            assert backup.is_blocked()
        send.result()
        backup.result()
    assert text not in bytes_on_disk(place)
    assert [queue.get(timeout=BOUND) for _ in range(2)] == ["first", text]
