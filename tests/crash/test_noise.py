"""Random bytes instead of a queue, or in any part of one: errors, never a crash and never a hang."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ringpost
from crash.children import Nursery
from crash.segment_file import FIELDS, GUARDED_FROM, SUPER_SIZE, SegmentFile, path_of
from crash.storm import ROUNDS, random_seed

CAPACITY = 128 << 10
BOUND = 20.0  # seconds for all calls together
FILES = 48 * ROUNDS
HANDLED = (
    ringpost.RingpostError,
    ringpost.Empty,
    ringpost.Full,
    ringpost.ShutDown,
    ValueError,  # a size that the geometry has no room for
    TimeoutError,
)
pytestmark = pytest.mark.timeout(60 + 20 * ROUNDS)

Queue = ringpost.Queue[Any]

CALLS: list[Callable[[Queue], object]] = [
    Queue.qsize,
    Queue.full,
    lambda queue: queue.is_shutdown,
    lambda queue: queue.put(b"x" * 100, timeout=0.02),
    lambda queue: queue.put(b"x" * 30_000, timeout=0.02),
    lambda queue: queue.put_many([b"a", b"b" * 20_000, b"c"], timeout=0.02),
    lambda queue: queue.get(timeout=0.02),
    lambda queue: queue.get_many(timeout=0.02),
    Queue.get_nowait,
    lambda queue: queue.join(timeout=0.02),
    Queue.shutdown,
]


@pytest.fixture
def template(broker: ringpost.Broker) -> SegmentFile:
    """Of a queue that has been used and holds messages of both kinds."""
    queue = broker.queue("template", capacity=CAPACITY)
    for size in (10, 20_000, 3000, 17_000) * 3:
        queue.put(bytes(size))
        queue.get()
    queue.put_many([bytes(10), bytes(20_000), bytes(1000)])
    return SegmentFile(path_of(queue))


def call_everything(broker: ringpost.Broker) -> None:
    for _ in range(2):
        try:
            queue = broker.queue("noisy", capacity=CAPACITY)
        except HANDLED:
            continue
        for call in CALLS:
            try:
                call(queue)
            except HANDLED:
                pass
        try:
            queue.task_done()
        except (*HANDLED, ValueError):
            pass


def check(broker: ringpost.Broker, fork: Nursery, content: bytes) -> None:
    """All calls on a queue whose file has this content end, with a result or an error."""
    path = Path(path_of(broker.queue("template"))).with_name("noisy.queue")
    path.write_bytes(content)
    path.chmod(0o600)
    child = fork(call_everything, broker)
    start = time.monotonic()
    status = child.wait(BOUND)
    assert status == 0, f"died of signal {-status}" if status < 0 else "an error of another kind"
    assert time.monotonic() - start < BOUND
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("size", [1, 512, 4096, 65_536, 327_680])
def test_nothing_but_noise(broker: ringpost.Broker, fork: Nursery, template: SegmentFile, size: int) -> None:
    rng = random.Random(random_seed())
    for _ in range(FILES // 10):
        check(broker, fork, rng.randbytes(size))


def region(template: SegmentFile, name: str) -> tuple[int, int]:
    starts = {"header": SUPER_SIZE, "pool": template["pool_offset"], "ring": template.ring()[0]}
    for table in ("groups", "slots", "leases", "chunks"):
        starts[table] = template[f"{table}_offset"]
    ordered = sorted([*starts.values(), template["file_size"]])
    return starts[name], ordered[ordered.index(starts[name]) + 1]


@pytest.mark.parametrize("share", [1.0, 0.05], ids=["all of it", "a little"])
@pytest.mark.parametrize("name", ["header", "groups", "slots", "chunks", "ring", "pool"])
def test_noise_in_one_part(
    broker: ringpost.Broker, fork: Nursery, template: SegmentFile, name: str, share: float
) -> None:
    rng = random.Random(random_seed())
    start, end = region(template, name)
    for _ in range(FILES // 4):
        content = bytearray(template.memory)
        for at in range(start, end, 8):
            if rng.random() < share:
                content[at : at + 8] = noise(rng)
        check(broker, fork, bytes(content))


def noise(rng: random.Random) -> bytes:
    """Eight bytes: as numbers all sizes occur, and the edges."""
    number = rng.choice([rng.getrandbits(rng.randrange(1, 65)), 0, 1, (1 << 64) - 1, 1 << 63])
    return (number & ~15 if rng.random() < 0.5 else number).to_bytes(8, "little")


def test_noise_everywhere_behind_the_superblock(
    broker: ringpost.Broker, fork: Nursery, template: SegmentFile
) -> None:
    rng = random.Random(random_seed())
    for _ in range(FILES // 4):
        rest = template["file_size"] - SUPER_SIZE
        check(broker, fork, template.memory[:SUPER_SIZE] + rng.randbytes(rest))


def test_a_superblock_that_lies(broker: ringpost.Broker, fork: Nursery, template: SegmentFile) -> None:
    """Its checksum is right: only the bounds stand between it and other memory."""
    rng = random.Random(random_seed())
    original = template.memory[:SUPER_SIZE]
    fields = [name for name, (at, _) in FIELDS.items() if GUARDED_FROM <= at < SUPER_SIZE]
    fields.remove("boot_id")
    for _ in range(FILES):
        for name in rng.sample(fields, rng.randrange(1, 4)):
            template[name] = tempting(rng, template[name], 8 if FIELDS[name][1] == "<Q" else 4)
        content = bytes(template.memory)
        template.memory[:SUPER_SIZE] = original
        check(broker, fork, content)


def tempting(rng: random.Random, value: int, size: int) -> int:
    """Half, double, zero, all ones, a little more or less: or anything."""
    choices = (value // 2, value * 2, 0, -1, value + 1, value - 1, value + 4096, value - 4096)
    return rng.choice([*choices, rng.getrandbits(64)]) & ((1 << 8 * size) - 1)


def use(queue: Queue, seconds: float = 0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        for call in CALLS:
            try:
                call(queue)
            except HANDLED:
                pass
        if time.monotonic() >= deadline:
            return


def test_noise_comes_while_the_queue_is_open(
    broker: ringpost.Broker, fork: Nursery, template: SegmentFile
) -> None:
    """Geometry was checked when it was opened: what comes later must not be believed."""
    rng = random.Random(random_seed())
    queue = broker.queue("template")
    good = bytes(template.memory)
    for _ in range(FILES // 2):
        template.memory[:] = rng.randbytes(len(good))
        assert fork(use, queue).wait(BOUND) == 0
    template.memory[:] = good


@pytest.mark.parametrize("name", ["header", "groups", "chunks", "ring"])
def test_noise_comes_while_calls_run(
    broker: ringpost.Broker, fork: Nursery, template: SegmentFile, name: str
) -> None:
    """What was checked is what is used: nothing is read twice."""
    rng = random.Random(random_seed())
    queue = broker.queue("template")
    good = bytes(template.memory)
    start, end = region(template, name)
    places = range(start, min(end, start + 4096), 8)

    def scribble() -> None:
        while True:
            at = rng.choice(places)
            template.memory[at : at + 8] = rng.choice((good[at : at + 8], noise(rng)))

    scribbler = fork(scribble)
    users = [fork(use, queue, ROUNDS) for _ in range(2)]
    assert [user.wait(BOUND + ROUNDS) for user in users] == [0, 0]
    scribbler.kill()
    template.memory[:] = good
