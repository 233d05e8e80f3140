"""Records: items of one size and type, many a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ringpost._binding._cffi.cold import find_frames
from ringpost._binding._cffi.native import (
    BUSY,
    COLD,
    EMPTY,
    FRAME,
    FULL,
    HEADER,
    INLINE_MAX,
    INTERRUPTED,
    LARGE,
    NOT_FOUND,
    NOW,
    OK,
    QUEUE_GROUP,
    RETURNED_FIRST,
    STALLED,
    Pointer,
    align,
    deadline_of,
    ffi,
    lib,
)
from ringpost._binding._cffi.putting import tell_how_many
from ringpost._binding._cffi.rooms import Room, borrow_room, give_back_room

if TYPE_CHECKING:
    from ringpost._binding._cffi.log import Log

_AT_ONCE = 1 << 15  # bytes of frames: several commits on the way keep both sides at work


def _model_of(kind: int, head: bytes, item: int) -> Pointer:
    """A frame without its item, as char[]."""
    if not isinstance(head, bytes):
        raise TypeError(f"'head' is bytes, not {type(head).__name__}")
    if item <= 0 or len(head) % 16 or item + len(head) > INLINE_MAX:
        raise ValueError("records have 1 to 16384 bytes with their head, which has a multiple of 16")
    frame = FRAME.pack(HEADER + len(head) + item, kind, 0, 0, 0, 0, 0, 0)
    return ffi.new("char[]", frame + head)


def put_records(
    log: Log,
    kind: int,
    head: bytes,
    items: Any,
    item: int,
    block: bool,
    timeout: float | None,
    durability: str | None,
) -> int:
    log.check_open()
    if durability is not None:
        log.check_durability(durability)
    deadline = deadline_of(block, timeout)
    model = _model_of(kind, head, item)
    counts: list[Pointer] = []  # by each call: the native core's word, whatever a signal handler raises
    try:
        with ffi.from_buffer(items) as data:
            _put(log, ffi.cast("rp_frame *", model), len(head), data, item, deadline, counts)
        if log.is_stored:
            log.confirm(durability, block, timeout)
        return sum(each[0] for each in counts)
    except BaseException as error:
        tell_how_many(error, sum(each[0] for each in counts))
        raise


def _put(
    log: Log, model: Pointer, head: int, data: Pointer, item: int, deadline: int, counts: list[Pointer]
) -> None:
    total, done = len(data) // item, 0
    at_once = max(_AT_ONCE // align(model.size), 1)
    is_full = False  # and storage makes no room: it is waited for
    while done < total:
        some = ffi.new("uint32_t *")
        counts.append(some)
        patience = NOW if log.is_stored and not is_full else deadline
        status = lib.rp_put_records(
            log.log, model, head, data + done * item, min(total - done, at_once), patience, some
        )
        done += some[0]
        if status in (FULL, STALLED) and not is_full and log.is_stored:
            is_full = status == STALLED or not log.made_room()
            continue
        is_full = False
        if status == INTERRUPTED:
            log.interrupted()
            log.made_room()
        elif status != OK:
            raise log.fail(status, "put", item)


def peek(log: Log, block: bool, timeout: float | None) -> tuple[int, bytes, int] | None:
    """(kind, payload, at most how many like it) of the next message, which stays. None: a large one, or one
    that was given back."""
    log.check_open()
    deadline = deadline_of(block, timeout)
    log.look_at_alarm()
    room = borrow_room(1)
    status = _peek(log, room, deadline)
    if status in (LARGE, RETURNED_FIRST):
        return None
    if status != OK:
        raise log.fail(status, "get")
    size, kind, _, subject_len, _, _, headers_len, _ = FRAME.unpack_from(room.bytes)
    payload = room.bytes[HEADER + subject_len + headers_len : size]
    found = kind, payload, room.taken.length // align(size)
    give_back_room(room)
    return found


def _peek(log: Log, room: Room, deadline: int) -> int:
    while True:
        status: int = lib.rp_peek(log.log, QUEUE_GROUP, room.buffer, room.size, deadline, room.taken)
        if status == COLD:
            frames = find_frames(log, room.taken.cold)
            if frames is None:
                continue  # another consumer took it
            status = lib.rp_peek_cold(log.log, QUEUE_GROUP, frames, room.buffer, room.size, room.taken)
            if status == EMPTY:
                continue
        if status != INTERRUPTED:
            return status
        log.interrupted()


def take_records(log: Log, kind: int, head: bytes, items: Any, item: int) -> int:
    """How many of the next messages are of this kind, with this head: taken, as fit into `items`."""
    log.check_open()
    model = ffi.cast("rp_frame *", memory := _model_of(kind, head, item))
    with ffi.from_buffer(items, require_writable=True) as data:
        count, status = _take(log, model, len(head), data, item)
    del memory
    if count:
        log.note_settled()
    elif status not in (OK, NOT_FOUND, BUSY, EMPTY, RETURNED_FIRST):
        raise log.fail(status, "get")
    return count


def _take(log: Log, model: Pointer, head: int, data: Pointer, item: int) -> tuple[int, int]:
    taken = ffi.new("rp_taken *")
    limit = min(len(data) // item, 0xFFFFFFFF)
    some = max(2 * _AT_ONCE // align(model.size), 1)  # so that producers get room soon
    count, status = 0, OK
    while count < limit and status == OK:
        to, most = data + count * item, min(some, limit - count)
        status = lib.rp_try_take_records(log.log, QUEUE_GROUP, model, head, to, most, taken)
        if status == COLD:
            frames = find_frames(log, taken.cold)
            status = (
                EMPTY
                if frames is None
                else lib.rp_take_records_cold(log.log, QUEUE_GROUP, frames, model, head, to, most, taken)
            )
        count += taken.count
    return count, status
