"""An order goes its way through services that do not know each other: they react to events.

    order.placed -> stock -> stock.reserved -> payment -> payment.received -> shipping -> order.shipped
                    stock.missing                         payment.refused  -> stock (takes it back)

Each service is a process with handlers on one event bus. The audit listens to everything, and nobody had to
be told of it.

    python examples/order_workflow.py                      the services, some orders, and what became of them
    python examples/order_workflow.py SERVICE ring:NAME    stock, payment or shipping alone
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import ringpost

PATIENCE = 60  # seconds without an end of every order: something is wrong
ENDS = ("order.shipped", "order.cancelled")

Order = dict[str, Any]

# ---- services: each a function that registers its handlers ---------------------------------------


def stock(bus: ringpost.EventBus) -> None:
    shelves = {"tea": 5, "milk": 2}

    @bus.on("order.placed")
    def reserve(order: Order) -> None:
        if any(shelves.get(item, 0) < count for item, count in order["items"].items()):
            bus.emit("stock.missing", order)
            return
        for item, count in order["items"].items():
            shelves[item] -= count
        bus.emit("stock.reserved", order)

    @bus.on("payment.refused")
    def take_back(order: Order) -> None:
        for item, count in order["items"].items():
            shelves[item] += count

    @bus.on("stock.missing")
    @bus.on("payment.refused")
    def cancel(order: Order) -> None:
        bus.emit("order.cancelled", order)


def payment(bus: ringpost.EventBus) -> None:
    accounts = {"ann": 20.0, "bob": 1.0}
    prices = {"tea": 3.5, "milk": 1.2}

    @bus.on("stock.reserved")
    def charge(order: Order) -> None:
        amount = sum(prices[item] * count for item, count in order["items"].items())
        if accounts.get(order["customer"], 0) < amount:
            bus.emit("payment.refused", order)
            return
        accounts[order["customer"]] -= amount
        bus.emit("payment.received", {**order, "paid": amount})


def shipping(bus: ringpost.EventBus) -> None:
    parcels = 0

    @bus.on("payment.received")
    def ship(order: Order) -> None:
        nonlocal parcels
        parcels += 1
        bus.emit("order.shipped", {**order, "parcel": parcels})


SERVICES = {"stock": stock, "payment": payment, "shipping": shipping}

# ---- all of it -----------------------------------------------------------------------------------


def demo(broker: ringpost.Broker) -> None:
    bus = broker.events("shop")
    started = count_ready(bus)
    services = [subprocess.Popen([sys.executable, __file__, name, broker.url]) for name in SERVICES]
    try:
        orders: list[Order] = [
            {"id": 1, "customer": "ann", "items": {"tea": 2, "milk": 1}},
            {"id": 2, "customer": "bob", "items": {"tea": 3}},  # cannot pay: his tea goes back
            {"id": 3, "customer": "ann", "items": {"tea": 3}},  # would miss it otherwise
            {"id": 4, "customer": "bob", "items": {"coffee": 1}},
        ]
        bus.run(timeout=PATIENCE)
        if started != set(SERVICES):
            sys.exit(f"only these services have started: {started}")
        seen = audit(bus, orders)
    finally:
        for service in services:
            service.kill()
            service.wait()
    for order in orders:
        print(f"order {order['id']}: {' > '.join(seen[order['id']])}")


def count_ready(bus: ringpost.EventBus) -> set[str]:
    """Listen before they start. The set fills while the bus runs, which ends with the last of them."""
    ready: set[str] = set()

    @bus.on("service.ready")
    def note(name: str) -> None:
        ready.add(name)
        if ready == set(SERVICES):
            bus.stop()

    return ready


def audit(bus: ringpost.EventBus, orders: list[Order]) -> dict[int, list[str]]:
    """Place one order after the other, and write down what becomes of each."""
    seen: dict[int, list[str]] = {order["id"]: [] for order in orders}
    waiting = iter(orders)

    bus.off("service.ready")

    @bus.on("#")
    def note(event: ringpost.Event) -> None:
        order = event.args[0]
        seen[order["id"]].append(event.name)
        if event.name in ENDS:
            place_next()

    def place_next() -> None:
        order = next(waiting, None)
        if order is None:
            bus.stop()
        else:
            bus.emit("order.placed", order)

    place_next()
    bus.run(timeout=PATIENCE)
    if not all(steps and steps[-1] in ENDS for steps in seen.values()):
        sys.exit(f"not every order came to an end: {seen}")
    return seen


def main() -> None:
    if len(sys.argv) == 1:
        with ringpost.connect(f"ring:orders-{os.getpid()}") as broker:
            try:
                demo(broker)
            finally:
                broker.destroy()
    elif len(sys.argv) == 3 and sys.argv[1] in SERVICES:
        with ringpost.connect(sys.argv[2]) as broker, broker.events("shop") as bus:
            SERVICES[sys.argv[1]](bus)
            bus.emit("service.ready", sys.argv[1])
            bus.run()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
