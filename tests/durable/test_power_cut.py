"""Power cuts: whatever a disk may have of the writes that were not flushed, everything confirmed is there."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb.verify
import pytest

import ringpost
from durable import powercut
from durable.conftest import lose_shared_memory

MOST = int(os.environ.get("POWER_CUT_IMAGES", "1500"))
STRUCTURE = 7  # every so many images LMDB's structure is looked at, too
CAPACITY = 256 << 10

PROGRAM = """
import functools, os, sys
import lmdb

if sys.argv[2] == "careless":
    lmdb.open = functools.partial(lmdb.open, sync=False)

import ringpost

MARKS = int(os.environ["RECORDER_MARKS"])


def mark(*words):
    os.write(MARKS, (" ".join(map(str, words)) + "\\n").encode())


def body(number):
    return b"%d " % number + bytes((10, 300, 5000, 40_000)[number % 4])


broker = ringpost.connect(f"ring://{sys.argv[1]}")
jobs = broker.queue("jobs", capacity=CAPACITY)
other = broker.queue("other", capacity=CAPACITY, durability="interval")
mark("begin")
number = 0
for round_ in range(6):
    for _ in range(5):
        jobs.put(body(number))
        mark("put", number, number + 1)
        number += 1
    jobs.put_many(body(number + i) for i in range(12))
    mark("put", number, number + 12)
    number += 12
    other.put(round_)
    for _ in range(8):
        mark("get")
        jobs.get()
    other.flush()
    mark("other", round_ + 1)
mark("end")
""".replace("CAPACITY", str(CAPACITY))


def record(recorder: Path, tmp_path: Path, shm_dir: Path, how: str) -> list[powercut.Event]:
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "RECORDER_LOG": str(log),
        "RECORDER_MARKS": "777",
    }
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "recorded"), how],
        check=True,
        env=environment,
        timeout=60,
    )
    lose_shared_memory(shm_dir)
    return powercut.events_of(log)


def body(number: int) -> bytes:
    return b"%d " % number + bytes((10, 300, 5000, 40_000)[number % 4])


def problem_of(image: powercut.Image, place: Path, look_at_structure: bool) -> str | None:
    """What is wrong with it; None: nothing."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    (place / "data.mdb").write_bytes(image.data)
    (place / "data.mdb").chmod(0o600)
    try:
        if look_at_structure and (wrong := lmdb.verify.verify(str(place))):
            return f"LMDB's structure: {wrong[0]}"
        with ringpost.connect(f"ring://{place}") as broker:
            try:
                return _what_is_missing(image, broker)
            finally:
                broker.destroy()
    except Exception as error:  # whatever it is, it is wrong
        return repr(error)


def problem_found_by_another(image: powercut.Image, place: Path, look_at_structure: bool) -> str | None:
    """The same, where a broken file may end the process: LMDB aborts when it finds certain nonsense."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(2)  # its last words
            os.write(writer, (problem_of(image, place, look_at_structure) or "").encode()[:4096])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        problem = answer.read().decode(errors="replace")
    status = os.waitpid(pid, 0)[1]
    return f"it killed the process: {status}" if status else problem or None


def _what_is_missing(image: powercut.Image, broker: ringpost.Broker) -> str | None:
    queue = broker.queue("jobs", capacity=CAPACITY)
    confirmed = max((int(mark.split()[2]) for mark in image.marks if mark.startswith("put ")), default=0)
    taken = sum(mark == "get" for mark in image.marks)
    found = []
    while not queue.empty():
        found += queue.get_many(block=False)
    numbers = [int(item.partition(b" ")[0]) for item in found]
    if [body(number) for number in numbers] != found:
        return "a message is not as it was put"
    first = numbers[0] if numbers else confirmed
    if numbers != list(range(first, first + len(numbers))):
        return f"not in order, or with gaps: {numbers}"
    if first > taken:
        return f"messages {taken} to {first - 1} are missing, and nobody took them"
    if first + len(numbers) < confirmed:
        return f"{confirmed} were confirmed, {first + len(numbers)} were found"
    rounds = max((int(mark.split()[1]) for mark in image.marks if mark.startswith("other ")), default=0)
    if broker.queue("other", capacity=CAPACITY).qsize() < rounds:
        return f"{rounds} were flushed to the other queue"
    queue.put("and it goes on")
    return None if queue.get() == "and it goes on" else "it does not go on"


def problems(
    events: list[powercut.Event],
    place: Path,
    most: int,
    enough: int,
    look: Callable[[powercut.Image, Path, bool], str | None] = problem_of,
) -> tuple[int, list[tuple[str, str]]]:
    """How many images were looked at, and what is wrong with which."""
    found: list[tuple[str, str]] = []
    chosen = list(powercut.images(events, seed=1, begin_after="begin"))
    step = max(len(chosen) / most, 1)
    looked = 0
    while looked * step < len(chosen) and len(found) < enough:
        image = chosen[int(looked * step)]
        problem = look(image, place, looked % STRUCTURE == 0)
        if problem is not None:
            found.append((image.how, problem))
        looked += 1
    return looked, found


@pytest.mark.timeout(300)
def test_everything_confirmed_is_there(recorder: Path, tmp_path: Path, shm_dir: Path) -> None:
    events = record(recorder, tmp_path, shm_dir, "careful")
    assert any(event.kind == "m" and event.data == b"end\n" for event in events)
    looked, found = problems(events, tmp_path / "image", MOST, 3)
    assert found == []
    assert looked > min(MOST, 400)


@pytest.mark.timeout(300)
def test_of_a_sealed_one_too(
    recorder: Path, tmp_path: Path, shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography", reason="needs cryptography: pip install 'ringpost[encryption]'")
    monkeypatch.setenv("RINGPOST_KEY", "base64:" + base64.b64encode(os.urandom(32)).decode())
    events = record(recorder, tmp_path, shm_dir, "careful")
    assert any(event.kind == "m" and event.data == b"end\n" for event in events)
    looked, found = problems(events, tmp_path / "image", MOST // 15, 3)
    assert found == []
    assert looked > min(MOST // 15, 90)


@pytest.mark.timeout(300)
def test_the_harness_finds_what_is_wrong(recorder: Path, tmp_path: Path, shm_dir: Path) -> None:
    """Without flushes a power cut loses what was confirmed, and breaks the file."""
    events = record(recorder, tmp_path, shm_dir, "careless")
    looked, found = problems(events, tmp_path / "image", 200, 20, problem_found_by_another)
    assert len(found) >= 20
    assert looked < 200
    lose_shared_memory(shm_dir)  # what cannot be opened cannot be destroyed
