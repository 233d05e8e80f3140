"""Small programs of ringpost.aio as users write them, for type checkers: as queues.py, which has threads."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

import ringpost
from ringpost import aio


class Order(msgspec.Struct):
    id: int


@dataclass
class Point:
    x: float


class Codec:
    def encode(self, item: int) -> bytes:
        return str(item).encode()

    def decode(self, data: bytes) -> int:
        return int(data)


async def typed_queue(broker: aio.Broker) -> int:
    orders = await broker.queue("orders", type=Order)
    await orders.put(Order(1))
    order: Order = await orders.get(timeout=1)
    many: list[Order] = await orders.get_many(10)
    async with orders.producer() as producer, producer.batch() as batch:
        await producer.send(Order(2), headers={"shop": 7}, ttl=60)
        await producer.send_many([Order(3)])
        batch.send(Order(4))
    async for each in orders:
        order = each
    async with orders.consumer(prefetch=1) as consumer:
        await consumer.ack_many(await consumer.receive_many())
        async for received in consumer:
            await received.nack(delay=received.body.id)
        message: aio.Message[Order] = await consumer.receive()
        async with message:
            return message.body.id + order.id + len(many)


async def entered(url: str) -> int:
    async with aio.connect(url) as broker, broker.queue("orders", type=Order, maxsize=7) as orders:
        return (await orders.get()).id


async def records(samples: aio.Queue[Order], as_array: bool) -> int:
    several: list[Order] = await samples.get_many(3, as_array=False)
    array = await samples.get_many(3, as_array=True)
    either = await samples.get_many(3, as_array=as_array)
    first = either[0] if isinstance(either, list) else Order(int(either.size))
    return several[0].id + int(array.size) + first.id


async def own_codec(broker: aio.Broker) -> int:
    numbers = await broker.queue("numbers", codec=Codec())
    numbers.put_nowait(7)
    return numbers.get_nowait()


async def plain_queue(broker: aio.Broker) -> str:
    jobs = await broker.queue("jobs", capacity=1 << 20, priorities=True)
    await jobs.put({"any": ["thing"]})
    async for message in jobs.consumer(max_deliveries=3, backoff=ringpost.Backoff(initial=0.1)):
        async with message:
            return str(message.body["any"])
    return jobs.stats().consumers.name


async def topics(broker: aio.Broker) -> float:
    points = await broker.topic("points", type=Point)
    await points.publish(Point(1.0), subject="a.b")
    await points.publish_many([("a.c", Point(2.0))])
    subscriber: aio.Subscriber[Point] = await points.subscribe("a.*", name="n", start="earliest")
    async with points.subscribe() as other:
        return (await other.receive()).body.x + (await subscriber.receive(timeout=1)).body.x


async def requests(broker: aio.Broker) -> str:
    orders = await broker.queue("orders", type=Order)
    return str(await broker.request(orders, Order(1), timeout=5))


async def transactions(broker: aio.Broker) -> None:
    orders, points = await broker.queue("orders", type=Order), await broker.topic("points", type=Point)
    async with orders.consumer() as consumer, broker.transaction() as transaction:
        message = await consumer.receive()
        transaction.ack(message)
        transaction.send(orders, message.body)
        transaction.publish(points, Point(1.0), "a.b")


async def events(broker: aio.Broker) -> bool:
    bus = await broker.events("app")

    @bus.on("order.*")
    async def handler(event: ringpost.Event) -> None:
        print(event.name, event.data)

    bus.off("order.*", handler)
    await bus.run(timeout=1, concurrency=2)
    return await bus.emit("order.created", 7)


async def anonymous(numbers: ringpost.Queue[int]) -> int:
    async with aio.Queue[int](maxsize=3) as queue, aio.Queue.of(numbers) as other:
        await queue.put(await other.get())
        return await queue.get()
