"""litequeue: a table in SQLite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.acking import AckingLane, AckingRival, Consumer
from benchmarks.rivals.base import Sender
from benchmarks.rivals.polling import retry_receive


@dataclass(frozen=True)
class _TableLane(AckingLane):
    path: str

    def sender(self, index: int) -> Sender:
        queue = self._queue()

        def put_many(messages: list[bytes]) -> None:
            with queue.transaction(mode="IMMEDIATE"):
                for message in messages:
                    queue.put(message)

        return Sender(queue.put, put_many, queue.close)

    def consumer(self) -> Consumer:
        queue = self._queue()
        return Consumer(
            receive=retry_receive(queue.pop),
            body=lambda message: message.data,
            ack=lambda message: queue.done(message.message_id),
            close=queue.close,
        )

    def _queue(self) -> Any:
        from litequeue import LiteQueue

        return LiteQueue(self.path, timeout=30)


class LiteQueue(AckingRival):
    """Without a server."""

    name = "litequeue"
    module = "litequeue"
    distribution = "litequeue"
    note = "its file in memory; puts in transactions; pop() and done(); polls"

    def acking_lane(self, name: str, directory: Path) -> AckingLane:
        return _TableLane(str(directory / name))
