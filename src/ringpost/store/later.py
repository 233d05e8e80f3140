"""Waiting for the disk elsewhere: for callers that must not wait, such as an event loop."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringpost.store.log import StoredLog

LATER: ContextVar[set[StoredLog] | None] = ContextVar("ringpost_later", default=None)
"""Where it is set, logs whose storage a call would wait for are put into the set instead; a full ring that
only lacks storage is Full."""
