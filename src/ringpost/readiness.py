"""Readiness: what `fileno()` of a queue or a consumer gives to selectors and event loops.

The descriptor is readable while a call that does not wait may succeed. native/src/watch.h says how it is
told, and why no wake-up is missed; here is who calls what: a call that found nothing settles (clears, arms)
and tries once more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from ringpost._binding.contract import Log, Watch
from ringpost.errors import Empty, Stalled

R = TypeVar("R")


class Readiness:
    """Of one handle, in the process that asked for it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._pid = os.getpid()
        watch.arm()
        if watch.look():
            watch.keep()

    def is_ours(self) -> bool:
        """False in a forked child: the descriptor tells its parent."""
        return self._pid == os.getpid()

    def fileno(self) -> int:
        return self._watch.fileno()

    def keep(self) -> None:
        """There is more to be had than the log says."""
        self._watch.keep()

    def again(self, attempt: Callable[[], R]) -> R:
        """After an attempt that raised Empty: settle, and make another one."""
        if not self.is_ours():
            return attempt()
        self._watch.clear()
        self._watch.arm()
        self._watch.look()  # for QueueDeleted, if somebody removed the file
        result = attempt()
        self._watch.keep()  # nobody tells of what came before it was armed
        return result

    def close(self) -> None:
        if self.is_ours():
            self._watch.close()


class WatchedLog:
    """Stands between a queue and its log once somebody watches it."""

    def __init__(self, log: Log, readiness: Readiness) -> None:
        self._log = log
        self._readiness = readiness

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self._log.get(block, timeout)
        except Stalled:
            raise
        except Empty:
            return self._readiness.again(lambda: self._log.get(False))

    def get_nowait(self) -> Any:
        return self.get(False)

    def get_many(
        self, limit: int | None = None, block: bool = True, timeout: float | None = None
    ) -> list[Any]:
        try:
            return self._log.get_many(limit, block, timeout)
        except Stalled:
            raise
        except Empty:
            return self._readiness.again(lambda: self._log.get_many(limit, False))
