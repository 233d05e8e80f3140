"""A topic with subscribers of all kinds against a plain model of it, over random histories."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import ringpost
from ringpost._binding import binding

SUBJECTS = st.sampled_from(["a", "a.b", "a.b.c", "b", "b.c"])
PATTERNS = st.sampled_from(["#", "a.*", "a.#", "*.b", "b", "nothing"])
NAMES = st.sampled_from(["one", "two"])


class Expected:
    """What one subscriber is to get: numbers, in order; and what it holds."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.waiting: list[int] = []
        self.held: dict[int, ringpost.Message] = {}

    def wants(self, subject: str) -> bool:
        return binding.subject_matches(self.pattern, subject)


class TopicWithSubscribers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.broker = ringpost.connect(f"ring:model-{uuid.uuid4().hex[:8]}")
        self.topic = self.broker.topic("t", capacity=4 << 20)
        self.published = 0
        self.unnamed: list[tuple[ringpost.Subscriber, Expected]] = []
        self.named: dict[str, Expected] = {}
        self.open: dict[str, ringpost.Subscriber] = {}

    @rule(subject=SUBJECTS, count=st.integers(1, 4), large=st.booleans())
    def publish(self, subject: str, count: int, large: bool) -> None:
        filler = "x" * (18_000 if large else 1)
        for _ in range(count):
            self.topic.publish(f"{self.published} {filler}", subject, timeout=5)
            for expected in [*self.named.values(), *(each for _, each in self.unnamed)]:
                if expected.wants(subject):
                    expected.waiting.append(self.published)
            self.published += 1

    @precondition(lambda self: len(self.unnamed) < 4)
    @rule(pattern=PATTERNS, lossy=st.booleans())
    def subscribe(self, pattern: str, lossy: bool) -> None:
        subscriber = self.topic.subscribe(pattern, on_lag="drop-oldest" if lossy else "block", prefetch=3)
        self.unnamed.append((subscriber, Expected(pattern)))

    @rule(name=NAMES, pattern=PATTERNS)
    def subscribe_by_name(self, name: str, pattern: str) -> None:
        if name in self.open:
            return
        if name in self.named and self.named[name].pattern != pattern:
            with pytest.raises(ringpost.SettingsMismatch):
                self.topic.subscribe(pattern, name=name)
            return
        self.open[name] = self.topic.subscribe(pattern, name=name, prefetch=2)
        self.named.setdefault(name, Expected(pattern))

    @precondition(lambda self: self.unnamed)
    @rule(data=st.data())
    def receive(self, data: st.DataObject) -> None:
        subscriber, expected = data.draw(st.sampled_from(self.unnamed))
        assert self.number(subscriber) == (expected.waiting.pop(0) if expected.waiting else None)

    @rule(name=NAMES)
    def receive_by_name(self, name: str) -> None:
        if name not in self.open:
            return
        expected = self.named[name]
        try:
            message = self.open[name].receive(0)
        except ringpost.Empty:
            assert expected.waiting == []
            return
        number = int(message.body.split()[0])
        assert number == min(expected.waiting)
        expected.waiting.remove(number)
        expected.held[number] = message

    @rule(name=NAMES)
    def ack(self, name: str) -> None:
        if name in self.open:
            self.open[name].ack_many(self.named[name].held.values())
            self.named[name].held.clear()

    @rule(name=NAMES)
    def close_by_name(self, name: str) -> None:
        if name in self.open:
            self.open.pop(name).close()
            expected = self.named[name]
            expected.waiting = sorted([*expected.waiting, *expected.held])
            expected.held.clear()

    @precondition(lambda self: self.unnamed)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        subscriber, _ = self.unnamed.pop(data.draw(st.integers(0, len(self.unnamed) - 1)))
        subscriber.close()

    def number(self, subscriber: ringpost.Subscriber) -> int | None:
        try:
            return int(subscriber.receive(0).body.split()[0])
        except ringpost.Empty:
            return None

    def teardown(self) -> None:
        for subscriber, expected in self.unnamed:
            while expected.waiting:
                assert self.number(subscriber) == expected.waiting.pop(0)
            assert self.number(subscriber) is None
            subscriber.close()
        for subscriber in self.open.values():
            subscriber.close()
        self.broker.destroy()
        self.broker.close()


@pytest.mark.timeout(300)
def test_a_topic_with_subscribers() -> None:
    run_state_machine_as_test(
        TopicWithSubscribers,
        settings=settings(
            max_examples=120,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
