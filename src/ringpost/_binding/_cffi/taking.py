"""Taking items out of a log, for good.

Between any two steps here a signal handler may run, and raise. What was taken then, and not yet handed out,
is kept for the next call (`_kept`), or told by the exception (get_many).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from ringpost._binding._cffi.cold import take_cold
from ringpost._binding._cffi.delivery import Delivery, move_some
from ringpost._binding._cffi.handle import Handle
from ringpost._binding._cffi.large import Large
from ringpost._binding._cffi.native import (
    BUSY,
    COLD,
    EMPTY,
    FRAME,
    HEADER,
    INTERRUPTED,
    KIND_BYTES,
    KIND_TEXT,
    LARGE,
    NOW,
    OK,
    QUEUE_GROUP,
    RETURNED_FIRST,
    Frame,
    Pointer,
    align,
    batch_limit,
    deadline_of,
    ffi,
    is_expired,
    lib,
    seconds_of,
)
from ringpost._binding._cffi.rooms import DEFAULT_BATCH, Room, borrow_room, give_back_room
from ringpost.errors import Empty

_GLANCES = 60  # spinning: about a microsecond
_NOTHING: Any = object()

Taken = tuple[Frame, bytes]  # and all that stands behind the header
Landed = deque[Taken] | list[Taken]


class Taking(Handle):
    __slots__ = ()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        self.check_open()
        block = bool(block)
        if timeout is not None and block:
            seconds_of(timeout)
        self.look_at_alarm()
        landed: deque[Taken] = deque()
        is_decoding = False  # what a codec raises is about the message
        room = borrow_room(1)
        try:
            self._land_one(landed, room, block, timeout)
            give_back_room(room)
            if self.is_stored:
                self.note_settled()
            frame, rest = landed[0]
            body = body_of(frame, rest)
            item = self._decode_plain(frame[1], body)
            if item is not _NOTHING:
                return item
            is_decoding = True
            return self.codec.decode(frame[1], body, frame[4])
        except BaseException:
            if not landed and room.taken.count:
                landed.append(_first_of(room))
            if not is_decoding:
                self._kept.extend(landed)
            raise

    def get_nowait(self) -> Any:
        return self.get(False)

    def get_many(
        self, limit: int | None = None, block: bool = True, timeout: float | None = None
    ) -> list[Any]:
        most = DEFAULT_BATCH if limit is None else batch_limit(limit)
        self.check_open()
        deadline = deadline_of(block, timeout)
        if most == 0:
            return []
        self.look_at_alarm()
        room = borrow_room(DEFAULT_BATCH)
        batch = _Decoded(self, room)
        try:
            self._fill(batch, room, most, block, deadline)
            batch.room = None
            give_back_room(room)
            self.note_settled()
            return batch.result()
        except BaseException as error:
            batch.tell(error)
            raise

    def _fill(self, batch: _Decoded, room: Room, most: int, block: bool, deadline: int) -> None:
        """In a function of its own: from 3.12 on CPython leaves a loop's jump out of a `try` around the loop,
        and there signal handlers run."""
        while (missing := most - batch.useful) > 0:
            batch.begin()
            if not self._land_some(batch, room, missing, most, block, deadline):
                break
            batch.decode_all()

    def _land_one(
        self,
        landed: deque[Taken],
        room: Room,
        block: bool,
        timeout: float | None,
        may_try_again: bool = True,
    ) -> None:
        """One that is of use. Raises what get() raises."""
        deadline: int = NOW
        if self._kept:
            move_some(self._kept, landed, 1)
        while True:
            if not landed:
                status = self.try_take(room, 1)
                if status == EMPTY and block and lib.rp_glance(self.log, QUEUE_GROUP, _GLANCES):
                    status = self.try_take(room, 1)
                if status != OK:
                    deadline = deadline or deadline_of(block, timeout)
                    if status == BUSY or (status == EMPTY and block):
                        status = self._wait_for_frames(room, 1, deadline)
                if status == EMPTY and may_try_again and self.on_empty is not None:
                    self._land_after_all(landed, room, self.on_empty)
                    return
                if status != OK:
                    self._land_special(landed, room, status, deadline, 1)
                    continue
                landed.append(_first_of(room))
            frame = landed[0][0]
            if not frame[7] or not self._is_of_no_use(frame):
                return
            room.taken.count = 0
            landed.popleft()

    def _land_after_all(
        self, landed: deque[Taken], room: Room, on_empty: Callable[[], Callable[[], None] | None]
    ) -> None:
        found = on_empty()
        self._land_one(landed, room, False, None, may_try_again=False)
        if found is not None:
            found()

    def _land_some(
        self, batch: _Decoded, room: Room, missing: int, most: int, block: bool, deadline: int
    ) -> bool:
        """False: what came is worth more than waiting; the next call sees the status."""
        landed = batch.landed
        if self._kept:
            move_some(self._kept, landed, missing)
            return True
        status = self.try_take(room, missing)
        if status != OK and batch.useful:
            return False  # a large one can fail, too: it gets a call of its own
        if status == BUSY or (status == EMPTY and block):
            status = self._wait_for_frames(room, most, deadline)
        if status == OK:
            landed.extend(_all_of(room))
        else:
            self._land_special(landed, room, status, deadline, most)
        return True

    # ---- from the native core ------------------------------------------------------------------

    def try_take(self, room: Room, limit: int, group: int = QUEUE_GROUP) -> int:
        """rp_try_take(), out of storage too."""
        status: int = lib.rp_try_take(self.log, group, room.buffer, room.size, limit, room.taken)
        while status == COLD:
            status = take_cold(self, group, room, limit)
            if status == EMPTY:
                status = lib.rp_try_take(self.log, group, room.buffer, room.size, limit, room.taken)
        return status

    def _wait_for_frames(self, room: Room, limit: int, deadline: int) -> int:
        while True:
            status: int = lib.rp_take(
                self.log, QUEUE_GROUP, room.buffer, room.size, limit, deadline, room.taken
            )
            if status == COLD:
                status = self.try_take(room, limit)
                if status == BUSY or (status == EMPTY and deadline > NOW):
                    continue
            if status != INTERRUPTED:
                return status
            self.interrupted()

    def _land_special(self, landed: Landed, room: Room, status: int, deadline: int, limit: int) -> None:
        """What is to be had in another way; nothing, if another consumer was faster. Raises what the status
        says."""
        if status == RETURNED_FIRST:
            self._land_returned(landed, limit)
        elif status == LARGE:
            self._land_large(landed, room.taken, deadline)
        else:
            raise self.fail(status, "get")

    def _land_returned(self, landed: Landed, limit: int) -> None:
        """What was given back, taken for good."""
        group = self._group_of(QUEUE_GROUP)
        messages: deque[Delivery] = deque()
        try:
            group.receive(limit, 0, False, None, Delivery, messages)
            group.settle(messages)
            landed.extend(map(Delivery._as_taken, messages))  # no loop of Python's: see _fill()
        except BaseException as error:
            if messages and not landed:
                settled = {*group.give_back(messages, 0, True)}  # in spite of what was raised
                landed.extend([each._as_taken() for each in messages if each in settled])
            if not isinstance(error, Empty):
                raise

    def _land_large(self, landed: Landed, taken: Pointer, deadline: int) -> None:
        frame = cast(Frame, FRAME.unpack(ffi.buffer(ffi.addressof(taken, "frame"))))
        large = Large(self, QUEUE_GROUP, frame, taken.length, False)
        try:
            status = large.take(deadline)
            if status == OK:
                landed.append((frame, large.payload()))
        except BaseException:
            if large.is_taken() and not landed:
                landed.append((frame, large.payload()))
            raise
        if status not in (OK, EMPTY, RETURNED_FIRST):
            raise self.fail(status, "get")

    # ---- decoding ------------------------------------------------------------------------------

    def decode(self, kind: int, body: bytes, sequence: int) -> Any:
        item = self._decode_plain(kind, body)
        return self.codec.decode(kind, body, sequence) if item is _NOTHING else item

    def _decode_plain(self, kind: int, body: bytes) -> Any:
        """The two kinds that most codecs take are decoded here, as they are encoded. Or _NOTHING."""
        if self.plain:
            if kind == KIND_BYTES:
                return body
            if kind == KIND_TEXT:
                try:
                    return body.decode()
                except UnicodeDecodeError:
                    pass  # the codec says it better
        return _NOTHING

    def _is_of_no_use(self, frame: Frame) -> bool:
        """True, and counted, if nobody wants it any more."""
        if not is_expired(frame[5], frame[7]):
            return False
        lib.rp_count(self.log, QUEUE_GROUP, lib.RP_COUNT_EXPIRED, 1)
        return True


def body_of(frame: Frame, rest: bytes) -> bytes:
    """What stands behind subject and headers."""
    before = frame[3] + frame[6]
    return rest[before:] if before else rest


def _first_of(room: Room) -> Taken:
    frame = cast(Frame, FRAME.unpack_from(room.bytes))
    return frame, room.bytes[HEADER : frame[0]]


def _all_of(room: Room) -> list[Taken]:
    found, at = [], 0
    for _ in range(room.taken.count):
        frame = cast(Frame, FRAME.unpack_from(room.bytes, at))
        found.append((frame, room.bytes[at + HEADER : at + frame[0]]))
        at += align(frame[0])
    return found


class _Decoded:
    """Items of a batch. One that cannot be decoded takes no other with it, nor does a signal meanwhile."""

    def __init__(self, log: Taking, room: Room) -> None:
        self._log = log
        self._before = 0  # how many had landed before the room was filled
        self.room: Room | None = room
        self.landed: list[Taken] = []
        self.results: list[Any] = []  # of each: an item, a _Failed, or _NOTHING: it is of no use any more
        self.useful = 0

    def begin(self) -> None:
        assert self.room is not None
        self.room.taken.count = 0
        self._before = len(self.landed)

    def decode_all(self) -> None:
        log, results = self._log, self.results
        for frame, rest in self.landed[len(results) :]:
            if frame[7] and log._is_of_no_use(frame):
                results.append(_NOTHING)
                continue
            self.useful += 1
            try:
                results.append(log.decode(frame[1], body_of(frame, rest), frame[4]))
            except ValueError as error:
                if not hasattr(error, "payload"):
                    raise
                results.append(_Failed(error))

    def items(self) -> list[Any]:
        return [each for each in self.results if each is not _NOTHING and type(each) is not _Failed]

    def errors(self) -> list[Any]:
        return [each.error for each in self.results if type(each) is _Failed]

    def result(self) -> list[Any]:
        """Raises the first DecodeError, which has all the others, and the items."""
        errors = self.errors()
        if errors:
            errors[0].items = self.items()
            errors[0].more = errors[1:]
            raise errors[0]
        return self.items()

    def tell(self, error: BaseException) -> None:
        """What was taken by a call that fails otherwise."""
        if error in self.errors():
            return
        if self.room is not None and len(self.landed) == self._before:
            self.landed += _all_of(self.room)
        if self.useful or len(self.landed) > len(self.results):
            error.items = self.items()  # type: ignore[attr-defined]
            error.payloads = [  # type: ignore[attr-defined]
                body_of(frame, rest) for frame, rest in self.landed[len(self.results) :]
            ]


class _Failed:
    def __init__(self, error: Any) -> None:
        self.error = error
