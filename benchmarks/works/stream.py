"""Throughput: senders put as fast as they can, one receiver takes it all. From first put to last get."""

from __future__ import annotations

from typing import Any

from benchmarks.messages import BATCH, LARGE, SMALL
from benchmarks.rivals.base import Rival
from benchmarks.works.base import Metric, Run, Work
from benchmarks.works.pace import paced
from benchmarks.works.receivers import GetBatches, GetEach, GetEachFromMany, GetLarge
from benchmarks.works.senders import PutBatches, PutEach


class Stream(Work):
    """What all of them do."""

    metrics = (Metric("rate", "msg/s", higher_is_better=True),)
    step = BATCH
    receiving: type = GetEach
    sending: type = PutEach

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        receiver = (self.receiving, (lanes[0], self.senders, self.size))
        senders = [(self.sending, (lanes[0], index, self.size)) for index in range(self.senders)]
        return [receiver, *senders]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        def elapsed(count: int) -> float:
            ended, *began = run(count)
            return float(ended - min(began)) / 1e9

        count = paced(elapsed, seconds, self.step)
        return {"rate": self.scaled(count * self.senders / elapsed(count))}

    def scaled(self, messages_per_second: float) -> float:
        """In the unit of the metric."""
        return messages_per_second


class OneToOne(Stream):
    """The plainest use of a queue."""

    name = "1-to-1"
    title = f"1 producer to 1 consumer, {SMALL}-byte messages, one a call"


class Batches(Stream):
    """Many messages a call, where the rival can."""

    name = "batches"
    title = f"1 producer to 1 consumer, {SMALL}-byte messages, {BATCH} a call"
    receiving = GetBatches
    sending = PutBatches

    def fits(self, rival: Rival) -> bool:
        return rival.batches


class FourToOne(Stream):
    """Producers get into each other's way."""

    name = "4-to-1"
    title = f"4 producers to 1 consumer, {SMALL}-byte messages, one a call"
    senders = 4
    receiving = GetEachFromMany


class LargeMessages(Stream):
    """What counts is how often the bytes are copied."""

    name = "large"
    title = f"1 producer to 1 consumer, messages of {LARGE >> 20} MiB"
    metrics = (Metric("rate", "GB/s", higher_is_better=True),)
    size = LARGE
    step = 8
    receiving = GetLarge

    def scaled(self, messages_per_second: float) -> float:
        return messages_per_second * LARGE / 1e9
