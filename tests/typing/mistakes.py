"""Mistakes that type checkers must find: each is expected where the comment says so."""

import msgspec

import ringpost
from ringpost import aio


class Order(msgspec.Struct):
    id: int


def mistakes(broker: ringpost.Broker) -> None:
    orders = broker.queue("orders", type=Order)
    orders.put(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    number: int = orders.get()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    orders.producer().send("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    broker.queue("q", type=Order, pickle=True)  # type: ignore[call-overload]  # pyright: ignore
    price = orders.get().price  # type: ignore[attr-defined]  # pyright: ignore
    print(number, price)  # pyright: ignore[reportUnknownArgumentType]


async def mistakes_of_tasks(broker: aio.Broker) -> None:
    orders = await broker.queue("orders", type=Order)
    await orders.put(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    orders.put_nowait(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    number: int = await orders.get()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await orders.producer().send("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    broker.queue("q", type=Order, pickle=True)  # type: ignore[call-overload]  # pyright: ignore
    async with orders.consumer() as consumer:
        price = (await consumer.receive()).body.price  # type: ignore[attr-defined]  # pyright: ignore
        print(number, price)  # pyright: ignore[reportUnknownArgumentType]
    news = await broker.topic("news", type=Order)
    await news.publish("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with news.subscribe() as subscriber:
        text: str = (await subscriber.receive()).body  # type: ignore[assignment]  # pyright: ignore
        print(text)
