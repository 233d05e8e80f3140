"""Small programs as users write them, for type checkers: make check runs mypy and pyright over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import msgspec

import ringpost


class Order(msgspec.Struct):
    id: int


@dataclass
class Point:
    x: float


class Movie(TypedDict):
    name: str


class Codec:
    def encode(self, item: int) -> bytes:
        return str(item).encode()

    def decode(self, data: bytes) -> int:
        return int(data)


def typed_queue(broker: ringpost.Broker) -> int:
    orders = broker.queue("orders", type=Order)
    orders.put(Order(1))
    order: Order = orders.get(timeout=1)
    many: list[Order] = orders.get_many(10)
    with orders.producer() as producer:
        producer.send(Order(2), headers={"shop": 7}, ttl=60)
    with orders.consumer(prefetch=1) as consumer:
        message: ringpost.Message[Order] = consumer.receive()
        with message:
            return message.body.id + order.id + len(many)


def records(samples: ringpost.Queue[Order], as_array: bool) -> int:
    several: list[Order] = samples.get_many(3, as_array=False)
    array = samples.get_many(3, as_array=True)
    either = samples.get_many(3, as_array=as_array)
    first = either[0] if isinstance(either, list) else Order(int(either.size))
    return several[0].id + int(array.size) + first.id


def own_codec(broker: ringpost.Broker) -> int:
    numbers = broker.queue("numbers", codec=Codec())
    numbers.put(7)
    return numbers.get()


def plain_queue(broker: ringpost.Broker) -> str:
    jobs = broker.queue("jobs", capacity=1 << 20, priorities=True)
    jobs.put({"any": ["thing"]})
    for message in jobs.consumer(max_deliveries=3, backoff=ringpost.Backoff(initial=0.1)):
        with message:
            return str(message.body["any"])
    return jobs.stats().consumers.name


def topics(broker: ringpost.Broker) -> float:
    points = broker.topic("points", type=Point)
    points.publish(Point(1.0), subject="a.b")
    subscriber: ringpost.Subscriber[Point] = points.subscribe("a.*", name="n", start="earliest")
    return subscriber.receive(timeout=1).body.x


def typed_dict(broker: ringpost.Broker) -> str:
    movies = broker.queue("movies", type=Movie)
    movies.put({"name": "M"})
    return movies.get()["name"]


def events(broker: ringpost.Broker) -> bool:
    bus = broker.events("app")

    @bus.on("order.*")
    def handler(event: ringpost.Event) -> None:
        print(event.name, event.data)

    bus.off("order.*", handler)
    return bus.emit("order.created", 7)


def anonymous() -> int:
    with ringpost.Queue[int](maxsize=3) as queue:
        queue.put(1)
        return queue.get()


def errors(broker: ringpost.Broker) -> None:
    try:
        broker.queue("q").get_nowait()
    except (ringpost.Empty, ringpost.ShutDown, ringpost.DecodeError):
        pass
