"""A list in a Redis server of our own that writes its log to disk: appendfsync always, or everysec."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.redis_server import PROGRAM, RedisServer
from benchmarks.rivals.storing import Level, Storer, StoringLane, StoringRival


@dataclass(frozen=True)
class _Lane(StoringLane):
    server: RedisServer

    def storer(self) -> Storer:
        client = self.server.client()

        def put_many(messages: list[bytes]) -> None:
            client.rpush("queue", *messages)

        return Storer(lambda message: client.rpush("queue", message), put_many, close=client.close)

    def reader(self) -> Callable[[int], int]:
        client: Any = self.server.client()
        return lambda limit: len(client.lpop("queue", limit) or ())

    def remove(self) -> None:
        self.server.stop()
        super().remove()


class StoredRedis(StoringRival):
    """A server, and its log."""

    name = "redis"
    module = "redis"
    distribution = "redis"
    program = PROGRAM
    note = "RPUSH over a Unix socket; appendfsync always, and everysec for later"
    reads = True

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        fsync = "always" if level == "confirmed" else "everysec"
        place = Path(directory)
        sockets = Path(tempfile.mkdtemp(prefix="s", dir=place))
        options = {"appendonly": "yes", "appendfsync": fsync, "dir": directory}
        return _Lane(directory, level, RedisServer(sockets, "redis", options))
