"""Throughput of a consumer that acks. The producer puts batches, so as not to be what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.messages import BATCH, SMALL
from benchmarks.rivals.acking import AckingRival
from benchmarks.rivals.base import Rival, SendingLane
from benchmarks.works.consumers import AckBatches, AckEach
from benchmarks.works.senders import PutBatches
from benchmarks.works.stream import Stream


class Acked(Stream):
    """Work of which each piece counts."""

    name = "acked"
    title = f"1 producer to 1 consumer, {SMALL}-byte messages, received and acked one a call"
    needs = AckingRival
    receiving: type = AckEach
    sending = PutBatches

    def lane(self, rival: Any, name: str, directory: Path) -> SendingLane:
        lane: SendingLane = rival.acking_lane(name, directory)
        return lane


class AckedBatches(Acked):
    """Many messages a call, where the rival can."""

    name = "acked-batches"
    title = f"1 producer to 1 consumer, {SMALL}-byte messages, received and acked up to {BATCH} a call"
    receiving = AckBatches

    def fits(self, rival: Rival) -> bool:
        return isinstance(rival, AckingRival) and rival.ack_batches
