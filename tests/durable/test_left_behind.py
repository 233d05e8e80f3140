"""What makers leave who are killed: later ones, and destroy(), remove it, and nothing else."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.patience import Call
from crash.children import Nursery
from crash.fixtures import fork as fork

import ringpost
from durable.conftest import built
from ringpost.engines import directory, segments
from ringpost.engines.access import PRIVATE, Access
from ringpost.sidestore import SideStore

NO_TMPFILE = Path(__file__).with_name("no_tmpfile.c")
NAME = ".0123456789abcdef0123456789abcdef.new"


def die_at(monkeypatch: pytest.MonkeyPatch, module: Any, function: str, call: int) -> None:
    """In the nth call."""
    original, calls = getattr(module, function), iter(range(1000))

    def die(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, function, die)


def make_everything(url: str) -> None:
    with ringpost.connect(url).queue("jobs").producer() as producer:
        producer.send("later", delay=1000)


def unfinished(*places: Path) -> set[Path]:
    return {
        found.parent
        for place in places
        for found in place.rglob(".*.new")
        if found.is_dir() and found.name != ".new"
    }


@pytest.mark.parametrize("function", ["mkdir", "chmod", "rename"])
def test_directories_of_who_was_killed_go(
    url: str, place: Path, shm_dir: Path, fork: Nursery, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    left_in: set[Path] = set()
    for call in range(1000):
        with monkeypatch.context() as patched:
            die_at(patched, os, function, call)
            status = fork(make_everything, url).wait()
        left_in |= unfinished(place.parent, shm_dir)
        ringpost.connect(url).queue("jobs")
        ringpost.connect(url).destroy()
        assert not place.exists()
        assert unfinished(place.parent, shm_dir) == set()
        if status == 0:
            break
    if function == "rename":
        assert {place.parent, place, shm_dir} < left_in


def test_destroy_alone_removes_them(durable: ringpost.Broker, place: Path, shm_dir: Path) -> None:
    durable.queue("jobs")
    shm = durable._engine._environment().shm  # type: ignore[attr-defined]
    for each in (place.parent, place, shm_dir, shm.parent, shm):
        (each / NAME).mkdir(mode=0o700)
        (each / NAME / "domain").touch()
    durable.destroy()
    assert not place.exists()
    assert list(shm_dir.iterdir()) == []
    assert not (place.parent / NAME).exists()


def test_who_makes_one_is_left_in_peace(tmp_path: Path) -> None:
    def fill(made: Path) -> None:
        (made / "domain").touch()
        directory.remove_unfinished(tmp_path)

    directory.make_one(tmp_path / "shop", PRIVATE, fill=fill)
    assert (tmp_path / "shop" / "domain").exists()
    assert os.listdir(tmp_path) == ["shop"]


@pytest.mark.parametrize("function", ["mkdir", "chmod", "open"])
def test_who_has_not_locked_it_yet_makes_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    original, removed = getattr(os, function), []

    def be_late(path: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(path, *args, **kwargs)
        if not removed:
            removed.append(path)
            directory.remove_unfinished(tmp_path)
            assert os.listdir(tmp_path) == []
        return result

    monkeypatch.setattr(os, function, be_late)
    directory.make_one(tmp_path / "shop", PRIVATE)
    assert removed
    assert os.listdir(tmp_path) == ["shop"]


def test_a_name_that_was_given_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its maker goes on between our looks at it."""
    (tmp_path / NAME).mkdir(mode=0o700)
    (tmp_path / NAME / "domain").touch()
    original = fcntl.flock

    def rename_first(here: int, how: int) -> None:
        if how != fcntl.LOCK_UN:
            (tmp_path / NAME).rename(tmp_path / "shop")
        original(here, how)

    monkeypatch.setattr(fcntl, "flock", rename_first)
    directory.remove_unfinished(tmp_path)
    assert (tmp_path / "shop" / "domain").exists()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path, fork: Nursery) -> None:
    """It would hold up who makes the broker in it."""
    children = []
    directory.make_one(tmp_path / "shop", PRIVATE, fill=lambda made: children.append(fork(signal.pause)))
    here = os.open(tmp_path / "shop", os.O_RDONLY)
    fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(here)
    children[0].kill()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "domain").touch()
    (tmp_path / NAME).symlink_to(precious)
    (tmp_path / NAME.replace("0", "1")).touch()
    (tmp_path / (NAME + "er")).mkdir()
    if os.geteuid() == 0:
        (tmp_path / NAME.replace("0", "2")).mkdir()
        os.chown(tmp_path / NAME.replace("0", "2"), 12345, 12345)
    before = sorted(tmp_path.rglob("*"))
    directory.remove_unfinished(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def segment_of_the_dead(shm: Path, name: str = "jobs.queue.0123456789abcdef.new") -> Path:
    """As native/src/segment.c makes one where there is no O_TMPFILE."""
    (shm / name).touch(0o600)
    return shm / name


Remove = Callable[[ringpost.Broker], object]


@pytest.mark.parametrize("remove", [lambda broker: broker.queue("another"), lambda broker: broker.destroy()])
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_segments_of_who_was_killed_go(
    broker: ringpost.Broker, durable: ringpost.Broker, remove: Remove, kind: str
) -> None:
    used = durable if kind == "disk" else broker
    used.queue("jobs")
    left = segment_of_the_dead(used._engine._directory)  # type: ignore[attr-defined]
    remove(used)
    assert not left.exists()
    used.destroy()
    assert not left.parent.exists()


def test_segments_of_the_living_stay(tmp_path: Path) -> None:
    left = segment_of_the_dead(tmp_path)
    target = tmp_path / "precious"
    target.touch()
    (tmp_path / "jobs.queue.1123456789abcdef.new").symlink_to(target)
    os.mkfifo(tmp_path / "jobs.queue.2123456789abcdef.new")
    segment_of_the_dead(tmp_path, "jobs.queue.new")
    before = sorted(tmp_path.iterdir())
    file = os.open(left, os.O_RDWR)
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 1 << 40, 1, 0))
    segments.remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    os.close(file)
    segments.remove_unfinished(tmp_path)
    assert sorted(tmp_path.iterdir()) == [each for each in before if each != left]


def in_a_process(library: Path, then: str) -> int:
    """Makes a queue where there is no O_TMPFILE."""
    code = "import ringpost; ringpost.connect('ring:left').queue('jobs').put(1)"
    variables = {**os.environ, "LD_PRELOAD": str(library), "NO_TMPFILE_THEN": then}
    return subprocess.run([sys.executable, "-c", code], env=variables).returncode


def test_a_segment_of_who_was_killed_goes(tmp_path: Path, shm_dir: Path) -> None:
    library = built(NO_TMPFILE, tmp_path)
    assert in_a_process(library, "kill") == -signal.SIGKILL
    [left] = shm_dir.rglob("jobs.queue.*.new")
    broker = ringpost.connect("ring:left")
    broker.queue("another")
    assert not left.exists()
    assert in_a_process(library, "kill") == -signal.SIGKILL
    assert len(list(shm_dir.rglob("jobs.queue.*.new"))) == 1
    broker.destroy()
    assert list(shm_dir.iterdir()) == []


def test_a_segment_that_was_taken_for_what_the_dead_left_is_made_again(tmp_path: Path, shm_dir: Path) -> None:
    assert in_a_process(built(NO_TMPFILE, tmp_path), "unlink") == 0
    with ringpost.connect("ring:left") as broker:
        assert broker.queue("jobs").get(timeout=0) == 1
        broker.destroy()


@pytest.mark.parametrize("function", ["posix_fallocate", "pwrite", "fchmod", "link", "unlink", "rename"])
def test_files_of_who_was_killed_are_made_anew(
    url: str, place: Path, fork: Nursery, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """All of it is there, so that a full disk kills nobody, and the whole group may use it."""
    url = f"{url}?group={os.getegid()}"
    for call in itertools.count():
        with monkeypatch.context() as patched:
            die_at(patched, os, function, call)
            status = fork(make_everything, url).wait()
        ringpost.connect(url).queue("jobs")
        for name, size in (("lock.mdb", 128 << 10), ("domain", 1024)):
            found = (place / name).stat()
            assert found.st_mode & 0o777 == 0o660
            assert found.st_blocks * 512 >= found.st_size >= size
        assert not list(place.glob("[!.]*.new"))
        ringpost.connect(url).destroy()
        assert not place.exists()
        if status == 0:
            break
    assert call > 0


def test_destroy_removes_files_that_are_not_finished(durable: ringpost.Broker, place: Path) -> None:
    durable.queue("jobs")
    for name in ("lock.mdb.new", "domain.new"):
        (place / name).touch()
    durable.destroy()
    assert not place.exists()


@pytest.fixture
def copied_side_store(tmp_path: Path) -> Path:
    """Which has no lock."""
    access = Access(os.getegid())
    directory.make_one(tmp_path / "shop", access)
    SideStore(tmp_path / "shop" / "side", access, durable=True).close()
    (tmp_path / "shop" / "side" / "writers").unlink()
    return tmp_path / "shop" / "side"


@pytest.mark.parametrize("function", ["fchmod", "rename"])
def test_the_lock_of_a_copied_side_store(
    copied_side_store: Path, fork: Nursery, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def open_it() -> None:
        SideStore(copied_side_store, Access(os.getegid()), durable=True).close()

    with monkeypatch.context() as patched:
        die_at(patched, os, function, 0)
        assert fork(open_it).wait() == -signal.SIGKILL
    open_it()
    assert sorted(os.listdir(copied_side_store)) == ["data.mdb", "writers"]
    assert (copied_side_store / "writers").stat().st_mode & 0o777 == 0o660


def test_who_opens_a_copied_side_store_first_makes_its_lock(
    copied_side_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_it() -> SideStore:
        return SideStore(copied_side_store, Access(os.getegid()), durable=True)

    original, others = os.rename, list[Call]()

    def meet_another(*names: Any) -> None:
        monkeypatch.setattr(os, "rename", original)
        others.append(Call(open_it))
        assert others[0].is_blocked()
        original(*names)

    monkeypatch.setattr(os, "rename", meet_another)
    stores = [open_it(), others[0].result()]
    assert stores[0]._identity == stores[1]._identity
    assert all(store.is_there() for store in stores)
    for store in stores:
        store.close()
