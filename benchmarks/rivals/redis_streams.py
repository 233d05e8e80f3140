"""Redis streams: a consumer group on a stream, over a Unix domain socket."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.acking import AckingLane, AckingRival, Consumer
from benchmarks.rivals.base import Sender
from benchmarks.rivals.redis_server import PROGRAM, RedisServer

_STREAM, _GROUP, _FIELD = "stream", "group", b"m"
_PREFETCH = 32  # as ringpost's


@dataclass(frozen=True)
class _StreamLane(AckingLane):
    server: RedisServer

    def sender(self, index: int) -> Sender:
        client = self.server.client()

        def put_many(messages: list[bytes]) -> None:
            pipeline = client.pipeline(transaction=False)
            for message in messages:
                pipeline.xadd(_STREAM, {_FIELD: message})
            pipeline.execute()

        return Sender(lambda message: client.xadd(_STREAM, {_FIELD: message}), put_many, client.close)

    def consumer(self) -> Consumer:
        client = self.server.client()
        client.xgroup_create(_STREAM, _GROUP, mkstream=True)

        def receive_many(limit: int) -> list[Any]:
            [[_, entries]] = client.xreadgroup(_GROUP, "consumer", {_STREAM: ">"}, count=limit, block=0)
            return list(entries)

        return Consumer(
            receive=_one_by_one(receive_many),
            body=lambda entry: entry[1][_FIELD],
            ack=lambda entry: client.xack(_STREAM, _GROUP, entry[0]),
            receive_many=receive_many,
            ack_many=lambda entries: client.xack(_STREAM, _GROUP, *[number for number, _ in entries]),
            close=client.close,
        )

    def remove(self) -> None:
        self.server.stop()


def _one_by_one(receive_many: Callable[[int], Sequence[Any]]) -> Callable[[], Any]:
    ahead: deque[Any] = deque()

    def receive() -> Any:
        if not ahead:
            ahead.extend(receive_many(_PREFETCH))
        return ahead.popleft()

    return receive


class RedisStreams(AckingRival):
    """What many use for work that must be done."""

    name = "Redis streams"
    module = "redis"
    distribution = "redis[hiredis]"
    program = PROGRAM
    note = "XADD in pipelines; 32 a XREADGROUP and an XACK each, or 256 a XREADGROUP and one XACK; unbounded"
    ack_batches = True

    def acking_lane(self, name: str, directory: Path) -> AckingLane:
        return _StreamLane(RedisServer(directory, name))
