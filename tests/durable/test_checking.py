"""verify() and backup()."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import lmdb.verify
import pytest
from conformance.patience import BOUND, Call
from crash.children import Nursery
from crash.fixtures import fork as fork

import ringpost
from durable.conftest import Reboot
from ringpost.sidestore import SideStore
from ringpost.store import format as form
from ringpost.store.environment import Environment

LARGE = 100_000


def drain(queue: ringpost.Queue[Any]) -> list[Any]:
    found: list[Any] = []
    while not queue.empty():
        found += queue.get_many(block=False)
    return found


def fill(broker: ringpost.Broker) -> list[Any]:
    items: list[Any] = [bytes(500) + bytes([number % 256]) for number in range(1000)]
    broker.queue("jobs").put_many(items)
    broker.queue("jobs").put(b"x" * LARGE)
    return [*items, b"x" * LARGE]


def test_a_sound_one(durable: ringpost.Broker, place: Path) -> None:
    fill(durable)
    durable.topic("news").publish("hello")
    with durable.queue("ranked", priorities=True).producer() as producer:
        producer.send(1, priority=5)
    found = ringpost.verify(place)
    assert found.ok
    assert found.problems == found.given_up == ()
    numbers = {(each.kind, each.name): each.messages for each in found.queues}
    assert numbers[("queue", "jobs")] == 1001
    assert numbers[("topic", "news")] == 1
    assert numbers[("level", "ranked priority 5")] == 1


def test_none(tmp_path: Path) -> None:
    with pytest.raises(ringpost.QueueNotFound, match="no durable broker in"):
        ringpost.verify(tmp_path)


@pytest.fixture
def written_meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Whenever verify() has read where LMDB's pages are, and before it looks at them, something happens."""

    def prepare(happen: Callable[[], object]) -> None:
        load = lmdb.verify._Verifier.load_metas

        def load_and_wait(verifier: Any) -> None:
            load(verifier)
            Call(happen).result()

        monkeypatch.setattr(lmdb.verify._Verifier, "load_metas", load_and_wait)

    return prepare


def use(queue: ringpost.Queue[Any]) -> None:
    """Pages become free, and are used again."""
    for _ in range(20):
        queue.put_many([b"x" * 5000] * 10)
        queue.get_many(10)
        queue.flush()


def test_others_write_meanwhile(
    durable: ringpost.Broker, place: Path, written_meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    queue = durable.queue("jobs")
    queue.put_many([b"y" * 5000] * 100)
    use(queue)
    written_meanwhile(lambda: use(queue))
    assert ringpost.verify(place).problems == ()


def test_damage_is_found_while_others_write(
    durable: ringpost.Broker, place: Path, written_meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    durable.queue("kept").put_many([b"y" * 5000] * 10)
    queue = durable.queue("jobs")
    use(queue)
    with (place / "data.mdb").open("r+b") as file:
        page = file.read().index(b"y" * 4000) // 4096
        file.seek(page * 4096)
        file.write((page + 1).to_bytes(8, "little"))  # another one's number
    looks: list[None] = []
    written_meanwhile(lambda: (use(queue), looks.append(None)))
    assert any(f"page {page} " in problem for problem in ringpost.verify(place).problems)
    assert len(looks) > 1


def damage(broker: ringpost.Broker, table: bytes | None, which: int) -> None:
    """One bit of a block, or of a payload."""
    environment = broker._engine._environment()  # type: ignore[attr-defined]
    with environment.alone(), environment.begin() as transaction:
        with transaction.cursor(environment.table(table)) as cursor:
            keys = [bytes(key) for key in cursor.iternext(values=False) if bytes(key) not in form.TABLES]
        value = bytearray(transaction.get(keys[which], db=environment.table(table)))
        value[len(value) // 2] ^= 4
        transaction.put(keys[which], bytes(value), db=environment.table(table))


@pytest.mark.parametrize("which", [0, 3, -1])
def test_a_damaged_block_is_named_and_given_up_only_on_request(
    durable: ringpost.Broker, reboot: Reboot, place: Path, which: int
) -> None:
    items = fill(durable)
    damage(durable, form.BLOCKS, which)
    broker = reboot()
    found = ringpost.verify(place)
    assert not found.ok
    assert "queue 'jobs': block 1/" in found.problems[0]
    assert "is damaged: its " in found.problems[0]  # checksum, or seal
    queue = broker.queue("jobs")
    got: list[Any] = []
    with pytest.raises(ringpost.StorageDamaged, match="block 1/"):  # noqa: PT012
        while True:
            got += queue.get_many(50, block=False)
    assert got == items[: len(got)]
    assert ringpost.verify(place, skip_damaged=True).given_up
    assert ringpost.verify(place).ok
    broker = reboot()
    rest = drain(broker.queue("jobs"))
    kept = got + rest
    assert len(kept) < len(items)
    assert len(kept) > len(items) - 200
    assert kept == [item for item in items if item in kept][: len(kept)] or which != -1


def test_a_damaged_payload(durable: ringpost.Broker, reboot: Reboot, place: Path) -> None:
    items = fill(durable)
    durable.queue("jobs").put("behind")
    damage(durable, form.PAYLOADS, 0)
    broker = reboot()
    queue = broker.queue("jobs")
    assert [queue.get() for _ in range(1000)] == items[:-1]
    with pytest.raises(ringpost.StorageDamaged, match="payload 1/1000 is damaged"):
        queue.get()
    queue.flush()
    assert ringpost.verify(place, skip_damaged=True).given_up == ("1/1000",)
    assert reboot().queue("jobs").get() == "behind"


def lose_blocks(broker: ringpost.Broker, first: int, count: int) -> None:
    """Of what is stored, in the order in which it was put."""
    environment = broker._engine._environment()  # type: ignore[attr-defined]
    with environment.alone(), environment.begin() as transaction:
        table = environment.table(form.BLOCKS)
        with transaction.cursor(table) as cursor:
            keys = [bytes(key) for key in cursor.iternext(values=False) if bytes(key) not in form.TABLES]
        for key in keys[first : first + count]:
            transaction.delete(key, db=table)


def ack_one(queue: ringpost.Queue[Any]) -> None:
    queue.consumer().receive(BOUND).ack()


@pytest.mark.parametrize("before", [lambda queue: None, lambda queue: queue.get(), ack_one])
@pytest.mark.parametrize("count", [1, 4])
def test_blocks_are_missing(
    durable: ringpost.Broker, reboot: Reboot, place: Path, count: int, before: Callable[[Any], object]
) -> None:
    """It is said wherever their consumers come from, and nobody blames the shared memory."""
    queue = durable.queue("jobs")
    for number in range(20):
        queue.put_many([b"%d %d" % (number, i) + bytes(10_000) for i in range(5)])
    before(queue)
    queue.flush()
    lose_blocks(durable, 7, count)
    broker = reboot()
    found = ringpost.verify(place)
    assert len(found.problems) == 1
    assert "queue 'jobs': what lies between positions " in found.problems[0]
    got: list[Any] = []
    with pytest.raises(ringpost.StorageDamaged, match=r"is missing in .* Restore a backup"):  # noqa: PT012
        while True:
            got.append(broker.queue("jobs").get(block=False))
    broker.queue("jobs").flush()
    assert len(ringpost.verify(place, skip_damaged=True).given_up) == 1
    assert ringpost.verify(place).ok
    got += drain(reboot().queue("jobs"))
    assert len(got) == len(set(got))
    assert 100 - 5 * count - 1 <= len(got) < 100


def test_blocks_of_a_topic_are_missing(durable: ringpost.Broker, reboot: Reboot, place: Path) -> None:
    topic = durable.topic("news")
    for number in range(10):
        topic.publish(number)
    lose_blocks(durable, 4, 2)
    reboot()
    assert "topic 'news': what lies between positions " in ringpost.verify(place).problems[0]
    assert len(ringpost.verify(place, skip_damaged=True).given_up) == 1
    with reboot().topic("news").subscribe(start="earliest") as subscriber:
        assert [subscriber.receive(BOUND).body for _ in range(8)] == [0, 1, 2, 3, 6, 7, 8, 9]


def take_some(consumer: Any, count: int, kept: set[int]) -> list[Any]:
    """Of the messages that are taken, these are not acked. They are held as long as what is returned is."""
    held = []
    for number in range(count):
        message = consumer.receive(BOUND)
        held.append(message) if number in kept else message.ack()
    return held


EACH, IN_ALL = 8, 40  # messages of a block, and of a log with five blocks


def numbered(number: int) -> bytes:
    return b"%d " % number * (1 + number * 7 % 40)


def put_blocks(put_many: Callable[[list[Any]], object]) -> None:
    for first in range(0, IN_ALL, EACH):
        put_many([numbered(first + i) for i in range(EACH)])


def give_up(place: Path) -> None:
    """What is damaged; all of it."""
    ringpost.verify(place, skip_damaged=True)
    assert ringpost.verify(place).problems == ()


def break_blocks(broker: ringpost.Broker, which: set[int], how: str) -> None:
    """Of logs with EACH messages in a block, these: "damaged", "lost", or damaged "with its header"."""
    environment = broker._engine._environment()  # type: ignore[attr-defined]
    table = environment.table(form.BLOCKS)
    with environment.alone(), environment.begin() as transaction:
        with transaction.cursor(table) as cursor:
            rows = [(bytes(key), bytearray(value)) for key, value in cursor if bytes(key) not in form.TABLES]
        for key, value in rows:
            if form.header_of(value).sequence // EACH not in which:
                continue
            transaction.delete(key, db=table)
            if how != "lost":
                value[0 if how == "with its header" else -20] ^= 4
                transaction.put(key, bytes(value), db=table)


LEASES = [
    (3, set[int]()),  # messages taken, and of these not acked
    (5, {1}),
    (20, {0, 2, 9, 14, 18}),
    (20, {9, 18}),
    (20, {17, 18}),
    (16, {2, 5}),
    (27, {6}),
    (IN_ALL, {10, 20, 39}),
]


def left_of(taken: int, kept: set[int], which: set[int]) -> list[bytes]:
    numbers = (*kept, *range(taken, IN_ALL))
    return sorted(numbered(number) for number in numbers if number // EACH not in which)


@pytest.mark.parametrize("how", ["damaged", "lost"])
@pytest.mark.parametrize("which", [{0}, {1}, {2}, {1, 2}, {0, 1, 2}, {0, 2}, {1, 3}])
def test_who_stands_within_what_is_given_up_gets_all_that_is_left(
    durable: ringpost.Broker, reboot: Reboot, place: Path, which: set[int], how: str
) -> None:
    """What takes the place of damaged messages begins elsewhere than they did."""
    held = []
    for name, (taken, kept) in enumerate(LEASES):
        queue = durable.queue(str(name))
        put_blocks(queue.put_many)
        with queue.consumer(prefetch=1) as consumer:
            held += take_some(consumer, taken, kept)
            queue.flush()
    del held
    break_blocks(reboot(), which, how)
    give_up(place)
    broker = reboot()
    for name, lease in enumerate(LEASES):
        queue = broker.queue(str(name))
        assert sorted(drain(queue)) == left_of(*lease, which)
        queue.put("new")
        assert drain(queue) == ["new"]


@pytest.mark.parametrize("how", ["damaged", "lost"])
@pytest.mark.parametrize("which", [{0}, {1}, {1, 2}])
def test_each_subscriber_gets_all_that_is_left(
    durable: ringpost.Broker, reboot: Reboot, place: Path, which: set[int], how: str
) -> None:
    topic = durable.topic("news")
    for name in range(len(LEASES)):
        topic.subscribe(name=str(name), start="earliest").close()
    put_blocks(lambda some: topic.publish_many([("", each) for each in some]))
    held = []
    for name, (taken, kept) in enumerate(LEASES):
        with topic.subscribe(name=str(name), auto_ack=False, prefetch=1) as subscriber:
            held += take_some(subscriber, taken, kept)
            durable.flush()
    del held
    break_blocks(reboot(), which, how)
    give_up(place)
    topic = reboot().topic("news")
    for name, lease in enumerate(LEASES):
        left = left_of(*lease, which)
        with topic.subscribe(name=str(name)) as subscriber:
            assert sorted(subscriber.receive(BOUND).body for _ in left) == left
            with pytest.raises(ringpost.Empty):
                subscriber.receive(0)


@pytest.mark.parametrize("how", ["damaged", "lost"])
def test_what_is_still_in_shared_memory_is_stored_anew(
    durable: ringpost.Broker, place: Path, url: str, how: str
) -> None:
    for name, (taken, kept) in enumerate(LEASES):
        queue = durable.queue(str(name))
        put_blocks(queue.put_many)
        with queue.consumer(prefetch=1) as consumer:
            take_some(consumer, taken, kept)
            queue.flush()
    break_blocks(durable, {0, 2}, how)
    durable.close()
    assert ringpost.verify(place, skip_damaged=True).given_up == ()
    assert ringpost.verify(place).problems == ()
    with ringpost.connect(url) as broker:
        for name, lease in enumerate(LEASES):
            assert sorted(drain(broker.queue(str(name)))) == left_of(*lease, set())


@pytest.mark.parametrize("how", ["damaged", "lost"])
def test_who_stands_in_shared_memory_is_moved_too(
    durable: ringpost.Broker, place: Path, url: str, how: str
) -> None:
    """Programs end, the machine goes on: groups are where they were, and what they are to get is not."""
    queue = durable.queue("jobs", capacity=form.LEAST_CAPACITY)
    put_blocks(queue.put_many)
    with queue.consumer(prefetch=1) as consumer:
        take_some(consumer, 12, {2, 9})
    for _ in range(100):
        queue.put_many([bytes(10_000)] * 10)
    break_blocks(durable, {1}, how)
    durable.close()
    assert ringpost.verify(place, skip_damaged=True).given_up
    assert ringpost.verify(place).problems == ()
    with ringpost.connect(url) as broker:
        got = drain(broker.queue("jobs"))
        assert len(got) == 1025
        assert sorted(got[:25]) == left_of(12, {2, 9}, {1})


@pytest.mark.parametrize(("taken", "which"), [(3, {0}), (3, {1}), (12, {1})])
def test_a_block_whose_header_is_damaged(
    durable: ringpost.Broker, reboot: Reboot, place: Path, taken: int, which: set[int]
) -> None:
    """Its neighbours say what it was, or who needs it does."""
    queue = durable.queue("jobs")
    put_blocks(queue.put_many)
    queue.get_many(taken)
    queue.flush()
    break_blocks(reboot(), which, "with its header")
    assert ringpost.verify(place, skip_damaged=True).given_up
    assert ringpost.verify(place).problems == ()
    left = [number for number in range(taken, IN_ALL) if number // EACH not in which]
    assert drain(reboot().queue("jobs")) == [numbered(number) for number in left]


def test_nothing_is_filled_twice(durable: ringpost.Broker, reboot: Reboot, place: Path) -> None:
    """Nothing is missing behind a damaged block that somebody stands in: it is only damaged."""
    queue = durable.queue("jobs")
    put_blocks(queue.put_many)
    queue.get_many(3)
    queue.flush()
    break_blocks(reboot(), {0}, "damaged")
    found = ringpost.verify(place, skip_damaged=True)
    assert len(found.problems) == len(found.given_up) == 1
    assert "is damaged: its checksum is wrong" in found.problems[0]


def test_what_nobody_needs_is_not_missed(durable: ringpost.Broker, place: Path) -> None:
    """What was acked before it was stored never is."""
    queue = durable.queue("jobs", durability="memory")
    queue.put("first", durability="commit")
    for _ in range(100):
        queue.put("acked")
    drain(queue)
    queue.put("last", durability="commit")
    assert ringpost.verify(place).ok
    assert drain(queue) == ["last"]


@pytest.mark.parametrize(
    "take", [lambda queue: queue.get(), lambda queue: queue.consumer().receive(BOUND).body]
)
@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_part_of_a_payload_is_missing(
    durable: ringpost.Broker, reboot: Reboot, place: Path, which: int, take: Callable[[Any], Any]
) -> None:
    durable.queue("jobs").put(b"x" * 3 * LARGE)
    environment = durable._engine._environment()  # type: ignore[attr-defined]
    with environment.alone(), environment.begin() as transaction:
        table = environment.table(form.PAYLOADS)
        with transaction.cursor(table) as cursor:
            keys = [bytes(key) for key in cursor.iternext(values=False)]
        transaction.delete(keys[which], db=table)
    queue = reboot().queue("jobs")
    with pytest.raises(ringpost.StorageDamaged, match=r"payload of message 0 is damaged: .* of 300000 bytes"):
        take(queue)
    assert "payload 1/0 is damaged" in ringpost.verify(place).problems[0]
    queue.put("behind")
    assert ringpost.verify(place, skip_damaged=True).given_up == ("1/0",)
    assert ringpost.verify(place).ok
    assert take(reboot().queue("jobs")) == "behind"


def test_a_backup_is_a_broker(durable: ringpost.Broker, tmp_path: Path) -> None:
    items = fill(durable)
    with durable.queue("jobs").producer(dedup_window=1000) as producer:
        producer.send("once", message_id="1")
    durable.queue("fast", durability="memory").put("x")
    to = tmp_path / "copies" / "one"
    durable.backup(to)
    with pytest.raises(FileExistsError):
        durable.backup(to)
    with ringpost.connect(f"ring://{to}") as copy:
        assert drain(copy.queue("jobs")) == [*items, "once"]
        with copy.queue("jobs").producer(dedup_window=1000) as producer:
            assert not producer.send("once", message_id="1")
        assert drain(copy.queue("fast")) == ["x"]
        assert durable.queue("jobs").qsize() == len(items) + 1
        copy.destroy()


def test_a_backup_while_it_is_used(durable: ringpost.Broker, tmp_path: Path) -> None:
    queue = durable.queue("jobs")

    def produce() -> None:
        for number in range(3000):
            queue.put(number, durability="interval" if number % 50 else "commit")

    call = Call(produce)
    copies = []
    while call.is_alive():
        copies.append(tmp_path / f"copy {len(copies)}")
        durable.backup(copies[-1])
    call.result()
    for place in copies:
        assert ringpost.verify(place).ok
        with ringpost.connect(f"ring://{place}") as copy:
            if "jobs" in copy.list():
                found = drain(copy.queue("jobs"))
                assert found == list(range(len(found)))
            copy.destroy()


@pytest.fixture
def between_the_copies(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Of the queues, and of what is beside them: something happens when one is made, and before the other."""

    def prepare(happen: Callable[[], object]) -> None:
        made: list[str] = []
        for kind in (Environment, SideStore):

            def copy(self: Any, place: Path, original: Any = kind.copy) -> None:
                if made:
                    happen()
                made.append(str(place))
                original(self, place)

            monkeypatch.setattr(kind, "copy", copy)

    return prepare


def test_what_becomes_due_while_a_backup_is_made_is_in_it(
    durable: ringpost.Broker, tmp_path: Path, between_the_copies: Callable[[Callable[[], object]], None]
) -> None:
    queue = durable.queue("jobs")
    with queue.producer() as producer:
        producer.send("later", delay=0.2)
    between_the_copies(lambda: queue.get(timeout=BOUND))
    durable.backup(tmp_path / "copy")
    assert queue.empty()
    with ringpost.connect(f"ring://{tmp_path / 'copy'}") as copy:
        assert copy.queue("jobs").get(timeout=BOUND) == "later"
        assert set(drain(copy.queue("jobs"))) <= {"later"}
        copy.destroy()


def test_a_backup_has_no_id_without_its_message(
    durable: ringpost.Broker, tmp_path: Path, between_the_copies: Callable[[Callable[[], object]], None]
) -> None:
    with durable.queue("jobs").producer(dedup_window=1000) as producer:
        producer.send("before", message_id="1")
        between_the_copies(lambda: producer.send("meanwhile", message_id="2"))
        durable.backup(tmp_path / "copy")
    with ringpost.connect(f"ring://{tmp_path / 'copy'}") as copy:
        with copy.queue("jobs").producer(dedup_window=1000) as producer:
            producer.send("before", message_id="1")
            producer.send("meanwhile", message_id="2")
        found = drain(copy.queue("jobs"))
        assert found[0] == "before"
        assert set(found[1:]) == {"meanwhile"}
        copy.destroy()


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("kind", [Environment, SideStore])
@pytest.mark.parametrize(
    ("problem", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ringpost.StorageFailed),
        (lmdb.Error("it does not work"), ringpost.StorageFailed),
        (ringpost.Stalled("somebody does not run"), ringpost.Stalled),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_nothing_is_left_of_a_backup_that_failed(
    durable: ringpost.Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    problem: BaseException,
    raised: type[BaseException],
    is_there: bool,
) -> None:
    with durable.queue("jobs").producer() as producer:
        producer.send("later", delay=1000)
        producer.send("now")
    original = kind.copy

    def fail(self: Any, place: Path) -> None:
        original(self, place)
        raise problem

    to = tmp_path / "copy"
    if is_there:
        to.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(kind, "copy", fail)
        with pytest.raises(raised):
            durable.backup(to)
    assert to.exists() == is_there
    assert not is_there or list(to.iterdir()) == []
    durable.backup(to)
    assert sorted(os.listdir(to)) == ["data.mdb", "side"]
    assert ringpost.verify(to).ok
    ringpost.connect(f"ring://{to}").destroy()


@pytest.mark.parametrize("kind", [Environment, SideStore])
def test_killed_while_a_backup_is_made(
    durable: ringpost.Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork: Nursery, kind: Any
) -> None:
    """What is left is no broker: it has no data file with a part of the messages."""
    with durable.queue("jobs").producer() as producer:
        producer.send("later", delay=1000)
        producer.send("now")
    to, original = tmp_path / "copy", kind.copy

    def die(self: Any, place: Path) -> None:
        original(self, place)
        os._exit(9)

    monkeypatch.setattr(kind, "copy", die)
    assert fork(lambda: durable.backup(to)).wait() == 9
    with pytest.raises(ringpost.QueueNotFound):
        ringpost.verify(to)
    with pytest.raises(FileExistsError):
        durable.backup(to)
    shutil.rmtree(to)


def test_memory_has_no_backup(broker: ringpost.Broker, tmp_path: Path) -> None:
    with pytest.raises(ringpost.Unsupported, match="nothing to copy"):
        broker.backup(tmp_path / "copy")


def spoil(broker: ringpost.Broker) -> ringpost.Topic[Any]:
    """A topic of which a block is damaged that is to be written anew, with the next message of its key."""
    topic = broker.topic("prices", retention=ringpost.Retention(compact=True))
    topic.publish(bytes(1000), key="k")
    damage(broker, form.BLOCKS, 0)
    return topic


@pytest.mark.parametrize("durability", ["commit", "interval"])
def test_what_is_damaged_keeps_others_from_nothing(
    durable: ringpost.Broker, reboot: Reboot, durability: str
) -> None:
    """In a process that has something for both to store."""
    topic = spoil(durable)
    before, after = durable.queue("before"), durable.queue("after")
    before.put("one")
    with pytest.raises(ringpost.StorageDamaged):
        topic.publish("new", key="k")
    before.put("two", durability=durability)
    with pytest.raises(ringpost.StorageDamaged):
        topic.publish("new", key="k")
    after.put("three", durability=durability)
    time.sleep(0.1)
    before.flush()
    broker = reboot()
    assert drain(broker.queue("before")) == ["one", "two"]
    assert drain(broker.queue("after")) == ["three"]


def test_nothing_is_stored_of_what_cannot_be_stored_whole(durable: ringpost.Broker) -> None:
    topic, jobs = spoil(durable), durable.queue("jobs")
    environment = durable._engine._environment()  # type: ignore[attr-defined]
    with pytest.raises(ringpost.StorageDamaged):
        topic.publish(b"x" * LARGE, key="k")
    jobs.put("stored")
    with environment.read() as reading:
        assert reading.stat(environment.table(form.PAYLOADS))["entries"] == 0
    assert topic._log.storage.stored.durable() < topic._log.storage.stored.tail()  # type: ignore[union-attr]


def test_the_committer_stores_others_too(durable: ringpost.Broker) -> None:
    topic, jobs = spoil(durable), durable.queue("jobs")
    topic.publish("new", key="k", durability="interval")
    for number in range(20):
        jobs.put(number, durability="interval")
        time.sleep(0.01)
    stored = jobs._log.storage.stored  # type: ignore[union-attr]
    deadline = time.monotonic() + BOUND
    while stored.durable() < stored.tail() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stored.durable() == stored.tail()


def test_a_large_message_that_does_not_say_how_large_it_is() -> None:
    (frame,) = form.frames_in(form.void_frames(7, 1, form.FRAME_HEADER), 0)
    assert list(form.large_in(form.void_frames(7, 1, form.FRAME_HEADER), 0)) == []
    changed = bytearray(form.void_frames(7, 1, frame.span))
    changed[5] = form.LARGE  # flags
    with pytest.raises(ringpost.StorageDamaged, match="does not say how large message 7 is"):
        list(form.large_in(changed, 0))
