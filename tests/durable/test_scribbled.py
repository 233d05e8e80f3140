"""Somebody scribbles over the ring of a stored queue: what is stored is still read within its bounds."""

from __future__ import annotations

import os
from collections.abc import Callable
from struct import pack_into, unpack_from
from typing import Any

import pytest
from crash.segment_file import LEASE_SIZE, SegmentFile, path_of

import ringpost
from ringpost.errors import CorruptLog

SIZE = 20_000  # bytes of a message that travels in three granules of 8 KiB
GRANULES = 3
OWNER_AT, RETURNED = 40, 0x7FF  # in a lease

Queue = ringpost.Queue[Any]


@pytest.fixture
def queue(durable: ringpost.Broker) -> Queue:
    queue: Queue = durable.queue("jobs", durability="commit", capacity=1 << 20)
    return queue


@pytest.fixture
def segment(queue: Queue) -> SegmentFile:
    return SegmentFile(path_of(queue))


TAKERS: dict[str, Callable[[Queue], object]] = {
    "get": lambda queue: queue.get(timeout=5),
    "get_many": lambda queue: queue.get_many(timeout=5),
    "consumer": lambda queue: queue.consumer().receive(timeout=5),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS.keys())
def test_a_payload_in_storage_is_not_as_long_as_the_ring_says(
    queue: Queue, segment: SegmentFile, take: Callable[[Queue], object]
) -> None:
    queue.put(bytes(SIZE))
    descriptor = segment["ring_offset"] + segment.group("read") + 32
    length, first, granules = unpack_from("<QII", segment.memory, descriptor)
    assert (length, granules) == (SIZE, GRANULES)
    pack_into("<Q", segment.memory, descriptor, granules * 8192)
    state, granules, owner = segment.chunk(first)
    segment.set_chunk(first, state, granules, owner, 1 << 40)  # not this message's: look in storage
    with pytest.raises(CorruptLog):
        take(queue)


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS.keys())
def test_a_position_that_is_no_frames(
    queue: Queue, segment: SegmentFile, take: Callable[[Queue], object]
) -> None:
    for number in range(20):
        queue.put(number)
    segment.set_group("read", segment.group("read") + 8)
    segment["oldest"] = segment["tail"]  # the ring has lost them
    with pytest.raises(CorruptLog):
        take(queue)


def test_what_was_given_back_never_comes(queue: Queue, segment: SegmentFile) -> None:
    """A lease that is due but cannot be split: the others are in the hands of those who live."""
    for number in range(3):
        queue.put(number)
    with queue.consumer() as consumer:
        for message in consumer.receive_many(3):
            message.nack()
        leases = segment["leases_offset"]
        count = segment["lease_count"] // segment["group_count"]
        us = segment.owner(os.getpid())
        for entry in range(count):
            at = leases + entry * LEASE_SIZE
            pack_into("<I", segment.memory, at + OWNER_AT, us if entry else RETURNED)
            pack_into(
                "<QQ", segment.memory, at + 8, 1000 * entry, 3
            )  # its first frame, and which are pending
        pack_into("<I", segment.memory, segment["groups_offset"] + 4, count)  # all are in use
        with pytest.raises(ringpost.Empty):
            queue.get(timeout=0.5)
