"""Redis publish and subscribe, over a Unix domain socket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.rivals.base import Lane, Receiver, Sender
from benchmarks.rivals.redis_server import PROGRAM, RedisServer
from benchmarks.rivals.topic import TopicRival

_CHANNEL = "channel"


@dataclass(frozen=True)
class _ChannelLane(Lane):
    server: RedisServer

    def sender(self, index: int) -> Sender:
        client = self.server.client()

        def put_many(messages: list[bytes]) -> None:
            pipeline = client.pipeline(transaction=False)
            for message in messages:
                pipeline.publish(_CHANNEL, message)
            pipeline.execute()

        return Sender(lambda message: client.publish(_CHANNEL, message), put_many, client.close)

    def receiver(self) -> Receiver:
        client = self.server.client()
        subscription = client.pubsub()
        subscription.subscribe(_CHANNEL)
        messages = subscription.listen()
        next(messages)  # says that it is subscribed
        return Receiver(lambda: next(messages)["data"], close=client.close)

    def remove(self) -> None:
        self.server.stop()


class RedisPubSub(TopicRival):
    """Keeps nothing: a message goes to who is connected."""

    name = "Redis pub/sub"
    module = "redis"
    distribution = "redis[hiredis]"
    program = PROGRAM
    note = "PUBLISH, or pipelines of them; output buffers without a limit, so that it loses nothing"
    batches = True

    def topic_lane(self, name: str, subscribers: int, size: int, directory: Path) -> Lane:
        return _ChannelLane(RedisServer(directory, name))
