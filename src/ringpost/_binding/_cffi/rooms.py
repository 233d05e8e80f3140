"""Rooms: private memory that a call of the native core fills, used again and again.

A call takes one for itself: another thread, or a signal handler that calls in the middle, gets another.
"""

from __future__ import annotations

from collections import deque

from ringpost._binding._cffi.native import INLINE_MAX, Pointer, ffi

FRAME_BUFFER = INLINE_MAX + 64
BATCH_BUFFER = 1 << 17
DEFAULT_BATCH = 1024

_KEPT = 8  # of each kind


class Room:
    """A buffer for frames, what the call says of them, and receipts."""

    __slots__ = ("buffer", "bytes", "limit", "receipt_bytes", "receipts", "size", "taken")

    def __init__(self, size: int, limit: int) -> None:
        self.buffer: Pointer = ffi.new("char[]", size)
        self.bytes: Pointer = ffi.buffer(self.buffer)
        self.size = size
        self.limit = limit
        self.taken: Pointer = ffi.new("rp_taken *")
        self.receipts: Pointer = ffi.new("rp_receipt[]", limit)
        self.receipt_bytes: Pointer = ffi.buffer(self.receipts)


_for_one: deque[Room] = deque(maxlen=_KEPT)
_for_many: deque[Room] = deque(maxlen=_KEPT)


def borrow_room(limit: int) -> Room:
    """For `limit` frames, DEFAULT_BATCH at most. To be given back by a call that succeeds."""
    try:
        room = _for_one.pop() if limit == 1 else _for_many.pop()
    except IndexError:
        room = Room(FRAME_BUFFER, 1) if limit == 1 else Room(BATCH_BUFFER, DEFAULT_BATCH)
    room.taken.count = 0
    return room


def give_back_room(room: Room) -> None:
    if room.size == FRAME_BUFFER:
        _for_one.append(room)
    else:
        _for_many.append(room)
