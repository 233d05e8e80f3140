"""What a topic keeps beyond what its subscribers need: by age, bytes and count; by key."""

from __future__ import annotations

from typing import Any

from ringpost.store.log import StoredLog


def apply(log: StoredLog, transaction: Any, needed: int) -> bool:
    """Delete blocks that are out of every bound, the oldest first; none that a subscriber needs. False: none
    is left."""
    limit = min(needed, _end_of_what_goes(log, transaction))
    return log.blocks.delete_before(transaction, limit)


def _end_of_what_goes(log: StoredLog, transaction: Any) -> int:
    retention = log.record.retention
    assert retention is not None
    before = log.expiry_ns()
    last = log.blocks.last_in(transaction)
    if last is None:
        return 0
    limits = [0]
    if retention.bytes is not None:
        limits.append(last.end - retention.bytes)
    if retention.messages is not None:
        limits.append(log.blocks.start_of(transaction, last.end_sequence - retention.messages, -1))
    if before is not None:
        limits.append(log.blocks.start_of(transaction, -1, before))
    return max(limits)
