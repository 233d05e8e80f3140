"""Waiting for the disk, or elsewhere: for callers that must not wait, such as an event loop."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringpost.store.log import StoredLog


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
