"""Readiness: what `fileno()` of a queue or a consumer gives to selectors and event loops.

The descriptor is readable while a call that does not wait may succeed. native/src/watch.h says how it is
told, and why no wake-up is missed; here is who calls what: a call that found nothing settles (clears, arms)
and tries once more. A queue's get() is its log's own method, and may have been bound before anybody asked
for a descriptor: there the log does so (`on_empty`).
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

from ringpost._binding.contract import Watch

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

    def settle(self) -> Callable[[], None] | None:
        """After an attempt that raised Empty, before one more: what to call if that gets something."""
        if not self.is_ours():
            return None
        self._watch.clear()
        self._watch.arm()
        self._watch.look()  # for QueueDeleted, if somebody removed the file
        return self._watch.keep  # nobody tells of what came before it was armed

    def again(self, attempt: Callable[[], R]) -> R:
        """After an attempt that raised Empty: settle, and make another one."""
        keep = self.settle()
        result = attempt()
        if keep is not None:
            keep()
        return result

    def settler(self) -> Callable[[], Callable[[], None] | None]:
        """settle(), for the log, which must not keep us: we have its watch."""
        myself = weakref.ref(self)

        def settle() -> Callable[[], None] | None:
            here = myself()
            return None if here is None else here.settle()

        return settle

    def close(self) -> None:
        if self.is_ours():
            self._watch.close()
