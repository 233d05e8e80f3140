"""Taking from a stored log what its ring has lost: the native core is given frames out of storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ringpost._binding._cffi.native import COLD, EMPTY, Pointer, ffi, lib
from ringpost._binding._cffi.rooms import Room

if TYPE_CHECKING:
    from ringpost._binding._cffi.handle import Handle


def find_frames(log: Handle, position: int) -> Pointer:
    """An rp_range, good as long as it is there. None: another consumer took them."""
    found = log.need_storage().frames(position)
    if found is None:
        return None
    data, start = found
    memory = ffi.from_buffer(data)
    frames = ffi.new("rp_range *", {"data": memory, "position": start, "end": start + len(memory)})
    return ffi.gc(frames, lambda _: memory)


def take_cold(log: Handle, group: int, room: Room, limit: int) -> int:
    """RP_EMPTY: none of these; try the usual form again."""
    frames = find_frames(log, room.taken.cold)
    if frames is None:
        return EMPTY
    status: int = lib.rp_take_cold(log.log, group, frames, room.buffer, room.size, limit, room.taken)
    return status


def receive_cold(log: Handle, group: int, room: Room, limit: int, lease: int) -> int:
    frames = find_frames(log, room.taken.cold)
    if frames is None:
        return EMPTY
    status: int = lib.rp_receive_cold(
        log.log, group, frames, room.buffer, room.size, limit, lease, room.receipts, room.taken
    )
    return status


def skip_large(log: Handle, group: int, sequence: int, deadline: int) -> int:
    """Its payload came out of storage: take it."""
    status: int = lib.rp_skip_large(log.log, group, sequence, ffi.NULL, deadline)
    if status != COLD:
        return status
    position, _ = log.need_storage().find(sequence, 0)
    frames = find_frames(log, position)
    if frames is None:
        return EMPTY
    status = lib.rp_skip_large(log.log, group, sequence, frames, deadline)
    return status
