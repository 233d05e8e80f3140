"""Too little shared memory: an error that says what to do, when a queue is made, and never a SIGBUS later."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ringpost
from crash.children import Nursery
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
