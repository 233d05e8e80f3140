"""A durable queue of a RabbitMQ server of our own, persistent messages, publisher confirms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rivals.rabbitmq_server import PROGRAM, RabbitMQServer, version
from benchmarks.rivals.storing import Level, Storer, StoringLane, StoringRival

_QUEUE = "queue"
_PERSISTENT = 2


@dataclass(frozen=True)
class _Lane(StoringLane):
    server: RabbitMQServer

    def storer(self) -> Storer:
        import amqp

        connection = self.server.connection()
        channel = connection.channel()
        channel.queue_declare(_QUEUE, durable=True, auto_delete=False)
        confirmed = [0]

        def on_ack(tag: int, multiple: bool) -> None:
            confirmed[0] = max(confirmed[0], tag) if multiple else confirmed[0] + 1

        channel.confirm_select()
        channel.events["basic_ack"].add(on_ack)
        sent = [0]

        def put_many(messages: list[bytes]) -> None:
            for message in messages:
                body = amqp.Message(message, delivery_mode=_PERSISTENT)
                channel.basic_publish(body, routing_key=_QUEUE)
            sent[0] += len(messages)
            while confirmed[0] < sent[0]:
                connection.drain_events(timeout=30)

        return Storer(lambda message: put_many([message]), put_many, close=connection.close)

    def reader(self) -> Callable[[int], int]:
        channel = self.server.connection().channel()

        def read(limit: int) -> int:
            last, count = 0, 0
            while count < limit and (message := channel.basic_get(_QUEUE)) is not None:
                last, count = message.delivery_tag, count + 1
            if last:
                channel.basic_ack(last, multiple=True)
            return count

        return read

    def remove(self) -> None:
        self.server.stop()
        super().remove()


class StoredRabbitMQ(StoringRival):
    """A server, and its queue's files."""

    name = "RabbitMQ"
    module = "amqp"
    distribution = "amqp"
    program = PROGRAM
    note = "durable queue, persistent messages, publisher confirms over loopback"
    levels = ("confirmed",)

    def program_version(self) -> str | None:
        return version()

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _Lane(directory, level, RabbitMQServer(Path(directory)))
