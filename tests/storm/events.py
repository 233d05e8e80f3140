"""What befalls the processes of a round."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from storm.roles import Site, consume, forward, produce, publish, start, subscribe

LONGEST_STOP = 1.0  # seconds
FULL = 0.3  # seconds
_CHILD_SUBREAPER = 36
_LIFE = 10**9  # numbers


class Crew:
    """Processes at work: whoever is killed is replaced."""

    def __init__(self, site: Site) -> None:
        ctypes.CDLL(None).prctl(_CHILD_SUBREAPER, 1)
        self._site = site
        self._lives = 0
        self._posts: dict[int, Callable[[int], int]] = {}
        self.happened: Counter[str] = Counter()

    def begin(self) -> None:
        """All of them."""
        topology = self._site.topology
        for role, count in (
            (produce, topology.producers),
            (consume, topology.consumers),
            (forward, topology.forwarders),
            (publish, topology.publishers),
        ):
            for _ in range(count):
                self._fill(partial(start, role, self._site))
        for name in topology.subscribers:
            self._fill(lambda life, name=name: start(subscribe, self._site, name))  # type: ignore[misc]

    def _fill(self, post: Callable[[int], int]) -> None:
        self._lives += 1
        self._posts[post(self._lives * _LIFE)] = post

    def kill(self, chance: random.Random) -> None:
        """One, which another one replaces."""
        pid = chance.choice(list(self._posts))
        self._fill(self._bury(pid))
        self.happened["kills"] += 1

    def kill_all(self) -> None:
        """At once. They must have been at work."""
        posts = list(self._posts)
        for pid in posts:
            os.kill(pid, signal.SIGKILL)
        for pid in posts:
            self._bury(pid)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)  # their forks, which die with them and are ours then
        self.happened["kills"] += len(posts)

    def restart(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Everybody dies, and comes again."""
        posts = list(self._posts.values())
        self.kill_all()
        meanwhile()
        for post in posts:
            self._fill(post)
        self.happened["restarts"] += 1

    def stop(self, chance: random.Random) -> None:
        """SIGSTOP, for a while."""
        pid = chance.choice(list(self._posts))
        os.kill(pid, signal.SIGSTOP)
        time.sleep(chance.uniform(0.01, LONGEST_STOP))
        os.kill(pid, signal.SIGCONT)
        self.happened["stops"] += 1

    def _bury(self, pid: int) -> Callable[[int], int]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == -signal.SIGKILL, f"a process had ended before it was killed, with {status}"
        return self._posts.pop(pid)


def fill_up(place: Path) -> None:
    """A file system that has no room for a while."""
    file = place / "filler"
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            for block in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while os.write(descriptor, bytes(block)):
                        pass
        finally:
            os.close(descriptor)
        time.sleep(FULL)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        file.unlink(missing_ok=True)
