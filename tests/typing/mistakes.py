"""Mistakes that type checkers must find: each is expected where the comment says so."""

import msgspec

import ringpost


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
