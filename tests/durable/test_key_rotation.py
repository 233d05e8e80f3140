"""rotate_key(): a new key for the directory; those who have it open go on; whoever dies, one key opens it."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from conformance.crew import Crew
from conformance.patience import BOUND
from crash.children import Nursery
from crash.fixtures import fork as fork
from crash.namespaces import mount_tmpfs, skip_without_mounts

import ringpost
from durable.sealing import KEY, OTHER, after_reboot, drain, environment_of, rows_of
from ringpost.store import environment, vault
from ringpost.store import format as form

STEPS = {environment.__file__: {"rotate_key", "begin"}, vault.__file__: None}  # functions; None: all


def keys_of_blocks(broker: ringpost.Broker) -> list[int]:
    return [form.key_number(value) for value in rows_of(environment_of(broker), form.BLOCKS).values()]


def opens(url: str, key: bytes | str) -> bool:
    try:
        ringpost.connect(url, key=key).queue("jobs")
    except ringpost.KeyRefused:
        return False
    return True


def test_another_key(sealed: ringpost.Broker, shm_dir: Path) -> None:
    queue = sealed.queue("jobs")
    queue.put("before")
    sealed.rotate_key(OTHER)
    queue.put("after")
    assert keys_of_blocks(sealed) == [1, 2]
    assert (opens(sealed.url, KEY), opens(sealed.url, OTHER)) == (False, True)
    broker = after_reboot(sealed, shm_dir, OTHER)
    assert drain(broker.queue("jobs")) == ["before", "after"]
    assert ringpost.verify(broker.url.removeprefix("ring://"), key=OTHER).ok
    broker.close()


def test_to_a_passphrase_and_back_to_the_same(sealed: ringpost.Broker, shm_dir: Path) -> None:
    for number, key in enumerate(("a passphrase", KEY, KEY)):
        sealed.rotate_key(key)
        sealed.queue("jobs").put(number)
    assert keys_of_blocks(sealed) == [2, 3, 4]
    assert (opens(sealed.url, KEY), opens(sealed.url, "a passphrase")) == (True, False)
    assert drain(after_reboot(sealed, shm_dir).queue("jobs")) == [0, 1, 2]


@pytest.mark.parametrize("key", [None, b"", "", 5])
def test_to_what_is_no_key(sealed: ringpost.Broker, key: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="'key'"):
        sealed.rotate_key(key)
    assert opens(sealed.url, KEY)


def test_a_backup_keeps_the_key_it_had(sealed: ringpost.Broker, tmp_path: Path) -> None:
    sealed.queue("jobs").put("x")
    sealed.backup(tmp_path / "copy")
    sealed.rotate_key(OTHER)
    with ringpost.connect(f"ring://{tmp_path}/copy", key=KEY) as copy:
        assert copy.queue("jobs").get(timeout=BOUND) == "x"
        copy.destroy()


def go_on(url: str, pipe: Connection) -> None:
    """Opened with the first key, and asked for something now and then."""
    broker = ringpost.connect(url, key=KEY)
    jobs, other = broker.queue("jobs"), broker.queue("other")
    producer = jobs.producer(dedup_window=1000)
    pipe.send("open")
    while (wanted := pipe.recv()) != "end":
        try:
            if wanted == "put":
                other.put("from the old one")
                producer.send("once", message_id=str(os.urandom(4)))
            elif wanted == "connect":
                ringpost.connect(url, key=OTHER).queue("jobs")
            pipe.send(other.qsize() if wanted == "put" else len(drain(jobs)))
        except ringpost.RingpostError as error:
            pipe.send(str(error))


class OldProcess:
    """`with OldProcess(crew, url) as ask:` ask("put"), ask("drain"), ask("connect")."""

    def __init__(self, crew: Crew, url: str) -> None:
        self._mine, theirs = multiprocessing.Pipe()
        self._process = crew.start(go_on, url, theirs)
        assert self._mine.recv() == "open"

    def __call__(self, what: str) -> Any:
        self._mine.send(what)
        assert self._mine.poll(BOUND)
        return self._mine.recv()

    def __enter__(self) -> OldProcess:
        return self

    def __exit__(self, *unused: object) -> None:
        self._mine.send("end")
        self._process.join(BOUND)
        self._mine.close()


def test_who_has_it_open_goes_on(sealed: ringpost.Broker, shm_dir: Path) -> None:
    """Reads what is sealed with data keys that it never saw, and seals with the newest."""
    queue = sealed.queue("jobs", capacity=128 << 10)
    sealed.queue("other", capacity=128 << 10)
    with Crew("fork") as crew, OldProcess(crew, sealed.url) as ask:
        assert ask("put") == 1
        sealed.rotate_key(OTHER)
        queue.put_many([bytes(1000)] * 500)  # more than the ring holds
        assert ask("drain") == 501
        for key in ("a passphrase", OTHER):
            sealed.rotate_key(key)
        assert ask("put") == 2
        assert set(keys_of_blocks(sealed)) == {1, 4}
        assert ask("drain") == 1
    broker = after_reboot(sealed, shm_dir, OTHER)
    assert drain(broker.queue("other")) == ["from the old one"] * 2
    broker.close()


def test_without_the_shared_memory_it_needs_the_new_key(sealed: ringpost.Broker) -> None:
    sealed.queue("jobs")
    sealed.queue("other")
    with Crew("fork") as crew, OldProcess(crew, sealed.url) as ask:
        sealed.rotate_key(OTHER)
        for link in environment_of(sealed).shm.glob("keys.*"):
            link.unlink()
        assert "its key was changed with rotate_key()" in ask("put")
        sealed.queue("jobs").put("from the one that rotated")
        assert ask("connect") == 1
        assert ask("put") == 2  # the one before is there, too: it was not confirmed


def test_a_link_of_another_generation_is_none(sealed: ringpost.Broker) -> None:
    sealed.queue("jobs")
    sealed.queue("other")
    with Crew("fork") as crew, OldProcess(crew, sealed.url) as ask:
        sealed.rotate_key(OTHER)
        sealed.rotate_key(OTHER)
        first, second = sorted(environment_of(sealed).shm.glob("keys.*"))
        shutil.copy(second, first)
        assert "its key was changed with rotate_key()" in ask("put")


def test_full_shared_memory(url: str, shm_dir: Path, fork: Nursery) -> None:
    """There the way to the new key goes: nothing is changed, nothing is left, and later it works."""
    skip_without_mounts(str(shm_dir))

    def rotate() -> None:
        mount_tmpfs(str(shm_dir), "size=1m,mode=700")
        broker = ringpost.connect(url, key=KEY)
        queue = broker.queue("jobs", capacity=128 << 10)
        queue.put("before")
        filler, before = shm_dir / "filler", sorted(shm_dir.rglob("*"))
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(ringpost.SegmentFull, match=r"no room for the new key .* free\)") as raised:
            broker.rotate_key(OTHER)
        assert raised.value.errno == errno.ENOSPC
        assert Path(raised.value.filename).parent == environment_of(broker).shm
        assert sorted(shm_dir.rglob("*")) == sorted([*before, filler])
        assert (opens(url, KEY), opens(url, OTHER)) == (True, False)
        queue.put("still with the old one")
        filler.unlink()
        broker.rotate_key(OTHER)
        assert (opens(url, KEY), opens(url, OTHER)) == (False, True)
        assert drain(queue) == ["before", "still with the old one"]
        broker.destroy()

    assert fork(rotate).wait() == 0


def test_a_link_that_is_written_bit_by_bit(sealed: ringpost.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed.queue("jobs")
    sealed.queue("other")
    original = os.write
    with Crew("fork") as crew, OldProcess(crew, sealed.url) as ask:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", lambda file, data: original(file, data[:7]))
            sealed.rotate_key(OTHER)
        assert ask("put") == 1


class Dying:
    """kill -9 before the `step`-th line of STEPS; what comes again counts once."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename not in STEPS:
            return None
        functions = STEPS[code.co_filename]
        if functions is not None and code.co_name not in functions:
            return None
        if event == "line":
            self._seen.add((code.co_filename, frame.f_lineno))
            if len(self._seen) == self._step:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def rotate_and_die(url: str, old: bytes, new: bytes, step: int) -> bool:
    """Did it live?"""
    pid = os.fork()
    if pid == 0:
        try:
            broker = ringpost.connect(url, key=old)
            broker.list()
            sys.settrace(Dying(step))
            broker.rotate_key(new)
            sys.settrace(None)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


@pytest.mark.timeout(300)
def test_kill_9_at_each_step(sealed: ringpost.Broker, shm_dir: Path) -> None:
    """Either key opens it, and not both; who has it open goes on, and rotates it again."""
    queue = sealed.queue("jobs")
    current, seen, step, lived = KEY, set(), 0, False
    while not lived:
        step += 1
        following = os.urandom(32)
        lived = rotate_and_die(sealed.url, current, following, step)
        queue.put(step)
        which = [key for key in (current, following) if opens(sealed.url, key)]
        assert len(which) == 1
        seen.add(which[0] == following)
        current = which[0]
    assert step > 40
    assert seen == {True, False}
    sealed.rotate_key(OTHER)
    assert drain(after_reboot(sealed, shm_dir, OTHER).queue("jobs")) == list(range(1, step + 1))
