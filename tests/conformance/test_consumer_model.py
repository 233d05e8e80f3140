"""A queue with two consumers against a plain model of it, over random histories."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ringpost

CONSUMERS = st.integers(0, 1)
MOST_DELIVERIES = 3


class QueueOfLeases(RuleBasedStateMachine):
    """Each message is in exactly one place: ready, held, acked or dead."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = ringpost.connect(f"ring:model-{uuid.uuid4().hex[:8]}")

    @initialize(priorities=st.booleans())
    def open(self, priorities: bool) -> None:
        self.queue = self.broker.queue("q", capacity=512 << 10, priorities=priorities)
        self.priorities = priorities
        self.consumers = [self.open_consumer() for _ in range(2)]
        self.sent = 0
        self.ready: dict[int, int] = {}  # number: deliveries so far
        self.held: list[dict[int, ringpost.Message]] = [{}, {}]
        self.acked: set[int] = set()
        self.dead: set[int] = set()

    def open_consumer(self) -> ringpost.Consumer:
        return self.queue.consumer(prefetch=1, max_deliveries=MOST_DELIVERIES)

    # ---- what happens --------------------------------------------------------------------------

    @rule(count=st.integers(1, 5), priority=st.integers(0, 9), large=st.booleans())
    def send(self, count: int, priority: int, large: bool) -> None:
        filler = "x" * (20_000 if large else 3)
        for _ in range(count):
            body = f"{self.sent} {filler}"
            try:
                self.queue.producer(overflow="raise").send(body, priority=priority if self.priorities else 0)
            except ringpost.Full:
                return
            self.ready[self.sent] = 0
            self.sent += 1

    @rule(who=CONSUMERS)
    def receive(self, who: int) -> None:
        try:
            message = self.consumers[who].receive(0)
        except ringpost.Empty:
            self.see_the_dead()
            assert not self.ready
            return
        self.see_the_dead()
        number = int(message.body.split()[0])
        assert message.deliveries == self.ready.pop(number) + 1
        self.held[who][number] = message

    @rule(who=CONSUMERS, limit=st.integers(1, 8))
    def receive_many(self, who: int, limit: int) -> None:
        try:
            messages = self.consumers[who].receive_many(limit, 0)
        except ringpost.Empty:
            self.see_the_dead()
            assert not self.ready
            return
        self.see_the_dead()
        assert len(messages) <= limit
        for message in messages:
            number = int(message.body.split()[0])
            assert message.deliveries == self.ready.pop(number) + 1
            self.held[who][number] = message

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        who, number = self.pick(data)
        self.held[who].pop(number).ack()
        self.acked.add(number)

    @rule(who=CONSUMERS)
    def ack_all(self, who: int) -> None:
        self.consumers[who].ack_many(self.held[who].values())
        self.acked |= self.held[who].keys()
        self.held[who].clear()

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def nack(self, data: st.DataObject) -> None:
        who, number = self.pick(data)
        message = self.held[who].pop(number)
        message.nack()
        if message.deliveries >= MOST_DELIVERIES:
            self.dead.add(number)
        else:
            self.ready[number] = message.deliveries

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        who, number = self.pick(data)
        self.held[who].pop(number).reject()
        self.dead.add(number)

    @rule(who=CONSUMERS)
    def close(self, who: int) -> None:
        self.consumers[who].close()
        for number, message in self.held[who].items():
            self.ready[number] = message.deliveries
        self.held[who].clear()
        self.consumers[who] = self.open_consumer()

    def see_the_dead(self) -> None:
        """One that was handed out as often as it may be goes when somebody would get it again."""
        doomed = {number for number, deliveries in self.ready.items() if deliveries >= MOST_DELIVERIES}
        if doomed:
            letters = {int(letter.body.split()[0]) for _, letter in self.queue.dead_letters().peek(1000)}
            for number in doomed & letters:
                del self.ready[number]
                self.dead.add(number)

    def pick(self, data: st.DataObject) -> tuple[int, int]:
        return data.draw(
            st.sampled_from([(who, number) for who in (0, 1) for number in sorted(self.held[who])])
        )

    # ---- what is always true -------------------------------------------------------------------

    @invariant()
    def numbers_agree(self) -> None:
        if not hasattr(self, "queue"):
            return
        stats = self.queue.stats()
        assert stats.consumers.in_flight == sum(map(len, self.held))
        assert stats.ready == len(self.ready)
        assert stats.sent == self.sent
        assert len(self.queue.dead_letters()) == len(self.dead)

    def teardown(self) -> None:
        for consumer in getattr(self, "consumers", []):
            consumer.close()
        self.broker.destroy()
        self.broker.close()


@pytest.mark.timeout(300)
def test_queue_of_leases() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        QueueOfLeases,
        settings=settings(
            max_examples=150,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
