"""Waits that end: for what must happen, on a machine that does other things too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

BOUND = 20.0  # seconds
MOMENT = 0.05  # long enough for a thread to be asleep in a call


class Call(threading.Thread):
    """A call in a thread of its own. `result()` is what it returned; what it raised is raised."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(daemon=True)
        self._call = lambda: function(*args, **kwargs)
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def is_blocked(self) -> bool:
        self.join(MOMENT)
        return self.is_alive()

    def result(self) -> Any:
        self.join(BOUND)
        assert not self.is_alive(), "the call does not end"
        if self._error is not None:
            raise self._error
        return self._result


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)
