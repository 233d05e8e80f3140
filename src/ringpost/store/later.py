"""Waiting for the disk elsewhere: for callers that must not wait, such as an event loop; or later, for those
that have to know whether putting failed, or storing; or no longer than so."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ringpost.errors import Full, Stalled

if TYPE_CHECKING:
    from ringpost.store.log import StoredLog

STORING = 5.0  # seconds that the disk gets, even of those who do not wait for room


class Patience:
    """So many seconds in all, from now on, for whatever is to be waited for; None: for ever."""

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)


LATER: ContextVar[set[StoredLog] | None] = ContextVar("ringpost_later", default=None)
"""Where it is set, logs whose storage a call would wait for are put into the set instead; a full ring that
only lacks storage is Full."""

DECIDED: ContextVar[Patience | None] = ContextVar("ringpost_decided", default=None)
"""Where it is set, what a call puts was decided on before: it is stored beyond the broker's quota, and waits
for storage no longer than that."""


class Unconfirmed:
    """What is put in one step, and stored as it shall be in another.

    What put() raises says that this call put nothing. What confirm() raises says that everything is in the
    ring: to be confirmed once more, not to be put again.
    """

    def __init__(self) -> None:
        self._logs: set[StoredLog] = set()

    def put(self, call: Callable[[], object]) -> None:
        """The call puts one message, and does not wait for room. Raises what it raises, and what confirm()
        does, where the ring is full of what is not yet stored."""
        while True:
            before = LATER.get()
            try:
                LATER.set(self._logs)  # within: a signal handler may raise right behind it
                call()
                return
            except Stalled:
                raise
            except Full:
                if not self._logs:
                    raise
            finally:
                LATER.set(before)
            self.confirm()

    @property
    def waits_for_disk(self) -> bool:
        """False: confirm() has nothing to do."""
        return bool(self._logs)

    def confirm(self, timeout: float = STORING) -> None:
        """Raises StorageFailed, Stalled, QueueDeleted."""
        for log in list(self._logs):
            log.commit_until(log.stored.tail(), timeout)
            self._logs.discard(log)
