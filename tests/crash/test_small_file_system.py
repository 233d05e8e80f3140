"""Too little shared memory: an error that says what to do, when a queue is made, and never a SIGBUS later."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ringpost
from crash.children import Flag, Nursery
from crash.namespaces import mount_tmpfs, skip_without_mounts

CAPACITY = 128 << 10
LARGE = bytes(CAPACITY // 2)
TINY_FILE_SYSTEM = "size=1m"
MAKE_QUEUE: dict[str, Callable[[int], ringpost.Queue]] = {
    "named": lambda capacity: ringpost.connect("ring:b").queue("too large", capacity=capacity),
    "anonymous": lambda capacity: ringpost.Queue(capacity=capacity),
}
each_kind = pytest.mark.parametrize("make", MAKE_QUEUE.values(), ids=MAKE_QUEUE)

RunInside = Callable[..., None]


@pytest.fixture
def inside(fork: Nursery, tmp_path: Path) -> Iterator[RunInside]:
    """inside(function) runs it in a process whose shared memory is this small."""
    skip_without_mounts(str(tmp_path))

    def run(function: Callable[[], object], options: str = TINY_FILE_SYSTEM) -> None:
        def child() -> None:
            mount_tmpfs(str(tmp_path), options)
            os.environ["RINGPOST_SHM_DIR"] = str(tmp_path)
            function()

        assert fork(child).wait() == 0

    return run


def files() -> list[Path]:
    return [path for path in Path(os.environ["RINGPOST_SHM_DIR"]).rglob("*") if path.is_file()]


def free() -> int:
    return os.statvfs(os.environ["RINGPOST_SHM_DIR"]).f_bfree


def use_every_byte(queue: ringpost.Queue) -> None:
    for _ in range(3):
        queue.put_nowait(LARGE)
        assert queue.get_nowait() == LARGE
        queue.put_many([bytes(16_000)] * 4, block=False)
        assert queue.get_many() == [bytes(16_000)] * 4


@each_kind
def test_a_queue_that_does_not_fit(inside: RunInside, make: Callable) -> None:
    def too_large() -> None:
        before = free()
        with pytest.raises(ringpost.SegmentFull) as caught:
            make(16 << 20)
        assert caught.value.errno == errno.ENOSPC
        for advice in ("capacity", "RINGPOST_SHM_DIR", "--shm-size", "MiB free"):
            assert advice in str(caught.value)
        assert (files(), free()) == ([], before)
        use_every_byte(ringpost.connect("ring:b").queue("small", capacity=CAPACITY))

    inside(too_large)


def test_queues_until_nothing_is_left(inside: RunInside) -> None:
    """Those that were made have all their memory, whatever happens around them."""

    def fill_up() -> None:
        broker = ringpost.connect("ring:b")
        queues = []
        with contextlib.suppress(ringpost.SegmentFull):
            while len(queues) < 100:
                queues.append(broker.queue(str(len(queues)), capacity=CAPACITY))
        assert 2 <= len(queues) < 100
        assert len(files()) == len(queues)
        filler = Path(os.environ["RINGPOST_SHM_DIR"], "filler")
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(bytes(2 << 20))
        assert free() == 0
        for queue in queues:
            use_every_byte(queue)
        filler.unlink()
        queues.pop().close()
        broker.delete(str(len(queues)))
        use_every_byte(broker.queue("again", capacity=CAPACITY))

    inside(fill_up)


@each_kind
@pytest.mark.parametrize("inodes", [2, 3])
def test_no_room_for_another_file(inside: RunInside, make: Callable, inodes: int) -> None:
    """Blocks are free, but no inodes for the directories or for the file."""

    def no_inode() -> None:
        with pytest.raises(ringpost.SegmentFull, match="RINGPOST_SHM_DIR"):
            make(CAPACITY)
        assert free()

    inside(no_inode, f"size=4m,nr_inodes={inodes}")


# ---- as Docker has it --------------------------------------------------------------------------

DOCKER = "size=64m,mode=1777"


def test_the_defaults_fit(inside: RunInside, tmp_path: Path) -> None:
    """Two queues, a topic; a durable broker's queue, whatever its disk; what is scheduled and remembered."""
    with tempfile.TemporaryDirectory() as disk:

        def use() -> None:
            use_in_memory(ringpost.connect("ring:b"))
            gc.collect()  # what was destroyed is free when nobody has it any more
            with ringpost.connect(f"ring://{disk}/shop") as durable:
                use_two(durable)
                durable.destroy()

        inside(use, DOCKER)


def use_two(broker: ringpost.Broker) -> None:
    for queue in (broker.queue("one"), broker.queue("two")):
        queue.put(LARGE)
        assert queue.get() == LARGE


def use_in_memory(broker: ringpost.Broker) -> None:
    use_two(broker)
    with broker.queue("one").producer(dedup_window=60) as out:
        assert out.send("x", message_id="x")
    topic = broker.topic("news")
    with topic.subscribe() as subscriber:
        topic.publish("x", retain=True)
        assert subscriber.receive(timeout=5).body == "x"
    broker.destroy()
    broker.close()


def test_many_who_make_one_queue_need_its_memory_once(inside: RunInside) -> None:
    def make() -> None:
        start = Flag()

        def open_it() -> None:
            start.wait()
            ringpost.connect("ring:b").queue("one", capacity=24 << 20).put("x")

        with Nursery() as fork:
            children = [fork(open_it) for _ in range(6)]
            start.set()
            assert [child.wait() for child in children] == [0] * 6
        assert ringpost.connect("ring:b").queue("one").qsize() == 6

    inside(make, DOCKER)


def test_the_demo_fits(inside: RunInside) -> None:
    demo = Path(__file__).parents[2] / "examples" / "hash_tree.py"

    def run() -> None:
        subprocess.run([sys.executable, demo], check=True, stdout=subprocess.DEVNULL)

    inside(run, DOCKER)


def test_what_is_kept_aside_finds_no_room(inside: RunInside) -> None:
    """In LMDB's files, which grow: an error, then it goes on, and nobody is killed."""

    def fill_up() -> None:
        queue = ringpost.connect("ring:b").queue("one")
        filler = Path(os.environ["RINGPOST_SHM_DIR"], "filler")
        with queue.producer() as out:
            out.send("before", delay=3600)
            with pytest.raises(OSError, match="No space"):
                filler.write_bytes(bytes(64 << 20))
            with pytest.raises(ringpost.SegmentFull, match="shm-size"):  # noqa: PT012
                for _ in range(100):
                    out.send(bytes(60_000), delay=3600)
            filler.unlink()
            out.send("after", delay=0.01)
        assert queue.get(timeout=10) == "after"

    inside(fill_up, DOCKER)
