"""Compaction: of each key the last message is kept, and the disk holds little more than that."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conformance.patience import BOUND

import ringpost
from durable.conftest import Reboot
from durable.sealing import changing
from ringpost import Retention
from ringpost.store import format as form

SMALL = 256 << 10  # bytes of a ring


def compacted(broker: ringpost.Broker, **options: Any) -> ringpost.Topic[Any]:
    return broker.topic("prices", capacity=SMALL, retention=Retention(compact=True, **options))


def replay(topic: ringpost.Topic[Any]) -> list[tuple[str | None, Any]]:
    """(key or subject, body) of all there is."""
    found = []
    topic.publish("end")
    with topic.subscribe(start="earliest") as subscriber:
        behind = -1
        while True:
            message = subscriber.receive(BOUND)
            assert message.sequence > behind
            behind = message.sequence
            if message.sequence + 1 == topic.stats().published:
                return found
            if message.body != "end":
                found.append((message.key or message.subject or None, message.body))


def entries(broker: ringpost.Broker, table: bytes | None) -> int:
    environment = broker._engine._environment()  # type: ignore[attr-defined]
    with environment.read() as transaction:
        return int(transaction.stat(environment.table(table))["entries"])


@pytest.mark.parametrize("at_once", [1, 50, 1000])
def test_the_last_of_each_key_is_kept(durable: ringpost.Broker, reboot: Reboot, at_once: int) -> None:
    topic, chance = compacted(durable), random.Random(at_once)
    count = 2000 if at_once > 1 else 300
    last: dict[str, Any] = {}
    updates = []
    for number in range(count):
        name = f"k{chance.randrange(20)}"
        last[name] = bytes(chance.choice((4, 100, 3000))) + b"%d" % number
        updates.append((name, last[name]))
    for start in range(0, count, at_once):
        topic.publish_many(updates[start : start + at_once])
    found = replay(reboot().topic("prices"))
    assert dict(found) == last
    assert len(found) < 20 * 5
    assert [each for each in updates if each in found] == found  # in order, and as they were


def test_keys_go_before_subjects_and_who_has_neither_stays(durable: ringpost.Broker, reboot: Reboot) -> None:
    topic = compacted(durable)
    for number in range(500):
        topic.publish(number, "subject", key=f"key {number % 3}", durability="memory")
        topic.publish(number, "subject", durability="memory")
        topic.publish(number, durability="memory")
    topic.publish("a long one", "x" * 250, key="y" * 2000)
    topic.publish("a longer one", "x" * 250, key="y" * 2000)
    found = replay(reboot().topic("prices"))
    bodies = [body for key, body in found if key is None]
    assert bodies == list(range(500))
    by_key = {key: body for key, body in found if key is not None}
    assert by_key == {
        "key 0": 498,
        "key 1": 499,
        "key 2": 497,
        "subject": 499,
        "y" * 2000: "a longer one",
    }


def test_the_disk_holds_little_more(durable: ringpost.Broker) -> None:
    """Ten thousand updates of a few keys, large ones too, one commit each or many."""
    topic = compacted(durable)
    for number in range(300):
        topic.publish(bytes(100), f"k{number % 5}")
    assert entries(durable, form.BLOCKS) < 60  # what became empty is one
    for _ in range(100):
        topic.publish_many([(f"k{i % 50}", bytes(200)) for i in range(100)])
        topic.publish(bytes(100_000), "large")
    assert entries(durable, form.PAYLOADS) <= 2  # 100,000 bytes
    assert entries(durable, form.KEYS) == 51
    assert durable._engine._environment().size() < 2 << 20  # type: ignore[attr-defined]
    found = dict(replay(topic))
    assert len(found) == 51
    assert found["large"] == bytes(100_000)


def test_a_bound_takes_keys_too(durable: ringpost.Broker) -> None:
    topic = compacted(durable, messages=500)
    for start in range(0, 20_000, 500):
        topic.publish_many((f"k{number}", bytes(50)) for number in range(start, start + 500))
    assert entries(durable, form.KEYS) < 3000
    assert entries(durable, form.SUPERSEDED) == 0


def test_a_named_subscriber_that_is_behind(durable: ringpost.Broker, reboot: Reboot) -> None:
    """It gets what is left, in order, and goes on where it was."""
    topic = compacted(durable)
    topic.subscribe(name="slow").close()
    topic.publish_many((f"k{number % 7}", number) for number in range(5000))
    slow = reboot().topic("prices").subscribe(name="slow")
    found = []
    while not found or found[-1] < 4999:
        with slow.receive(BOUND) as message:
            found.append(message.body)
    assert found == sorted(set(found))
    assert set(found) >= set(range(4993, 5000))
    assert len(found) < 50
    with pytest.raises(ringpost.Empty):
        slow.receive(0)


def test_patterns_and_sequences_pass_over_what_is_gone(durable: ringpost.Broker, reboot: Reboot) -> None:
    topic = compacted(durable)
    topic.publish_many((f"{'ab'[number % 2]}.{number % 10}", number) for number in range(3000))
    topic = reboot().topic("prices")
    with topic.subscribe("a.*", start=100) as subscriber:
        bodies = {subscriber.receive(BOUND).body}
        while 2998 not in bodies:
            bodies.add(subscriber.receive(BOUND).body)
    assert bodies >= {2990, 2992, 2994, 2996, 2998}
    assert not any(body % 2 for body in bodies)


def test_it_is_whole(durable: ringpost.Broker, place: Path, tmp_path: Path) -> None:
    topic = compacted(durable)
    for _ in range(50):
        topic.publish_many((f"k{number % 30}", bytes(number)) for number in range(300))
    assert ringpost.verify(place).problems == ()
    durable.backup(tmp_path / "copy")
    assert ringpost.verify(tmp_path / "copy").problems == ()
    with ringpost.connect(f"ring://{tmp_path / 'copy'}") as copy:
        assert dict(replay(copy.topic("prices"))) == {f"k{n % 30}": bytes(n) for n in range(270, 300)}
        copy.destroy()


def test_random_histories(durable: ringpost.Broker, reboot: Reboot) -> None:
    """Publishing in all sizes of commits, with reboots between: always the last of each key, in order."""
    chance, last = random.Random(7), {}
    topic, number = compacted(durable), 0
    for _ in range(60):
        updates = []
        for _ in range(chance.choice((1, 3, 40, 400))):
            name = f"k{int(chance.paretovariate(0.7)) % 200}"
            last[name] = (number, bytes(chance.choice((0, 10, 1000, 16_000, 30_000))))
            updates.append((name, list(last[name])))
            number += 1
        topic.publish_many(updates)
        if chance.random() < 0.2:
            topic = reboot().topic("prices")
            found = replay(topic)
            assert {name: tuple(body) for name, body in found} == last
            assert [body[0] for _, body in found] == sorted({body[0] for _, body in found})


def test_only_on_disk(shm_dir: Path) -> None:
    with ringpost.connect("ring:memory") as broker, pytest.raises(ringpost.Unsupported):
        broker.topic("prices", retention=Retention(compact=True))


def test_a_block_whose_header_is_damaged_is_named(durable: ringpost.Broker) -> None:
    topic = compacted(durable)
    for key in "abc":
        topic.publish(0, key)
    environment = durable._engine._environment()  # type: ignore[attr-defined]
    with environment.read() as transaction, transaction.cursor(environment.table(form.BLOCKS)) as cursor:
        blocks = [(bytes(key), len(value)) for key, value in cursor if key[0] == 0]
        damaged, size = blocks[0]
    with changing(environment, form.BLOCKS) as put:
        put(damaged, b"x" * size)
    with pytest.raises(ringpost.StorageDamaged, match=f"block {form.describe(damaged)} is damaged"):
        topic.publish(1, "a")
