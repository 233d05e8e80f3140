"""Records: items of structured numpy arrays, each of them a message, many a call.

A record's payload is its head (MessagePack of its dtype, its length in 4 bytes before it, padded to 16),
then its bytes. So each one can be read by itself, by anybody.
"""

from __future__ import annotations

import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from ringpost._binding import binding
from ringpost.codecs import (
    Kind,
    beyond_raw_items,
    decode_record,
    dtype_of_record,
    imported_numpy,
    record_head,
)

if TYPE_CHECKING:
    from ringpost._binding.contract import Log

_LARGEST = 16384  # bytes of head and item: what a frame holds
_DEFAULT = 1 << 13  # records
_RECORD = int(Kind.RECORD)

Parts = tuple[int, bytes, Any, int]


def parts_of(items: object) -> Parts | None:
    """(kind, head, buffer, bytes of an item) of a structured array of one dimension; None of anything
    else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(items, numpy.ndarray):
        return None
    dtype = items.dtype
    if dtype.names is None or beyond_raw_items(items) or items.ndim != 1 or dtype.itemsize == 0:
        return None
    head = record_head(dtype)
    if len(head) + dtype.itemsize > _LARGEST:
        return None
    return _RECORD, head, numpy.ascontiguousarray(items).view("u1"), dtype.itemsize


@lru_cache(64)
def _dtype_of(head: bytes) -> Any:
    return dtype_of_record(head)[0]


def take(log: Log, limit: int | None, block: bool, timeout: float | None) -> Any:
    """An array of the next records, as far as they are of one dtype. Raises what get() raises, and
    TypeError if the next message is no record: it stays."""
    numpy = imported_numpy("with as_array= records come as a numpy array")
    most = _DEFAULT if limit is None else limit
    if most < 1:
        raise ValueError("'limit' must be at least 1 for an array: its dtype is the messages' own")
    deadline = None if timeout is None or not block else time.monotonic() + timeout
    while True:
        seen = log.peek(block, timeout)
        if seen is None:
            found = _take_special(log, most)
        else:
            kind, payload, there = seen
            _check_kind(log, kind)
            dtype = _dtype_of(payload[: _end_of_head(payload)])
            if _end_of_head(payload) + dtype.itemsize != len(payload):
                raise ValueError("the record is not as long as its dtype says")
            found = numpy.empty(min(most, there), dtype)
            count = log.take_records(_RECORD, payload[: -dtype.itemsize], found.view("u1"), dtype.itemsize)
            found = found[:count] if count > len(found) // 2 else found[:count].copy()
        if found is not None and len(found):
            return found
        if deadline is not None:
            timeout = max(deadline - time.monotonic(), 0)


def _end_of_head(payload: bytes) -> int:
    return -(-(4 + int.from_bytes(payload[:4], "little")) // 16) * 16


def _check_kind(log: Log, kind: int) -> None:
    if kind != _RECORD:
        raise TypeError(f"the next message of {log.label} is no record: take it with get()")


def _take_special(log: Log, limit: int) -> Any:
    """What was given back, or is large: a record each time. None: another consumer was faster."""
    import numpy

    from ringpost.errors import Empty

    group = log.group()
    try:
        (message,) = group.receive(1, 0, False, None, binding.Delivery)
    except Empty:
        return None
    if message.kind != _RECORD:
        group.give_back([message], 0, True)
        _check_kind(log, message.kind)
    try:
        record = decode_record(message.payload)
    except (ValueError, TypeError, msgspec.MsgspecError):
        group.give_back([message], 0, True)
        raise
    group.settle_one(message)
    return None if message.expired else numpy.array([record], record.dtype)
