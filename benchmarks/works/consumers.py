"""The acking parts. Each checks every message, and reports when it had acked the last."""

from __future__ import annotations

import time
from itertools import cycle, islice

from benchmarks.messages import BATCH, corrupt, cycle_of
from benchmarks.rivals.acking import AckingLane


class AckEach:
    """Receives one message a call, and acks it, before the next."""

    def __init__(self, lane: AckingLane, senders: int, size: int) -> None:
        self._consumer = lane.consumer()
        self._expected = cycle_of(0, size)
        self.close = self._consumer.close

    def run(self, count: int, start_at: int) -> int:
        """Receive and ack `count` messages."""
        receive, body, ack = self._consumer.receive, self._consumer.body, self._consumer.ack
        for expected in islice(cycle(self._expected), count):
            delivery = receive()
            got = body(delivery)
            if got != expected:
                raise corrupt(got, expected)
            ack(delivery)
        return time.monotonic_ns()


class AckBatches:
    """Receives what is there, and acks all of it, before the next."""

    def __init__(self, lane: AckingLane, senders: int, size: int) -> None:
        self._consumer = lane.consumer()
        self._cycle = cycle_of(0, size)
        self.close = self._consumer.close

    def run(self, count: int, start_at: int) -> int:
        """Receive and ack `count` messages."""
        receive_many, ack_many = self._consumer.receive_many, self._consumer.ack_many
        assert receive_many is not None
        assert ack_many is not None
        body = self._consumer.body
        length, position = len(self._cycle), 0
        unrolled = self._cycle + self._cycle[:BATCH]
        while position < count:
            deliveries = receive_many(BATCH)
            at = position % length
            got = [body(delivery) for delivery in deliveries]
            if got != unrolled[at : at + len(got)]:
                raise corrupt(got[0], unrolled[at])
            ack_many(deliveries)
            position += len(got)
        return time.monotonic_ns()
