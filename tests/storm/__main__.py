"""Rounds of storms, until the time is over. Exit code 1: something was lost, torn, or hung; the seed is told.

With root's rights, memory and disk are file systems of a mount namespace of its own, and are filled up, too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from crash.namespaces import mount_tmpfs, resize_tmpfs, unmount

from storm.accounts import Balance, balance
from storm.events import Crew, fill_up
from storm.roles import Site, destroy, drain, prepare, start
from storm.topology import Topology, at_random

ROUND = (3.0, 12.0)  # seconds
MEMORY, DISK = "size=160m", "size=1g"  # the disk is as large as each round says


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m storm", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first round; the others follow")
    given = parser.parse_args()
    end = time.monotonic() + given.minutes * 60
    place = Path(tempfile.mkdtemp(prefix="ringpost-storm-"))
    memory = os.environ.get("RINGPOST_SHM_DIR", "/dev/shm")
    shared = Path(tempfile.mkdtemp(prefix="ringpost-storm-", dir=memory))
    os.environ["RINGPOST_SHM_DIR"] = str(shared)
    total: Counter[str] = Counter()
    may_fill = _own_file_systems(place, shared)
    try:
        seed = random.randrange(1 << 32) if given.seed is None else given.seed
        while True:
            if not _round(at_random(seed), place, shared, may_fill, total):
                return 1
            if time.monotonic() > end:
                break
            seed += 1
    finally:
        if may_fill:
            unmount(str(shared))
            unmount(str(place))
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(shared, ignore_errors=True)
    print("all: " + ", ".join(f"{count:,} {what}" for what, count in total.items()))
    return 0


def _own_file_systems(place: Path, shared: Path) -> bool:
    try:
        mount_tmpfs(str(shared), MEMORY)
        mount_tmpfs(str(place), DISK)
    except OSError as error:
        print(f"nothing is filled up: {error}")
        return False
    return True


def _round(topology: Topology, place: Path, shared: Path, may_fill: bool, total: Counter[str]) -> bool:
    print(f"seed {topology.seed}: {topology}", flush=True)
    if may_fill:
        resize_tmpfs(str(place), topology.disk)
    home, accounts = Path(tempfile.mkdtemp(dir=place)), Path(tempfile.mkdtemp(prefix="ringpost-storm-"))
    try:
        return _weathered(Site(topology, home, accounts), (place, shared) if may_fill else (), shared, total)
    finally:
        shutil.rmtree(home)
        shutil.rmtree(accounts)


def _weathered(site: Site, fillable: tuple[Path, ...], shared: Path, total: Counter[str]) -> bool:
    _wait_for(prepare, site)  # here nothing is opened: this process outlives reboots
    crew = Crew(site)
    _weather(crew, site, fillable, shared)
    _wait_for(drain, site)
    found = balance(site.accounts, site.topology.subscribers)
    _tell(crew, found)
    total.update(crew.happened)
    total.update(rounds=1, confirmed=found.confirmed, handled=found.handled, again=found.again)
    _wait_for(destroy, site)
    return not found.missing


def _wait_for(role: Callable[[Site], None], site: Site) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(start(role, site), 0)[1])
    assert status == 0, f"{role.__name__} failed"


def _weather(crew: Crew, site: Site, fillable: tuple[Path, ...], shared: Path) -> None:
    chance = random.Random(site.topology.seed)
    end = time.monotonic() + chance.uniform(*ROUND)
    crew.begin()
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.001, 0.1))
        happens = chance.random()
        if happens < 0.9:
            crew.kill(chance)
        elif happens < 0.95:
            crew.stop(chance)
        elif happens < 0.97:
            crew.restart()
        elif happens < 0.98 and site.topology.reboots:
            crew.restart(lambda: lose(shared))
            crew.happened["reboots"] += 1
        elif fillable:
            fill_up(chance.choice(fillable))
            crew.happened["full"] += 1
    crew.kill_all()
    if site.topology.reboots:
        lose(shared)


def lose(shared: Path) -> None:
    """What a reboot takes away."""
    for path in shared.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _tell(crew: Crew, found: Balance) -> None:
    events = ", ".join(f"{count} {what}" for what, count in crew.happened.items())
    print(
        f"  {events}; {found.confirmed:,} confirmed, {found.handled:,} handled, {found.again:,} again",
        flush=True,
    )
    for account, numbers in found.missing.items():
        print(f"  MISSING in {account}: {len(numbers)}, as {numbers[:20]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
