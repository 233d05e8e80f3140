"""Child processes by any start method, each of which must end well; none is left behind."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

import pytest

from conformance.patience import BOUND
from ringpost import anonymous

METHODS = ("fork", "spawn", "forkserver")
every_method = pytest.mark.parametrize("method", METHODS)


class Crew:
    """`with Crew(method) as crew:` its end waits for all who were started. One at a time."""

    def __init__(self, method: str = "fork") -> None:
        self.context: Any = multiprocessing.get_context(method)
        self.pool: Any = None  # to be used from here only: what else refers to it keeps its semaphores
        self._started: list[BaseProcess] = []

    def hire(self, initializer: Callable[..., object] | None = None, *args: Any) -> None:
        """A pool of two, until the end."""
        self.pool = self.context.Pool(2, initializer, args)

    def start(self, function: Callable[..., object], *args: Any) -> BaseProcess:
        process: BaseProcess = self.context.Process(target=function, args=args, daemon=True)
        process.start()
        self._started.append(process)
        return process

    def wait(self, *processes: BaseProcess) -> None:
        """For these, or for everybody."""
        for process in processes or self._started:
            process.join(BOUND)
            assert process.exitcode == 0, f"{process.name}: exit code {process.exitcode}"

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            for process in self._started:
                process.kill()
                process.join(BOUND)
            self._end_pool()
            _stop(forkserver._forkserver)  # the next one reads the environment afresh
            anonymous._handed_out.clear()  # who they were for has ended, this process has not
        if kind is None:  # else the traceback still refers to semaphores that it knows of
            gc.collect()
            _stop(resource_tracker._resource_tracker)

    def _end_pool(self) -> None:
        if self.pool is not None:
            self.pool.terminate()
            self.pool.join()
            self.pool = None


def _stop(helper: Any) -> None:
    helper._stop()
