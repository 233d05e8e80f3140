"""Descriptors for event loops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, final

from ringpost._binding._cffi.ending import Owner
from ringpost._binding._cffi.native import DELETED, NEVER, OK, Pointer, ffi, lib

if TYPE_CHECKING:
    from ringpost._binding._cffi.handle import Handle


@final
class Watch:
    """A descriptor that is readable while a try may succeed; see rp_watch_open in ringpost.h."""

    __slots__ = ("__weakref__", "_busy", "_handle", "_is_for_frames", "_owner", "_watch", "log")

    log: Any
    _watch: Pointer  # None: closed
    _owner: Owner  # of it
    _busy: list[None]  # an item for each call in flight
    _handle: int
    _is_for_frames: bool

    def __init__(self) -> None:
        raise TypeError("watches are opened, not made: see Group.watch()")

    def close(self) -> None:
        self._watch = None
        if not self._busy:
            self._owner.end()  # else the last call that is in flight does it

    def _call(self, function: Callable[[Pointer], Any]) -> Any:
        self._busy.append(None)
        try:
            watch = self._watch
            if watch is None:
                raise ValueError(f"{self.log.label} is closed: this handle was closed before")
            return function(watch)
        finally:
            self._busy.pop()
            if self._watch is None and not self._busy:
                self._owner.end()

    def fileno(self) -> int:
        return int(self._call(lib.rp_watch_fd))

    def clear(self) -> None:
        self._call(lib.rp_watch_clear)

    def arm(self) -> float | None:
        """Seconds until something is due that nobody will tell of, or None."""
        due = self._call(lib.rp_watch_arm)
        return None if due == NEVER else due / 1e9

    def keep(self) -> None:
        self._call(lib.rp_watch_keep)

    def glance(self, spins: int) -> bool:
        """Spin a little until there may be something."""
        self._call(_nothing)
        return self._is_for_frames and bool(lib.rp_glance(self.log.log, self._handle, spins))

    def look(self) -> bool:
        """Is a try worth it? Raises QueueDeleted."""
        self._call(_nothing)
        if self.log.closed:
            return True
        status = self._call(lib.rp_watch_look)
        if status == DELETED:
            raise self.log.fail(status, "look at")
        return bool(status == OK)


def _nothing(watch: Pointer) -> None:
    """Is it open?"""


def open_watch(log: Handle, what: int, handle: int, timed: bool) -> Watch:
    log.check_open()
    watch = Watch.__new__(Watch)
    watch.log = log
    watch._busy = []
    watch._handle = handle
    watch._is_for_frames = what == lib.RP_WATCH_FRAMES
    opened = ffi.new("rp_watch **")
    status = lib.rp_watch_open(log.log, what, handle, bool(timed), opened)
    if status != OK:
        raise log.fail(status, "watch")
    watch._watch = opened[0]
    watch._owner = Owner(partial(lib.rpc_watch_close, opened), log.owner)
    return watch
