"""What a process on the other binding does: `python -m conformance.other_side NAME URL`."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy

import ringpost
from ringpost._binding import binding

BOUND = 60.0  # seconds


def say(broker: ringpost.Broker, what: object) -> None:
    broker.queue("said").put(what)


def echo(broker: ringpost.Broker) -> None:
    """Everything comes back, until it is shut down."""
    there, back = broker.queue("there"), broker.queue("back")
    say(broker, binding.NAME)
    try:
        while True:
            back.put_many(there.get_many(timeout=BOUND))
    except ringpost.ShutDown:
        pass


def ack_all(broker: ringpost.Broker) -> None:
    """Says which messages it acked."""
    acked = []
    with broker.queue("jobs").consumer(prefetch=4) as consumer:
        say(broker, binding.NAME)
        for message in consumer:
            acked.append(message.body)
            message.ack()
    say(broker, acked)


def hold(broker: ringpost.Broker) -> None:
    """Receives, and never acks."""
    consumer = broker.queue("jobs").consumer()
    say(broker, [message.body for message in consumer.receive_many(3, timeout=BOUND)])
    time.sleep(BOUND)


def subscribe(broker: ringpost.Broker) -> None:
    with broker.topic("news").subscribe("a.*") as subscriber:
        say(broker, binding.NAME)
        got: list[Any] = []
        while not got or got[-1] != "end":
            message = subscriber.receive(timeout=BOUND)
            got.append(message.body)
    say(broker, got)


def double(broker: ringpost.Broker) -> None:
    """Arrays, in place both ways."""
    say(broker, binding.NAME)
    back = broker.queue("back").producer()
    with broker.queue("there").consumer() as consumer, consumer.receive(timeout=BOUND) as message:
        array = message.array
        with back.loan(array.shape, array.dtype) as answer:
            numpy.multiply(array, 2, out=answer)


def records(broker: ringpost.Broker) -> None:
    say(broker, binding.NAME)
    there, back, left = broker.queue("there"), broker.queue("back"), 1000
    while left:
        some = there.get_many(as_array=True, timeout=BOUND)
        left -= len(some)
        back.put_many(some)


def main() -> None:
    name, url = sys.argv[1:]
    with ringpost.connect(url) as broker:
        globals()[name](broker)


if __name__ == "__main__":
    main()
