"""Queues without a name: private to the processes they were handed to, gone with the last of them.

Each is a file all the same, so that it reaches processes however they were started. It is removed by the last
process that leaves; what a kill -9 of all of them leaves behind is removed when the next one is made.
"""

from __future__ import annotations

import multiprocessing.util
import os
import uuid
import weakref
from pathlib import Path

from ringpost._binding import binding
from ringpost._binding.contract import Log
from ringpost.codecs import PickleCodec
from ringpost.engines import directory, segments
from ringpost.errors import QueueNotFound

_LABEL = "an anonymous queue"

_open: weakref.WeakSet[Log] = weakref.WeakSet()
_handed_out: set[Log] = set()  # on their way to other processes: kept until this one ends


def create(capacity: int | None, maxsize: int) -> Log:
    """Raises SegmentFull, NotOurs, ValueError."""
    while True:
        place = _place()
        directory.make(place)
        try:
            _collect_left_over(place)
            log = segments.create(
                place / (uuid.uuid4().hex + directory.SUFFIX),
                _LABEL,
                PickleCodec(_LABEL),
                capacity=capacity or 0,
                max_messages=max(maxsize, 0),
                auto_delete=True,
            )
        except (QueueNotFound, FileNotFoundError):
            continue  # another process found the directory empty just now, and removed it
        return remember(log)


def attach(path: str) -> Log:
    """The queue that another process handed to us. Raises QueueNotFound if it is gone."""
    try:
        return remember(binding.attach(path, _LABEL, PickleCodec(_LABEL)))
    except QueueNotFound:
        raise QueueNotFound(
            "the anonymous queue is gone: every process that had it ended before this one opened "
            "it; keep it open in the process that made it"
        ) from None


def hand_out(log: Log) -> str:
    """What another process needs to attach. The queue stays until this process ends."""
    _handed_out.add(log)
    return log.path


def _place() -> Path:
    return directory.root() / directory.ANONYMOUS


def remember(log: Log) -> Log:
    """Its file goes when this process ends, unless others have it."""
    _open.add(log)
    return log


def _collect_left_over(place: Path) -> None:
    for name in os.listdir(place):
        if name.endswith(directory.SUFFIX):
            binding.collect(str(place / name))
    directory.remove_fifos(place, everything=False)


def _leave_all() -> None:
    for log in list(_open):
        log.leave()
    directory.remove_if_empty(_place())


def _arrange_leaving(_: object = None) -> None:
    # a negative priority: after multiprocessing has joined this process's children
    multiprocessing.util.Finalize(None, _leave_all, exitpriority=-100)


_arrange_leaving()
multiprocessing.util.register_after_fork(_arrange_leaving, _arrange_leaving)
