"""The operations on leases whose every store is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

import ringpost
from crash.steps import BIG

Doing = Callable[[ringpost.Consumer, list[ringpost.Message]], object]


def _nothing(consumer: ringpost.Consumer, held: list[ringpost.Message]) -> None:
    pass


def _give_back(consumer: ringpost.Consumer, held: list[ringpost.Message]) -> None:
    for message in held:
        message.nack()


@dataclass(frozen=True)
class LeaseStep:
    """`holding` messages are received, and `before` is done, by the process that dies in `operation`."""

    name: str
    operation: Doing
    holding: int = 0
    before: Doing = _nothing
    bodies: tuple[bytes, ...] = (b"one", b"two", b"three", b"four")
    acks: frozenset[bytes] = field(default_factory=frozenset)  # perhaps gone afterwards, each by itself
    prefetch: int = 1


def _acks(*bodies: bytes) -> frozenset[bytes]:
    return frozenset(bodies)


STEPS = [
    LeaseStep("receive", lambda c, _: c.receive(0)),
    LeaseStep("receive one more", lambda c, _: c.receive(0), holding=2),
    LeaseStep("receive several", lambda c, _: c.receive_many(3, 0), prefetch=3),
    LeaseStep("receive all", lambda c, _: c.receive_many(10, 0), prefetch=10),
    LeaseStep("receive a large one", lambda c, _: c.receive(0), bodies=(BIG, b"two")),
    LeaseStep("receive again", lambda c, _: c.receive(0), holding=1, before=_give_back),
    LeaseStep("receive some again", lambda c, _: c.receive(0), holding=3, before=_give_back),
    LeaseStep("receive all again", lambda c, _: c.receive_many(10, 0), 3, _give_back),
    LeaseStep("ack", lambda _, held: held[0].ack(), holding=1, acks=_acks(b"one")),
    LeaseStep("ack the middle one", lambda _, held: held[1].ack(), holding=3, acks=_acks(b"two")),
    LeaseStep("ack the last one", lambda _, held: held[3].ack(), holding=4, acks=_acks(b"four")),
    LeaseStep(
        "ack several", lambda c, held: c.ack_many(held), holding=3, acks=_acks(b"one", b"two", b"three")
    ),
    LeaseStep("ack a large one", lambda _, held: held[0].ack(), 1, bodies=(BIG, b"two"), acks=_acks(BIG)),
    LeaseStep("reject", lambda _, held: held[0].reject(), holding=2, acks=_acks(b"one")),
    LeaseStep("nack", lambda _, held: held[0].nack(), holding=1),
    LeaseStep("nack one of several", lambda _, held: held[1].nack(), holding=3),
    LeaseStep("nack another", lambda _, held: held[2].nack(), 3, lambda _, held: held[0].nack()),
    LeaseStep("nack with a delay", lambda _, held: held[0].nack(delay=0.01), holding=2),
    LeaseStep("extend", lambda _, held: held[0].extend(5), holding=2),
    LeaseStep("close", lambda c, _: c.close(), holding=3, prefetch=2),
]

each_lease_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
