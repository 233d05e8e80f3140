"""Processes of other users. They need root."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ringpost

ALICE, BOB, MALLORY = 12345, 12346, 12347  # uids
STAFF = 23456  # a gid: of the first two
GROUP = str(STAFF)


def become(uid: int, *gids: int) -> None:
    """For good. The user's own group has the user's number."""
    os.setgroups(gids)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def as_user(uid: int, function: Callable[..., object], *args: object) -> Callable[[], None]:
    """To be forked. Alice and Bob are in the group."""

    def run() -> None:
        become(uid, *([STAFF] if uid in (ALICE, BOB) else []))
        os.chdir("/")
        function(*args)

    return run


def import_everything() -> None:
    """Other users may not be allowed to read where it is installed."""
    for module in pkgutil.walk_packages(ringpost.__path__, "ringpost."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)


@contextlib.contextmanager
def open_to_all(where: str) -> Iterator[Path]:
    """A directory like /tmp and /dev/shm."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    import_everything()
    place = Path(tempfile.mkdtemp(prefix="ringpost-users-", dir=where))
    place.chmod(0o1777)
    try:
        yield place
    finally:
        shutil.rmtree(place)
