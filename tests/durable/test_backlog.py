"""More than the ring holds: groups that read from storage, and move over to the ring."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from typing import Any

import pytest
from conformance.patience import BOUND, Call

import ringpost
from durable.conftest import Reboot
from ringpost.store.blocks import Blocks
from ringpost.store.log import StoredLog

SMALL = 128 << 10  # bytes: a ring of 64 KiB


def body(number: int, size: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(size)


def number_of(item: bytes) -> int:
    return int.from_bytes(item[:8], "big")


@pytest.mark.parametrize("sizes", [(0,), (100,), (1000, 5000, 16_000), (0, 20_000, 60_000)])
@pytest.mark.parametrize("level", ["memory", "interval", "commit"])
def test_it_comes_back_in_order(durable: ringpost.Broker, level: Any, sizes: tuple[int, ...]) -> None:
    queue = durable.queue("jobs", capacity=SMALL, durability=level)
    count = 200 if max(sizes) > 100 else 5000
    for number in range(count):
        queue.put(body(number, sizes[number % len(sizes)]), durability="memory")
    assert queue.qsize() == count
    for number in range(count):
        item = queue.get(timeout=BOUND) if number % 2 else queue.get_many(1)[0]
        assert item == body(number, sizes[number % len(sizes)])
    assert queue.empty()


@pytest.mark.parametrize("size", [50, 3000, 30_000])
def test_consumers_lease_what_is_on_disk(durable: ringpost.Broker, reboot: Reboot, size: int) -> None:
    """Acked out of order, given back, and after a reboot: each message is acked once, none is missing."""
    queue = durable.queue("jobs", capacity=SMALL)
    count = 3000 if size < 100 else 150
    queue.put_many([body(number, size) for number in range(count)])
    acked: list[int] = []
    chance = random.Random(7)
    for _ in range(4):
        consumer = queue.consumer(prefetch=70)
        for _ in range(count // 5):
            message = consumer.receive(BOUND)
            assert message.body == body(number_of(message.body), size)
            if chance.random() < 0.7:
                message.ack()
                acked.append(number_of(message.body))
            elif chance.random() < 0.5:
                message.nack()
        consumer.close()
        queue.flush()
        queue = reboot().queue("jobs")
    while not queue.empty():
        with queue.consumer() as consumer, consumer.receive(BOUND) as message:
            acked.append(number_of(message.body))
    assert sorted(acked) == list(range(count))


def test_what_cannot_be_found_is_not_acked(durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is in somebody's hands nobody else can have taken it."""
    queue = durable.queue("jobs", capacity=SMALL)
    queue.put_many([body(0, 60_000), *(body(number, 100) for number in range(1, 2000))])
    with queue.consumer() as consumer:
        with monkeypatch.context() as patch:
            patch.setattr(StoredLog, "payload", lambda *_: None)
            with pytest.raises(ringpost.StorageDamaged, match="payload of message 0 is missing"):
                consumer.receive(BOUND)
        assert consumer.receive(BOUND).body == body(0, 60_000)


def test_from_disk_to_the_ring_without_a_gap(durable: ringpost.Broker) -> None:
    """A consumer catches up with a producer that never stops."""
    queue = durable.queue("jobs", capacity=SMALL, durability="interval")
    count = 30_000
    queue.put_many([body(number, 20) for number in range(count // 2)])

    def produce() -> None:
        for number in range(count // 2, count):
            queue.put(body(number, 20))

    producing = Call(produce)
    found: list[int] = []
    while len(found) < count:
        found += [number_of(item) for item in queue.get_many(500, timeout=BOUND)]
    producing.result()
    assert found == list(range(count))


def test_competing_consumers_behind_the_ring(durable: ringpost.Broker) -> None:
    queue = durable.queue("jobs", capacity=SMALL, durability="memory")
    count = 20_000
    queue.put_many([body(number, 20) for number in range(count)])
    found: list[list[int]] = [[], [], []]

    def consume(mine: list[int]) -> None:
        with queue.consumer(prefetch=50) as consumer:
            while True:
                try:
                    messages = consumer.receive_many(100, timeout=0.5)
                except ringpost.Empty:
                    return
                mine += [number_of(one.body) for one in messages]
                consumer.ack_many(messages)

    calls = [Call(consume, mine) for mine in found]
    for call in calls:
        call.result()
    assert sorted(number for mine in found for number in mine) == list(range(count))
    assert all(mine == sorted(mine) for mine in found)


def test_subjects_are_matched_on_disk(durable: ringpost.Broker, reboot: Reboot) -> None:
    topic = durable.topic("news", capacity=256 << 10)
    topic.subscribe("eu.#", name="eu")
    topic.subscribe("none", name="nobody's")
    for number in range(200):
        topic.publish(
            body(number, 30_000 if number % 10 < 2 else 500), subject=f"{'eu' if number % 3 else 'us'}.x"
        )
    again = reboot().topic("news").subscribe("eu.#", name="eu")
    expected = [number for number in range(200) if number % 3]
    found = []
    for _ in expected:
        with again.receive(BOUND) as message:
            found.append(number_of(message.body))
            assert message.subject == "eu.x"
    assert found == expected
    with pytest.raises(ringpost.Empty):
        again.receive(0)


@pytest.mark.parametrize("start", ["earliest", "sequence", "time"])
def test_replay(durable: ringpost.Broker, reboot: Reboot, start: str) -> None:
    from datetime import datetime, timezone

    topic = durable.topic("news", capacity=SMALL, retention=ringpost.Retention())
    topic.publish_many(("", body(number, 500)) for number in range(500))
    time.sleep(0.1)
    moment = datetime.now(timezone.utc)
    time.sleep(0.1)
    topic.publish_many(("", body(number, 500)) for number in range(500, 1000))
    wanted: dict[str, Any] = {"earliest": "earliest", "sequence": 700, "time": moment}
    first = {"earliest": 0, "sequence": 700, "time": 500}[start]
    for is_after in (False, True):
        broker = reboot() if is_after else durable
        with broker.topic("news").subscribe("#", start=wanted[start]) as subscriber:
            found = [number_of(subscriber.receive(BOUND).body) for _ in range(1000 - first)]
        assert found == list(range(first, 1000))


@pytest.mark.parametrize(
    ("retention", "least", "most"),
    [
        ({"messages": 1000}, 1000, 1700),
        ({"bytes": 100_000}, 100, 1100),
        ({"seconds": 1000.0}, 10_000, 10_000),
        ({"seconds": 0.001}, 0, 1200),
    ],
)
def test_retention(durable: ringpost.Broker, retention: dict[str, Any], least: int, most: int) -> None:
    topic = durable.topic("news", capacity=SMALL, retention=ringpost.Retention(**retention))
    for start in range(0, 10_000, 100):
        topic.publish_many(("", number) for number in range(start, start + 100))
    with topic.subscribe("#", start="earliest") as subscriber:
        found = subscriber.receive(BOUND).body
    assert least <= 10_000 - found <= most + 1000  # and what the ring has


def test_retention_never_takes_what_a_subscriber_needs(durable: ringpost.Broker) -> None:
    topic = durable.topic("news", capacity=SMALL, retention=ringpost.Retention(messages=10))
    topic.subscribe("#", name="slow")
    for start in range(0, 10_000, 1000):
        topic.publish_many(("", number) for number in range(start, start + 1000))
    slow = topic.subscribe("#", name="slow")
    for number in range(10_000):
        message = slow.receive(BOUND)
        assert message.body == number
        message.ack()


def test_retention_takes_nothing_from_who_is_about_to_subscribe(
    durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = durable.topic("news", capacity=SMALL, retention=ringpost.Retention(messages=10))
    find_ends = Blocks.ends

    def publish() -> None:
        for start in range(0, 20_000, 1000):
            topic.publish_many(("", number) for number in range(start, start + 1000))

    def ends_while_others_publish(blocks: Blocks) -> Any:
        found = find_ends(blocks)
        if publisher.ident is None:
            publisher.start()
            publisher.join(1.0)  # it may have to wait until we subscribed
        return found

    publish()
    publisher = threading.Thread(target=publish)
    monkeypatch.setattr(Blocks, "ends", ends_while_others_publish)
    subscriber = topic.subscribe("#", start="earliest")
    publisher.join()
    first = subscriber.receive(BOUND)
    assert [subscriber.receive(BOUND).sequence for _ in range(20_000)][-1] == first.sequence + 20_000


def test_space_is_used_again(durable: ringpost.Broker) -> None:
    """A queue that fills and drains for long does not grow."""
    queue = durable.queue("jobs", capacity=1 << 20, durability="memory")
    data = durable._engine._place / "data.mdb"  # type: ignore[attr-defined]
    sizes = []
    for _ in range(12):
        queue.put_many([bytes(200)] * 20_000)
        queue.flush()
        while not queue.empty():
            queue.get_many(1000)
        queue.flush()
        sizes.append(data.stat().st_size)
    assert max(sizes[4:]) <= sizes[3] * 1.3
    for _ in range(20):
        queue.put("x")
        queue.flush()
    assert durable._engine._environment().size() < 1 << 20  # type: ignore[attr-defined]


def test_a_long_backlog_takes_little_memory(url: str, durable: ringpost.Broker) -> None:
    """Of four million, 370 MB, where the ring holds 40,000. Both processes stay below 300 MB, the map of the
    file included."""
    count = 4_000_000
    durable.queue("jobs", durability="memory")
    for work in (_PUT_ALL, _GET_ALL):
        program = textwrap.dedent(_BACKLOG).format(work=textwrap.indent(work, " " * 4))
        done = subprocess.run(
            [sys.executable, "-c", program, url, str(count)],
            capture_output=True,
            text=True,
            timeout=BOUND * 4,
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) < 300 << 10


_BACKLOG = r"""
import re, sys, ringpost

with ringpost.connect(sys.argv[1]) as broker:
    queue, count = broker.queue("jobs", durability="memory"), int(sys.argv[2])
{work}
print(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
"""
_PUT_ALL = """
for _ in range(count // 1000):
    queue.put_many([bytes(64)] * 1000)
"""
_GET_ALL = f"""
while count:
    count -= len(queue.get_many(4096, timeout={BOUND}))
"""


def test_a_waiting_get_wakes_for_what_comes_after_the_backlog(durable: ringpost.Broker) -> None:
    queue = durable.queue("jobs", capacity=SMALL, durability="memory")
    queue.put_many([body(number, 100) for number in range(2000)])
    found: list[int] = []
    done = threading.Event()

    def consume() -> None:
        while len(found) < 2001:
            found.append(number_of(queue.get(timeout=BOUND)))
            if len(found) == 2000:
                done.set()

    call = Call(consume)
    assert done.wait(BOUND)
    queue.put(body(2000, 0))
    call.result()
    assert found == list(range(2001))


@pytest.mark.parametrize("seed", range(8))
def test_what_is_given_back_while_the_log_goes_on(durable: ringpost.Broker, seed: int) -> None:
    """Messages leased together may come back from storage in two parts."""
    chance = random.Random(seed)
    queue = durable.queue("jobs", capacity=256 << 10, durability="memory")
    sent, handled = 0, Counter[int]()
    with queue.consumer() as consumer:
        while sent < 2000 or not queue.empty():
            count = chance.randrange(30) if sent < 2000 else 0
            queue.put_many(b"%d " % (sent + i) + bytes((10, 3000, 10_000)[i % 3]) for i in range(count))
            sent += count
            try:
                messages = consumer.receive_many(chance.choice((1, 10, 50)), timeout=0)
            except ringpost.Empty:
                continue
            if chance.random() < 0.2:
                messages.pop().nack()
            handled.update(int(each.body.partition(b" ")[0]) for each in messages)
            consumer.ack_many(messages)
    assert handled == Counter(range(sent))


# ---- no lease is free ---------------------------------------------------------------------------------


def a_topic_behind_its_ring(broker: ringpost.Broker, lease: float | None) -> Any:
    """A subscriber, each of whose messages lies too far from the one before for their lease."""
    topic = broker.topic("news", capacity=1 << 20, durability="memory")
    subscriber = topic.subscribe("rare", name="audit", prefetch=256, lease=lease)
    for number in range(100):
        topic.publish(number, subject="rare")
        topic.publish_many([("often", bytes(500))] * 70)
    return subscriber


def a_queue_behind_its_ring(broker: ringpost.Broker, lease: float | None) -> Any:
    queue = broker.queue("jobs", capacity=256 << 10, durability="memory")
    queue.put_many([number.to_bytes(8, "big") + bytes(900) for number in range(600)])
    return queue.consumer(prefetch=1, lease=lease)


def number_in(message: Any) -> int:
    return number_of(message.body) if isinstance(message.body, bytes) else message.body


def all_it_gets(receiver: Any) -> list[Any]:
    held = []
    while True:
        try:
            held.append(receiver.receive(0))
        except ringpost.Empty:
            return held


BEHIND_THE_RING = pytest.mark.parametrize("behind", [a_topic_behind_its_ring, a_queue_behind_its_ring])


@BEHIND_THE_RING
def test_without_a_lease_there_is_nothing_behind_the_ring(
    durable: ringpost.Broker, url: str, behind: Any
) -> None:
    receiver = behind(durable, 60.0)
    held = all_it_gets(receiver)
    assert 20 < len(held) < 100
    with pytest.raises(ringpost.Empty):
        receiver.receive(0.2)
    with ringpost.connect(url) as other:
        member: Any = (
            other.topic("news").subscribe("rare", name="audit", prefetch=1)
            if behind is a_topic_behind_its_ring
            else other.queue("jobs").consumer(prefetch=1)
        )
        for timeout in (0, 0.2):
            with pytest.raises(ringpost.Empty):
                member.receive(timeout)
        member.close()
    for message in held:
        message.ack()
    assert number_in(receiver.receive(BOUND)) == len(held)


@BEHIND_THE_RING
def test_who_waits_for_a_lease_reads_no_storage(
    durable: ringpost.Broker, behind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = behind(durable, 60.0)
    held = all_it_gets(receiver)
    reads: list[int] = []
    read = StoredLog.frames
    monkeypatch.setattr(StoredLog, "frames", lambda log, at: (reads.append(at), read(log, at))[1])
    call = Call(receiver.receive, BOUND)
    time.sleep(0.5)
    assert call.is_blocked()
    assert len(reads) < 5
    held[0].ack()
    assert number_in(call.result()) == len(held)


@BEHIND_THE_RING
def test_an_ack_of_another_process_wakes_who_waits_for_a_lease(
    durable: ringpost.Broker, url: str, behind: Any
) -> None:
    receiver = behind(durable, 60.0)
    program = _HOLD_ALL.format(
        member='topic("news").subscribe("rare", name="audit", prefetch=256, lease=60.0)'
        if behind is a_topic_behind_its_ring
        else 'queue("jobs").consumer(prefetch=1, lease=60.0)'
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        count = int(other.stdout.readline())
        call = Call(receiver.receive, BOUND)
        assert call.is_blocked()
        other.stdin.write("\n")
        other.stdin.flush()
        assert number_in(call.result()) == count
        other.stdin.close()
    assert other.returncode == 0


_HOLD_ALL = """
import sys, ringpost

with ringpost.connect(sys.argv[1]) as broker:
    member, held = broker.{member}, []
    try:
        while True:
            held.append(member.receive(0))
    except ringpost.Empty:
        print(len(held), flush=True)
    sys.stdin.readline()
    held[0].ack()
    sys.stdin.readline()
    for message in held[1:]:
        message.ack()
"""


def test_what_was_given_back_waits_for_a_lease_behind_the_ring(durable: ringpost.Broker) -> None:
    """Whole leases come back, and are asked for message by message: each needs a lease of its own then."""
    queue = durable.queue("jobs", capacity=256 << 10, durability="memory")
    queue.put_many([body(number, 900) for number in range(600)])
    with queue.consumer(prefetch=256) as first:
        messages = first.receive_many(192, timeout=BOUND)
        assert len(messages) > 130
        for message in messages:
            message.nack()
    with queue.consumer(prefetch=1, lease=60.0) as second:
        held = all_it_gets(second)
        assert 64 < len(held) < len(messages)
        with pytest.raises(ringpost.Empty):
            second.receive(0.2)
        assert number_of(queue.get(block=False)) == len(messages)  # what is taken needs no lease
        for message in held:
            message.ack()
        assert number_of(second.receive(BOUND).body) == len(held)
