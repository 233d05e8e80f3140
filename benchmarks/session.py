"""One measurement: the processes of one work with one rival, from their start to the last file removed."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from benchmarks.peer import serve
from benchmarks.rivals.base import Rival, SendingLane
from benchmarks.works.base import Work

_START_DELAY = 2_000_000  # ns: enough for every part to hear of it and go to sleep until then


class PeerFailed(Exception):
    """A child process raised, died or took too long; says which and why."""


def measure(rival: Rival, work: Work, seconds: float, limit: float) -> dict[str, float]:
    """The metrics of `work` done by `rival` for about `seconds`.

    Raises PeerFailed, or what the rival raises when it makes its lanes.
    """
    with _scratch_directory() as directory, _lanes(rival, work, directory) as lanes:
        peers = _Peers(work, lanes, str(directory), limit)
        try:
            peers.open()
            metrics = work.measure(peers.run, seconds)
            peers.end()
            return metrics
        finally:
            peers.kill()


@contextmanager
def _scratch_directory() -> Iterator[Path]:
    """In memory, for rivals that leave the choice of a directory: a disk would slow them down."""
    parent = "/dev/shm" if Path("/dev/shm").is_dir() else None
    directory = Path(tempfile.mkdtemp(prefix="ringpost-bench-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _lanes(rival: Rival, work: Work, directory: Path) -> Iterator[list[SendingLane]]:
    lanes: list[SendingLane] = []
    try:
        for number in range(work.lanes):
            lanes.append(work.lane(rival, f"lane{number}", directory))
        yield lanes
    finally:
        for lane in lanes:
            lane.remove()


class _Peers:
    """The child processes: all get each command, and all have to answer before the deadline."""

    def __init__(self, work: Work, lanes: list[SendingLane], scratch: str, limit: float) -> None:
        self._scratch = scratch
        self._deadline = time.monotonic() + limit
        self._limit = limit
        self._connections: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        for make_part, arguments in work.parts(lanes):
            self._start(make_part, arguments)

    def _start(self, make_part: Any, arguments: tuple[Any, ...]) -> None:
        # spawn: nothing of one process is inherited by accident, and locks and pipes may still be passed
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, make_part, arguments, self._scratch, self._limit + 1)
        process = context.Process(target=serve, args=arguments, daemon=True)
        try:
            process.start()
        finally:
            theirs.close()
        self._connections.append(ours)
        self._processes.append(process)

    def open(self) -> None:
        """One after the other: receivers are the first parts, and some rivals need them to be there."""
        for index in range(len(self._processes)):
            self._answer(index)
        for index in range(len(self._processes)):
            self._tell(index, None)
            self._answer(index)

    def run(self, amount: float) -> list[Any]:
        """Each part's report on doing `amount` of the work, in the order of the parts."""
        start_at = time.monotonic_ns() + _START_DELAY
        for index in range(len(self._processes)):
            self._tell(index, (amount, start_at))
        return self._answers()

    def end(self) -> None:
        """Let them close their ends and leave."""
        for index in range(len(self._processes)):
            self._tell(index, None)
        for process in self._processes:
            process.join(self._time_left())

    def kill(self) -> None:
        """Whoever is still there after end(), or after a failure."""
        for process in self._processes:
            if process.is_alive():
                process.kill()
            process.join()
            process.close()
        for connection in self._connections:
            connection.close()

    def _tell(self, index: int, command: Any) -> None:
        try:
            self._connections[index].send(command)
        except OSError:
            raise PeerFailed(self._how_it_died(index)) from None

    def _answers(self) -> list[Any]:
        """In whatever order they come: the first failure ends it, or a peer of the failed one would hang."""
        answers: dict[int, Any] = {}
        while len(answers) < len(self._connections):
            waiting = [each for i, each in enumerate(self._connections) if i not in answers]
            ready = wait(waiting, self._time_left())
            if not ready:
                raise PeerFailed(f"no answer within {self._limit:.0f} s")
            for connection in ready:
                index = self._connections.index(connection)  # type: ignore[arg-type]
                answers[index] = self._answer(index)
        return [answers[index] for index in sorted(answers)]

    def _answer(self, index: int) -> Any:
        connection = self._connections[index]
        if not connection.poll(self._time_left()):
            raise PeerFailed(f"no answer within {self._limit:.0f} s")
        try:
            kind, answer = connection.recv()
        except (EOFError, ConnectionResetError):
            raise PeerFailed(self._how_it_died(index)) from None
        if kind == "failed":
            raise PeerFailed(answer)
        return answer

    def _time_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _how_it_died(self, index: int) -> str:
        process = self._processes[index]
        process.join(1)
        code = process.exitcode
        if code is not None and code < 0:
            return f"process died: {signal.Signals(-code).name}"
        return f"process died: exit code {code}"
