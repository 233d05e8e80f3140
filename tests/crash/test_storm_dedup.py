"""kill -9 of senders that all send the same ids: each id is accepted once, and none that was is lost."""

from __future__ import annotations

import mmap
import random
import time
from collections import Counter
from typing import Any

import pytest

import ringpost
from crash.children import Child, Nursery
from crash.storm import ROUNDS, random_seed
from crash.workers import PATIENCE

SECONDS = 2.5
SENDERS = 3
IDS = 1 << 18

Queue = ringpost.Queue[Any]
pytestmark = pytest.mark.timeout(60 + 10 * SECONDS * ROUNDS)


class Answers:
    """What one sender, and its successors, were told of each id; and which one is next."""

    def __init__(self) -> None:
        self.sent = mmap.mmap(-1, IDS)  # how often
        self.known = mmap.mmap(-1, IDS)
        self.next = memoryview(mmap.mmap(-1, 8)).cast("Q")

    def note(self, number: int, accepted: bool) -> None:
        if accepted:
            self.sent[number] += 1
        else:
            self.known[number] = 1
        self.next[0] = number + 1


def send_all(queue: Queue, answers: Answers) -> None:
    """Goes on where its predecessor died: what that one was not told is sent again."""
    producer = queue.producer(dedup_window=600)
    for number in range(answers.next[0], IDS):
        answers.note(number, producer.send(number, message_id=f"order {number}", timeout=PATIENCE))


def test_each_id_is_confirmed_once_and_comes(broker: ringpost.Broker, fork: Nursery) -> None:
    rng = random.Random(random_seed())
    for turn in range(ROUNDS):
        queue = broker.queue(f"q{turn}")
        answers = [Answers() for _ in range(SENDERS)]

        def start(sender: int, queue: Queue = queue, answers: list[Answers] = answers) -> Child:
            return fork(send_all, queue, answers[sender])

        senders = [start(sender) for sender in range(SENDERS)]
        kills, end = 0, time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.001, 0.02))
            victim = rng.randrange(SENDERS)
            assert not senders[victim].ended(), "a survivor had to wait too long, or failed"
            senders[victim].kill()
            kills += 1
            senders[victim] = start(victim)
        for sender in senders:
            sender.kill()
        audit(queue, answers, kills + SENDERS)


def audit(queue: Queue, answers: list[Answers], kills: int) -> None:
    came = Counter(queue.get_many(queue.qsize() or 1, timeout=PATIENCE))
    while queue.qsize():
        came.update(queue.get_many(timeout=PATIENCE))
    reached = max(each.next[0] for each in answers)
    print(f"{kills} kills; {reached} ids, {sum(came.values()) - len(came)} came twice")
    assert reached >= kills
    for number in range(reached):
        accepted = sum(each.sent[number] for each in answers)
        assert accepted <= 1, f"{number} was confirmed {accepted} times"
        assert came[number], f"{number} was confirmed, or said to be sent, and was lost"
    assert max(came) <= reached, "it was never sent"
    assert sum(came.values()) - len(came) <= kills, "more came twice than senders died in between"
