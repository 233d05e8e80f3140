"""Where queues live: this user's alone, wherever RINGPOST_SHM_DIR says, refused where others may write."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import ringpost

CAPACITY = 128 << 10

Opened = Callable[[], ringpost.Queue[object]]


@pytest.fixture
def mine(base: Path) -> Path:
    return base / f"ringpost-{os.geteuid()}"


@pytest.fixture(params=["named", "anonymous"])
def opened(request: pytest.FixtureRequest, base: Path) -> Opened:
    if request.param == "named":
        return lambda: ringpost.connect("ring:shop").queue("jobs", capacity=CAPACITY)
    return lambda: ringpost.Queue(capacity=CAPACITY)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes(opened: Opened, mine: Path, umask: int) -> None:
    """Whatever the umask: others see nothing, and we see everything."""
    before = os.umask(umask)
    try:
        queue = opened()
    finally:
        os.umask(before)
    path = Path(queue._log.path)
    assert mode(path) == 0o600
    assert mode(path.parent) == mode(mine) == 0o700
    assert path.parent.parent == mine
    assert path.stat().st_uid == os.geteuid()


def test_it_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch, base: Path, mine: Path) -> None:
    """Not once, when ringpost is imported."""
    assert ringpost.connect("ring:shop")._engine._directory == mine / "shop"
    monkeypatch.delenv("RINGPOST_SHM_DIR")
    expected = Path("/dev/shm") / f"ringpost-{os.geteuid()}" / "shop"
    assert ringpost.connect("ring:shop")._engine._directory == expected
    monkeypatch.setenv("RINGPOST_SHM_DIR", "")
    assert ringpost.connect("ring:shop")._engine._directory == expected


@pytest.mark.parametrize("bits", [0o755, 0o701, 0o710, 0o777, 0o1777])
@pytest.mark.parametrize("which", ["", "shop"])
def test_a_directory_that_others_may_enter(mine: Path, which: str, bits: int) -> None:
    (mine / "shop").mkdir(parents=True, mode=0o700)
    mine.chmod(0o700)
    (mine / which).chmod(bits)
    broker = ringpost.connect("ring:shop")
    with pytest.raises(ringpost.NotOurs, match=f"mode {bits:o}, not 700.*RINGPOST_SHM_DIR") as raised:
        broker.queue("jobs", capacity=CAPACITY)
    assert raised.value.filename == str(mine / which)
    assert os.listdir(mine / "shop") == []


def test_an_anonymous_queue_refuses_it_too(mine: Path) -> None:
    mine.mkdir()
    mine.chmod(0o755)
    with pytest.raises(ringpost.NotOurs, match="mode 755, not 700"):
        ringpost.Queue(capacity=CAPACITY)


def test_a_directory_opened_to_others_later(mine: Path) -> None:
    broker = ringpost.connect("ring:shop")
    queue = broker.queue("jobs", capacity=CAPACITY)
    (mine / "shop").chmod(0o770)
    for call in (lambda: broker.queue("jobs"), broker.list):
        with pytest.raises(ringpost.NotOurs):
            call()
    queue.put("what is open stays in use")
    assert queue.qsize() == 1


def test_a_link_in_place_of_a_directory(opened: Opened, base: Path, mine: Path) -> None:
    (base / "real").mkdir(mode=0o700)
    mine.symlink_to(base / "real")
    with pytest.raises(ringpost.NotOurs, match="it is not a directory"):
        opened()
    assert os.listdir(base / "real") == []


def test_a_file_in_place_of_a_directory(opened: Opened, mine: Path) -> None:
    mine.touch(mode=0o600)
    with pytest.raises((ringpost.NotOurs, NotADirectoryError)):
        opened()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_of_somebody_else(opened: Opened, mine: Path) -> None:
    mine.mkdir(mode=0o700)
    os.chown(mine, 12345, 12345)
    with pytest.raises(ringpost.NotOurs, match=f"belongs to uid 12345.*uid {os.geteuid()}"):
        opened()


@pytest.mark.parametrize("bits", [0o644, 0o660, 0o606])
def test_a_queue_that_others_may_open(mine: Path, bits: int) -> None:
    broker = ringpost.connect("ring:shop")
    with broker.queue("jobs", capacity=CAPACITY) as queue:
        path = Path(queue._log.path)
    del queue
    path.chmod(bits)
    with pytest.raises(ringpost.NotOurs, match=r"queue 'jobs' of ring:shop must be .* mode 0600") as raised:
        broker.queue("jobs")
    assert raised.value.filename == str(path)


@pytest.mark.parametrize("kind", ["missing", "file", "relative and missing"])
def test_a_place_that_is_no_directory(
    monkeypatch: pytest.MonkeyPatch, base: Path, opened: Opened, kind: str
) -> None:
    place = {
        "missing": base / "missing",
        "file": base / "file",
        "relative and missing": Path("missing-here"),
    }[kind]
    if kind == "file":
        place.touch()
    monkeypatch.setenv("RINGPOST_SHM_DIR", str(place))
    what = "something that is not a directory" if kind == "file" else "a directory that does not exist"
    with pytest.raises(ringpost.StorageFailed, match=f"RINGPOST_SHM_DIR names {what}: .*{place}") as raised:
        opened()
    assert raised.value.errno == (errno.ENOTDIR if kind == "file" else errno.ENOENT)
    assert raised.value.filename == str(place.absolute())


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_nothing_is_there_to_look_at(monkeypatch: pytest.MonkeyPatch, base: Path, kind: str) -> None:
    """Looking makes nothing, and finds nothing or says why not."""
    place = base / kind
    if kind == "file":
        place.touch()
    monkeypatch.setenv("RINGPOST_SHM_DIR", str(place))
    broker = ringpost.connect("ring:shop")
    if kind == "missing":
        assert broker.list() == []
        assert broker.delete("jobs") is False
        with pytest.raises(ringpost.QueueNotFound):
            broker.queue("jobs", create=False)
        assert not place.exists()
    else:
        for call in (broker.list, lambda: broker.queue("jobs", create=False)):
            with pytest.raises(ringpost.StorageFailed, match=f"RINGPOST_SHM_DIR names something.*{place}"):
                call()


def test_a_durable_broker_says_the_same(monkeypatch: pytest.MonkeyPatch, base: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("RINGPOST_SHM_DIR", str(base / "missing"))
    with pytest.raises(ringpost.StorageFailed, match=r"^.Errno 2. .RINGPOST_SHM_DIR names a dir") as raised:
        ringpost.connect(f"ring://{tmp_path}/shop").queue("jobs")
    assert raised.value.filename == str(base / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_where_we_may_not_write(base: Path, opened: Opened) -> None:
    base.chmod(0o500)
    with pytest.raises(PermissionError):
        opened()
    base.chmod(0o700)


def test_the_last_one_to_leave_takes_the_directory_along(mine: Path) -> None:
    broker = ringpost.connect("ring:shop")
    broker.queue("jobs", capacity=CAPACITY)
    broker.destroy()
    assert not mine.exists()


def test_a_directory_with_something_else_in_it_stays(mine: Path) -> None:
    broker = ringpost.connect("ring:shop")
    broker.queue("jobs", capacity=CAPACITY)
    (mine / "shop" / "notes.txt").write_text("not ours to delete")
    broker.destroy()
    assert os.listdir(mine / "shop") == ["notes.txt"]


def test_a_relative_place_is_meant_once(
    monkeypatch: pytest.MonkeyPatch, base: Path, opened: Opened, tmp_path: Path
) -> None:
    """What a queue was opened as, and what an anonymous one hands out, holds wherever a process goes."""
    monkeypatch.chdir(base)
    monkeypatch.setenv("RINGPOST_SHM_DIR", ".")
    queue = opened()
    assert Path(queue._log.path).is_absolute()
    monkeypatch.chdir(tmp_path)
    assert Path(queue._log.path).exists()


# ---- what lies above ---------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o777, 0o757, 0o722])
def test_a_place_where_others_may_take_away_what_is_ours(base: Path, opened: Opened, bits: int) -> None:
    base.chmod(bits)
    with pytest.raises(ringpost.NotOurs, match=r"may write there.*chmod \+t") as raised:
        opened()
    assert raised.value.filename == str(base)
    assert os.listdir(base) == []
    base.chmod(bits | 0o1000)  # like /tmp
    opened()
    base.chmod(0o700)


def test_further_up(monkeypatch: pytest.MonkeyPatch, base: Path, opened: Opened) -> None:
    place = base / "open" / "mine"
    place.mkdir(parents=True)
    place.parent.chmod(0o777)
    monkeypatch.setenv("RINGPOST_SHM_DIR", str(place))
    with pytest.raises(ringpost.NotOurs) as raised:
        opened()
    assert raised.value.filename == str(place.parent)
    place.parent.chmod(0o755)
    opened()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("sticky", [False, True])
def test_a_place_of_another_user(base: Path, opened: Opened, sticky: bool) -> None:
    """The sticky bit does not hold its owner back."""
    base.chmod(0o1777 if sticky else 0o755)
    os.chown(base, 12345, 12345)
    with pytest.raises(ringpost.NotOurs, match="belongs to uid 12345, who may take away"):
        opened()
    os.chown(base, 0, 0)
    base.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_place_that_another_group_may_write_to(base: Path, opened: Opened) -> None:
    os.chown(base, 0, 12345)
    base.chmod(0o775)
    with pytest.raises(ringpost.NotOurs, match="group gid 12345 may write there"):
        opened()
    base.chmod(0o755)
    opened()


def test_a_place_that_a_link_leads_to(monkeypatch: pytest.MonkeyPatch, base: Path, opened: Opened) -> None:
    """What counts is where it leads."""
    real = base / "real"
    real.mkdir(mode=0o700)
    (base / "link").symlink_to(real)
    monkeypatch.setenv("RINGPOST_SHM_DIR", str(base / "link"))
    opened()
    assert os.listdir(real) == [f"ringpost-{os.geteuid()}"]
    real.chmod(0o777)
    with pytest.raises(ringpost.NotOurs) as raised:
        opened()
    assert raised.value.filename == str(real)
    real.chmod(0o700)


@pytest.fixture(params=["memory", "disk"])
def opened_by(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], ringpost.Queue[object]]:
    """A broker in, or below, a directory."""

    def in_memory(place: Path) -> ringpost.Queue[object]:
        monkeypatch.setenv("RINGPOST_SHM_DIR", str(place))
        return ringpost.connect("ring:shop").queue("jobs", capacity=CAPACITY)

    def on_disk(place: Path) -> ringpost.Queue[object]:
        return ringpost.connect(f"ring://{place}").queue("jobs", capacity=CAPACITY)

    return in_memory if request.param == "memory" else on_disk


def test_a_link_that_others_may_turn(base: Path, opened_by: Callable[[Path], ringpost.Queue[object]]) -> None:
    """Though what it leads to is ours: they may let it lead elsewhere tomorrow."""
    real, theirs, mine = base / "real", base / "theirs", base / "mine"
    for each in (real, theirs, mine):
        each.mkdir(mode=0o700)
    (theirs / "link").symlink_to(real)
    (mine / "first").symlink_to("../mine/second")
    (mine / "second").symlink_to(theirs / "link")
    theirs.chmod(0o777)
    for way in (theirs / "link", mine / "first", mine / "first" / ".." / "real"):
        with pytest.raises(ringpost.NotOurs, match="may write there") as raised:
            opened_by(way)
        assert raised.value.filename == str(theirs)
        assert os.listdir(real) == []
    theirs.chmod(0o755)
    opened_by(mine / "first")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_link_in_a_directory_of_another_user(
    base: Path, opened_by: Callable[[Path], ringpost.Queue[object]]
) -> None:
    real, theirs = base / "real", base / "theirs"
    for each in (real, theirs):
        each.mkdir(mode=0o700)
    (theirs / "link").symlink_to(real)
    os.chown(theirs, 12345, 12345)
    with pytest.raises(ringpost.NotOurs, match="belongs to uid 12345, who may take away") as raised:
        opened_by(theirs / "link")
    assert raised.value.filename == str(theirs)
    assert os.listdir(real) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_link_of_another_user_where_everybody_may_make_some(
    base: Path, opened_by: Callable[[Path], ringpost.Queue[object]]
) -> None:
    real, everybody_s = base / "real", base / "tmp"
    for each in (real, everybody_s):
        each.mkdir(mode=0o700)
    (everybody_s / "link").symlink_to(real)
    os.chown(everybody_s / "link", 12345, 12345, follow_symlinks=False)
    everybody_s.chmod(0o1755)  # not 1777: the kernel may refuse the link itself there (protected_symlinks)
    with pytest.raises(ringpost.NotOurs, match=f"link of uid 12345, who may turn it.*{real}") as raised:
        opened_by(everybody_s / "link")
    assert raised.value.filename == str(everybody_s / "link")
    os.chown(everybody_s / "link", 0, 0, follow_symlinks=False)
    opened_by(everybody_s / "link")


def test_many_links_on_the_way(base: Path, opened_by: Callable[[Path], ringpost.Queue[object]]) -> None:
    """Each is looked at once or so."""
    place = base
    for number in range(18):
        (place / f"real{number}").mkdir(mode=0o700)
        (place / f"link{number}").symlink_to(f"real{number}")
        place /= f"link{number}"
    opened_by(place)
