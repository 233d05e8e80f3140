"""persist-queue: SQLiteAckQueue, a table in SQLite."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.rivals.acking import AckingLane, AckingRival, Consumer
from benchmarks.rivals.base import Sender
from benchmarks.rivals.polling import retry_receive


@dataclass(frozen=True)
class _TableLane(AckingLane):
    directory: str

    def sender(self, index: int) -> Sender:
        queue = self._queue()
        return Sender(queue.put, close=queue.close)

    def consumer(self) -> Consumer:
        from persistqueue import Empty

        queue = self._queue()

        def try_receive() -> Any:
            try:
                return queue.get(block=False, raw=True)
            except Empty:
                return None

        return Consumer(
            receive=retry_receive(try_receive),
            body=itemgetter("data"),
            ack=lambda message: queue.ack(id=message["pqid"]),
            close=queue.close,
        )

    def _queue(self) -> Any:
        from persistqueue import SQLiteAckQueue

        return SQLiteAckQueue(self.directory, auto_resume=False, timeout=30)


class PersistQueue(AckingRival):
    """For the threads of one process; two processes get by as long as each side is one."""

    name = "persist-queue"
    module = "persistqueue"
    distribution = "persist-queue"
    note = "SQLiteAckQueue, its file in memory; polls, for its get() hears only of its own process"

    def acking_lane(self, name: str, directory: Path) -> AckingLane:
        return _TableLane(str(directory / name))
