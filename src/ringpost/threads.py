"""Threads and locks, where a signal handler may raise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from ringpost._binding import binding


def start_thread(thread: threading.Thread) -> None:
    """thread.start(). What a handler raises just after the thread has begun is raised as it is: CPython
    (threading.py, up to 3.13) takes it for a failed start and, in cleaning up, raises KeyError instead."""
    try:
        thread.start()
    except KeyError as error:
        cause = error.__context__
        if cause is None or thread not in error.args:
            raise
    else:
        return
    raise cause


@binding.contextmanager
def holding(lock: AbstractContextManager[Any]) -> Iterator[None]:
    """`with lock`, which is free again whatever a handler raises: CPython 3.10 runs handlers between the last
    statement of a `with` and its end, and then leaves it out. This ends with the frame that it is used in."""
    with lock:
        yield
