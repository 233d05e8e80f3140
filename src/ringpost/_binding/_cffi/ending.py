"""Owners: what ends something of the native core when nobody refers to it any more.

The collector of cycles calls finalizers in any order: of a log before that of the consumer which gives its
messages back when it is forgotten, of a pin before that of who reads there. So as long as it is at work
nothing ends; when it is done, what nobody refers to does. (PyPy calls them in the order of references.)
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections import deque
from collections.abc import Callable

_is_collecting = False
_later: deque[Owner] = deque()


class Owner:
    """Calls `end` when nobody refers to this any more. It is a function of C, and may be called again: a
    signal handler may raise here. `kept`: what must not end before."""

    __slots__ = ("_kept", "end")

    def __init__(self, end: Callable[[], object], kept: object = None) -> None:
        self.end = end
        self._kept = kept

    def __del__(self) -> None:
        if _is_collecting:
            _later.append(self)
            return
        try:
            self.end()
        except BaseException:
            self.end()
            raise


def _next_of(owners: deque[Owner]) -> tuple[Owner, int]:
    owner = owners.popleft()
    return owner, sys.getrefcount(owner)


def _end_those_left() -> None:
    """An owner may refer to another one: go on as long as any ends."""
    left = len(_later)
    while left:
        left -= 1
        owner, references = _next_of(_later)
        if references > _ALONE:
            _later.append(owner)  # a finalizer brought back who refers to it
        else:
            owner.end()
            del owner
            left = len(_later)


def _note_collection(phase: str, info: dict[str, int]) -> None:
    global _is_collecting
    _is_collecting = phase == "start"
    if _later and not _is_collecting:
        _end_those_left()


def _note_exit() -> None:
    """The interpreter's last collections tell nobody of themselves. The kernel ends what is left."""
    global _is_collecting
    gc.callbacks.remove(_note_collection)
    _is_collecting = True


if sys.implementation.name == "cpython":
    _ALONE = _next_of(deque([Owner(int)]))[1]
    gc.callbacks.append(_note_collection)
    atexit.register(_note_exit)
