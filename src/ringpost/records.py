"""Records: items of structured numpy arrays, each of them a message, many a call.

A record's payload is its head (MessagePack of its dtype, its length in 4 bytes before it, padded to 16),
then its bytes. So each one can be read by itself, by anybody.
"""

from __future__ import annotations

import sys
import time
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ringpost._binding import binding
from ringpost.codecs import (
    Kind,
    beyond_raw_items,
    dtype_of_record,
    imported_numpy,
    record_head,
)
from ringpost.errors import Empty

if TYPE_CHECKING:
    from ringpost._binding.contract import Delivery, Log

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
            head, dtype = _head_and_dtype(payload)
            found = numpy.empty(min(most, there), dtype)
            count = log.take_records(_RECORD, head, found.view("u1"), dtype.itemsize)
            found = found[:count] if count > len(found) // 2 else found[:count].copy()
        if found is not None and len(found):
            return found
        if deadline is not None:
            timeout = max(deadline - time.monotonic(), 0)


def _head_and_dtype(payload: bytes) -> tuple[bytes, Any]:
    """Raises ValueError, and whatever is wrong with the head."""
    head = payload[: -(-(4 + int.from_bytes(payload[:4], "little")) // 16) * 16]
    dtype = _dtype_of(head)
    if len(head) + dtype.itemsize != len(payload):
        raise ValueError("the record is not as long as its dtype says")
    return head, dtype


def _check_kind(log: Log, kind: int) -> None:
    if kind != _RECORD:
        raise TypeError(f"the next message of {log.label} is no record: take it with get()")


def _take_special(log: Log, limit: int) -> Any:
    """What was given back, or is large, and what comes behind it. None: another consumer was faster."""
    import numpy

    group = log.group()
    try:
        messages = group.receive(limit, 0, False, None, binding.Delivery)
    except Empty:
        return None
    try:
        _check_kind(log, messages[0].kind)
        head, dtype = _head_and_dtype(messages[0].payload)
        records = list(takewhile(lambda one: _is_like(one, head, dtype), messages))
        items = [one.payload[len(head) :] for one in records if not one.expired]
        found = numpy.ndarray(len(items), dtype, bytearray().join(items))
    except BaseException:
        group.give_back(messages, 0, True)
        raise
    group.give_back(messages[len(records) :], 0, True)
    group.settle(records)
    return found


def _is_like(message: Delivery, head: bytes, dtype: Any) -> bool:
    payload = message.payload
    return message.kind == _RECORD and payload.startswith(head) and len(payload) == len(head) + dtype.itemsize
