"""What lies where a queue's file should be, but is none: refused with a reason, and left as it is."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import ringpost
from crash.segment_file import SegmentFile, path_of

CAPACITY = 128 << 10
FOREIGNER = 12345  # a uid
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away needs root")
pytestmark = pytest.mark.timeout(20)


@pytest.fixture
def file(broker: ringpost.Broker) -> Path:
    """Of a queue with one message, which nobody has open."""
    queue = broker.queue("q", capacity=CAPACITY)
    queue.put("message")
    path = Path(path_of(queue))
    queue.close()
    return path


def check_refused(broker: ringpost.Broker, error: type[Exception]) -> str:
    """With or without permission to make it. Returns what the user reads."""
    for create in (True, False):
        with pytest.raises(error) as caught:
            broker.queue("q", create=create)
    assert "'q'" in str(caught.value) or "q.queue" in str(caught.value)
    return str(caught.value)


def check_can_be_replaced(broker: ringpost.Broker) -> None:
    assert broker.delete("q")
    queue = broker.queue("q", capacity=CAPACITY)
    assert queue.qsize() == 0
    queue.put("new")
    assert queue.get() == "new"


# ---- of a wrong size ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100, 511, 512, 4095, 4096, 65_536, -65_536, -1, "+1", "+4096"])
def test_a_file_cut_short_or_grown(broker: ringpost.Broker, file: Path, size: int | str) -> None:
    whole = file.stat().st_size
    os.truncate(file, whole + int(size) if isinstance(size, str) or size < 0 else size)
    assert "damaged" in check_refused(broker, ringpost.CorruptLog)
    check_can_be_replaced(broker)


# ---- of another time, version, machine ------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"), [("layout", 99), ("layout", 0), ("abi", 0x00081002), ("abi", 0x00041001)]
)
def test_of_another_version_or_machine(broker: ringpost.Broker, file: Path, field: str, value: int) -> None:
    segment = SegmentFile(str(file))
    segment[field] = value
    segment.sign()
    assert "version" in check_refused(broker, ringpost.LayoutMismatch)
    assert file.exists()
    check_can_be_replaced(broker)


def test_from_before_a_reboot(broker: ringpost.Broker, file: Path) -> None:
    SegmentFile(str(file))["boot_id"] = bytes(range(16))
    queue = broker.queue("q", capacity=2 * CAPACITY)
    assert (queue.qsize(), queue.capacity) == (0, 2 * CAPACITY)
    queue.put("new")
    assert queue.get() == "new"


def test_from_before_a_reboot_and_not_to_be_made(broker: ringpost.Broker, file: Path) -> None:
    SegmentFile(str(file))["boot_id"] = bytes(range(16))
    with pytest.raises(ringpost.QueueNotFound):
        broker.queue("q", create=False)


def test_an_anonymous_one_from_before_a_reboot(file: Path) -> None:
    SegmentFile(str(file))["boot_id"] = bytes(range(16))
    with ringpost.Queue(capacity=CAPACITY) as queue:
        stale = Path(path_of(queue)).parent / "left-over.queue"
        shutil.move(file, stale)
        with ringpost.Queue(capacity=CAPACITY):
            assert not stale.exists()
            assert queue.empty()


# ---- of another kind --------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the names of sockets must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path], object]] = {
    "directory": os.mkdir,
    "FIFO": os.mkfifo,
    "dangling link": lambda path: os.symlink("nowhere", path),
    "link to a file": lambda path: os.symlink("/etc/passwd", path),
    "link to a queue": lambda path: os.symlink(shutil.copy(path.parent / "kept", f"{path}-b"), path),
    "device": lambda path: os.symlink("/dev/zero", path),
    "socket": make_socket,
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_not_a_plain_file(broker: ringpost.Broker, file: Path, make: Callable[[Path], object]) -> None:
    file.rename(file.parent / "kept")
    make(file)
    check_refused(broker, ringpost.NotOurs)
    with pytest.raises(ringpost.NotOurs):
        broker.delete("q")
    assert os.path.lexists(file)
    assert (file.parent / "kept").exists()
    shutil.rmtree(file.parent)


# ---- of others, or open to them -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_open_to_others(broker: ringpost.Broker, file: Path, mode: int) -> None:
    os.chmod(file, mode)
    assert "0600" in check_refused(broker, ringpost.NotOurs)
    os.chmod(file, 0o600)
    assert broker.queue("q").get() == "message"


@needs_root
def test_owned_by_another_user(broker: ringpost.Broker, file: Path) -> None:
    os.chown(file, FOREIGNER, -1)
    check_refused(broker, ringpost.NotOurs)
    os.chown(file, 0, -1)
    assert broker.queue("q").get() == "message"


def open_directory(path: Path) -> None:
    os.chmod(path, 0o755)


def give_away(path: Path) -> None:
    os.chown(path, FOREIGNER, -1)


def make_link(path: Path) -> None:
    moved = path.rename(path.with_name(path.name + "-moved"))
    path.symlink_to(moved)


@pytest.mark.parametrize("level", ["broker", "user"])
@pytest.mark.parametrize("existing", [True, False], ids=["existing queue", "new queue"])
@pytest.mark.parametrize("spoil", [open_directory, pytest.param(give_away, marks=needs_root), make_link])
def test_in_a_directory_that_others_control(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    existing: bool,
    level: str,
) -> None:
    """Who may write to the directory may put another queue of ours in this one's place."""
    monkeypatch.setenv("RINGPOST_SHM_DIR", str(tmp_path))
    broker = ringpost.connect("ring:b")
    queue = broker.queue("q", capacity=CAPACITY)
    directory = Path(path_of(queue)).parent
    queue.close()
    if not existing:
        broker.delete("q")
    spoil(directory if level == "broker" else directory.parent)
    with pytest.raises(ringpost.NotOurs):
        broker.queue("q", capacity=CAPACITY)
