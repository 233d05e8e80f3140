"""Disks that are full, fail, or write half: told to who waits, nothing confirmed that is not there, and on
it goes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ringpost
from durable.conftest import lose_shared_memory

PROGRAM = """
import json, sys
import ringpost

broker = ringpost.connect(f"ring://{sys.argv[1]}")
queue = broker.queue("jobs", capacity=256 << 10)
outcomes = []
for number in range(40):
    try:
        queue.put(number)
        outcomes.append("confirmed")
    except ringpost.StorageFailed as error:
        outcomes.append(error.errno)
assert [queue.get(timeout=5) for _ in range(40)] == list(range(40))  # all of it is in the queue
for number in range(40, 50):
    queue.put(number)
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize(
    ("how", "number"),
    [("ENOSPC", errno.ENOSPC), ("EIO", errno.EIO), ("short", errno.EIO), ("sync", errno.EIO)],
)
@pytest.mark.parametrize("at", [45, 47, 50])
def test_who_waits_is_told_and_it_goes_on(
    recorder: Path, tmp_path: Path, shm_dir: Path, how: str, number: int, at: int
) -> None:
    place = tmp_path / "broker"
    environment = {**os.environ, "LD_PRELOAD": str(recorder), "RECORDER_LOG": str(tmp_path / "log")}
    environment |= {
        "FAIL_HOW": how,
        "FAIL_AT": str(at // (3 if how == "sync" else 1)),
        "FAIL_UNTIL": str(at + 8),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(place)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    failed = [each for each in outcomes if each != "confirmed"]
    assert failed
    assert set(failed) <= {number, errno.EIO, errno.ENOSPC}
    assert outcomes[-1] == "confirmed"
    lose_shared_memory(shm_dir)
    assert ringpost.verify(place).ok
    with ringpost.connect(f"ring://{place}") as broker:
        queue = broker.queue("jobs", capacity=256 << 10)
        found = queue.get_many(100, block=False)
        assert found[-10:] == list(range(40, 50))  # confirmed, and never got
        broker.destroy()


def test_advice(tmp_path: Path, recorder: Path, shm_dir: Path) -> None:
    program = """
import sys, ringpost
queue = ringpost.connect(f"ring://{sys.argv[1]}").queue("jobs", capacity=256 << 10)
for _ in range(40):
    try:
        queue.put("x")
    except ringpost.StorageFailed as error:
        print(error)
        break
"""
    environment = {**os.environ, "LD_PRELOAD": str(recorder), "RECORDER_LOG": str(tmp_path / "log")}
    environment |= {"FAIL_HOW": "ENOSPC", "FAIL_AT": "48", "FAIL_UNTIL": "60"}
    place = tmp_path / "broker"
    said = subprocess.run(
        [sys.executable, "-c", program, str(place)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    assert "the disk is full: make room, and go on" in said
    assert str(place) in said
    lose_shared_memory(shm_dir)
    with ringpost.connect(f"ring://{place}") as broker:
        broker.destroy()


ASIDE = """
import json, sys
import ringpost

broker = ringpost.connect(f"ring://{sys.argv[1]}")
failures = 0

def insist(call):
    global failures
    for _ in range(40):
        try:
            return call()
        except ringpost.StorageFailed:
            failures += 1
    return call()

queue = insist(lambda: broker.queue("jobs", capacity=256 << 10))
producer = insist(lambda: queue.producer(dedup_window=600))
for number in range(10):
    insist(lambda: queue.producer().send(f"late {number}", delay=0))
    insist(lambda: producer.send(f"once {number}", message_id=str(number)))
found = []
while len(set(found)) < 20 or queue.qsize():
    found.append(queue.get(timeout=10))
print(json.dumps([failures, found]))
"""


@pytest.mark.parametrize("how", ["ENOSPC", "EIO", "short", "sync"])
@pytest.mark.parametrize("at", [*range(34, 50, 2), 55, 61, 70])
def test_what_is_kept_aside(recorder: Path, tmp_path: Path, shm_dir: Path, how: str, at: int) -> None:
    """From its first write on: told as what it is, and it goes on. What is sent once comes once."""
    place = tmp_path / "broker"
    environment = {**os.environ, "LD_PRELOAD": str(recorder), "RECORDER_LOG": str(tmp_path / "log")}
    environment |= {"FAIL_HOW": how, "FAIL_AT": str(at // (3 if how == "sync" else 1)), "FAIL_UNTIL": str(at)}
    done = subprocess.run(
        [sys.executable, "-c", ASIDE, str(place)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    failures, found = json.loads(done.stdout)
    assert failures or how == "ENOSPC"  # it is tried again, without messages at first
    once = [f"once {number}" for number in range(10)]
    assert sorted(each for each in found if each in once) == once
    lose_shared_memory(shm_dir)
    with ringpost.connect(f"ring://{place}") as broker:
        broker.destroy()
