"""Compaction: of each key the last message is kept, and the disk holds little more than that."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conformance.patience import BOUND
from conformance.topics import bodies

import ringpost
from durable.conftest import Reboot
from durable.sealing import changing, rows_of
from ringpost import Retention
from ringpost.store import format as form
from ringpost.store.values import PLAIN

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


# ---- who stands where something is gone -----------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
@pytest.mark.parametrize("keys", ["aaaa", "abab", "abcabcabc", "aaaaaaab"])
def test_who_stands_where_messages_are_gone_goes_on_after_a_reboot(
    durable: ringpost.Broker, reboot: Reboot, keys: str, taken: int
) -> None:
    topic = compacted(durable)
    topic.subscribe(name="slow", start="earliest").close()
    for number, key in enumerate(keys):
        topic.publish(number, key=key)
    with topic.subscribe(name="slow") as before:
        for message in before.receive_many(taken, timeout=BOUND) if taken else []:
            message.ack()
    topic._log.flush(BOUND)  # type: ignore[attr-defined]
    slow = reboot().topic("prices").subscribe(name="slow", prefetch=1)
    assert rest_of(slow)[-1] == len(keys) - 1


def test_all_who_stand_where_the_ring_has_lost_what_is_gone_go_on(durable: ringpost.Broker) -> None:
    """By name, without one, and with a lease that is given back."""
    topic = compacted(durable)
    with ringpost.connect(durable.url) as other:
        subscribers = [
            topic.subscribe(name="x", prefetch=1),
            topic.subscribe(prefetch=1, auto_ack=False),
            other.topic("prices").subscribe(name="y", prefetch=1),
        ]
        topic.publish_many([("a", "first")] * 8)
        for subscriber in subscribers:
            for _ in range(3):
                subscriber.receive(BOUND).ack()
        held = subscribers[-1].receive(BOUND)
        for number in range(150):
            topic.publish([number, bytes(5000)], "a", durability="interval")
        topic.publish("last", "b")
        held.nack()
        for subscriber in subscribers:
            assert rest_of(subscriber)[-1] == "last"


@pytest.mark.parametrize("how", [{"name": "x"}, {"auto_ack": False}, {}])
@pytest.mark.parametrize("count", [40, 120])
def test_large_messages_that_go_between_their_frame_and_their_payload(
    durable: ringpost.Broker, how: dict[str, Any], count: int
) -> None:
    """The ring has their frames yet, or they were read ahead out of storage."""
    topic = compacted(durable)
    with topic.subscribe(prefetch=1, **how) as subscriber:
        for turn in (1, 2, 3):
            for number in range(count):
                topic.publish([1000 * turn + number, bytes(30_000)], f"k{number}", durability="interval")
            topic._log.flush(BOUND)  # type: ignore[attr-defined]
            for _ in range(2):
                message = subscriber.receive(BOUND)
                if how:
                    message.ack()
        assert rest_of(subscriber, acks=bool(how))[-1][0] == 3000 + count - 1


@pytest.mark.parametrize("seed", range(3))
def test_subscribers_that_read_from_storage_and_ring_in_turns(
    durable: ringpost.Broker, reboot: Reboot, seed: int
) -> None:
    """Each gets the last of each key, and nothing twice, wherever it stood when something went."""
    chance = random.Random(seed)
    names = ("fast", "slow", "lazy")
    got: dict[str, list[int]] = {name: [] for name in names}
    topic, number = compacted(durable), 0
    last: dict[str, int] = {}
    subscribers = {name: topic.subscribe(name=name, prefetch=chance.choice((1, 8))) for name in names}
    for _ in range(60):
        for _ in range(chance.choice((1, 2, 30))):
            name = f"k{int(chance.paretovariate(0.7)) % 20}"
            last[name], size = number, chance.choice((0, 10, 300, 5000, 16_000))
            topic.publish([number, bytes(size)], name, durability=chance.choice(("commit", "interval")))
            number += 1
        for name, most in zip(names, (40, 8, 1), strict=True):
            got[name] += some_of(subscribers[name], chance.randrange(most + 1), chance)
        if chance.random() < 0.1:
            topic._log.flush(BOUND)  # type: ignore[attr-defined]
            topic = reboot().topic("prices")
            subscribers = {name: topic.subscribe(name=name, prefetch=2) for name in names}
    for name in names:
        got[name] += [body[0] for body in rest_of(subscribers[name])]
        assert len(got[name]) == len(set(got[name]))
        assert set(got[name]) >= set(last.values())


def some_of(subscriber: ringpost.Subscriber[Any], most: int, chance: random.Random) -> list[int]:
    """Numbers of messages. Some are given back, to come again or to be compacted before they do."""
    found: list[int] = []
    while len(found) < most:
        try:
            message = subscriber.receive(0)
        except ringpost.Empty:
            break
        if chance.random() < 0.1:
            message.nack()
            continue
        found.append(message.body[0])
        message.ack()
    return found


def rest_of(subscriber: ringpost.Subscriber[Any], acks: bool = True) -> list[Any]:
    return bodies(subscriber, 0.2, acks)


# ---- sparse blocks ---------------------------------------------------------------------------------

Frames = list[tuple[int, bytes | None]]


def frames_of(spans: list[int], sequence: int, kept: set[int]) -> tuple[form.Header, Frames]:
    """Of these spans, from position 160 on, of which some are kept, by their place."""
    frames: Frames = []
    for number, span in enumerate(spans):
        frame = form.void_frames(sequence + number, 1, span)
        frames.append((span, frame if number in kept else None))
    count = len(spans)
    return form.Header(count, sum(spans), 160, sequence, sequence + count, 0, len(kept)), frames


def boundaries(header: form.Header, body: bytes) -> list[tuple[int, int]]:
    frames = form.filled(header, body)
    return [(frame.span, frame.sequence) for frame in form.frames_in(frames, header.position)]


@pytest.mark.parametrize("seed", range(20))
def test_a_sparse_block_has_the_boundaries_it_had(seed: int) -> None:
    chance = random.Random(seed)
    sizes = chance.choice(([32], [32, 48], list(range(32, 16_432, 16))))
    spans = [chance.choice(sizes) for _ in range(chance.choice((1, 15, 16, 17, 60)))]
    kept = {number for number in range(len(spans)) if chance.random() < chance.choice((0, 0.1, 0.9))}
    header, frames = frames_of(spans, 7, kept)
    body = form.pack_sparse(frames)
    assert boundaries(header, body) == [(span, 7 + number) for number, span in enumerate(spans)]
    assert len(body) <= 2 + 2 * len(spans) + sum(spans[number] for number in kept)


def test_blocks_that_become_one_keep_their_boundaries() -> None:
    chance, spans = random.Random(3), [64]
    header, frames = frames_of(spans, 7, {0})
    body = form.pack_sparse(frames)
    for _ in range(100):
        more = [chance.choice((32, 48)) for _ in range(chance.choice((1, 2, 40)))]
        other, gone = frames_of(more, header.end_sequence, set())
        both = form.joined(header, body, other._replace(position=header.end), form.pack_sparse(gone))
        assert both is not None
        (header, body), spans = both, spans + more
    assert boundaries(header, body) == [(span, 7 + number) for number, span in enumerate(spans)]


def test_what_became_empty_one_at_a_time_takes_few_bytes() -> None:
    header, frames = frames_of([112], 7, set())
    one = body = form.pack_sparse(frames)
    for _ in range(999):
        both = form.joined(header, body, frames_of([112], header.end_sequence, set())[0], one)
        assert both is not None
        header, body = both
    assert header.frames == 1000
    assert len(body) < 150


def test_there_is_a_bound_to_what_becomes_one() -> None:
    large, frames = frames_of([16_416] * 60, 7, set())
    body = form.pack_sparse(frames)
    assert form.joined(large, body, large, body) is None  # more than a MiB
    small, frames = frames_of([32, 48] * 1000, 7, set())
    body = form.pack_sparse(frames)
    assert form.joined(small, body, small, body) is None  # too many boundaries


HEADER, FRAMES = frames_of([48, 48, 64, 32], 7, {2})
BODY = form.pack_sparse(FRAMES)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (HEADER, b""),
        (HEADER, b"\xff\xff"),
        (HEADER, BODY[:-1]),
        (HEADER, BODY + b"x"),
        (HEADER, BODY[:2] + b"\x01" + BODY[3:]),  # a frame of 16 bytes
        (HEADER, BODY[:2] + b"\xff" + BODY[3:]),
        (HEADER, BODY[:3] + b"\xf0" + BODY[4:]),
        (HEADER, form.pack_sparse([*FRAMES[1:], FRAMES[0]])),  # another one's place
        (HEADER._replace(size=176), BODY),
        (HEADER._replace(size=208), BODY),
        (HEADER._replace(frames=5, end_sequence=12), BODY),
        (HEADER._replace(kept=2), BODY),
        (HEADER._replace(sequence=8, end_sequence=12), BODY),
    ],
)
def test_a_sparse_block_that_contradicts_itself_is_damaged(header: form.Header, body: bytes) -> None:
    key = form.block_key(1, header.position)
    assert len(PLAIN.frames(key, form.pack_block(HEADER, BODY))[1]) == HEADER.size
    with pytest.raises(ringpost.StorageDamaged, match=r"block 1/160 is damaged"):
        PLAIN.frames(key, form.pack_block(header, body))


def test_a_damaged_block_that_stands_for_many_is_given_up(durable: ringpost.Broker, place: Path) -> None:
    topic = compacted(durable)
    topic.publish_many([("kept", b"first")] + [("a", bytes(10_000))] * 40)
    environment = durable._engine._environment()  # type: ignore[attr-defined]
    blocks = rows_of(environment, form.BLOCKS)
    key = max(blocks, key=lambda key: form.header_of(blocks[key]).size)
    assert form.header_of(blocks[key]).size > form.MOST_FRAMES
    with changing(environment, form.BLOCKS) as put:
        put(key, blocks[key][:-1] + b"x")
    durable.close()
    found = ringpost.verify(place, skip_damaged=True)
    assert len(found.problems) == 1
    assert found.given_up == (form.describe(key),)
    assert ringpost.verify(place).ok


def test_a_frame_that_no_block_can_have_is_not_packed() -> None:
    with pytest.raises(ValueError, match="a frame cannot have 65536 bytes"):
        form.pack_sparse([(65536, None)])


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
