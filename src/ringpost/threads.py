"""Starting a thread where a signal handler may raise."""

from __future__ import annotations

import threading


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
