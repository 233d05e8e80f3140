"""Taking items out of a log, for good.

Between any two steps here a signal handler may run, and raise. What was taken then, and not yet handed out, is kept for
the next call (`_kept`), or told by the exception (get_many).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
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
    NO_SLOT,
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
_NOTHING: Any = object()  # to be had: try again

Taken = tuple[Frame, bytes]  # and all that stands behind the header


class Taking(Handle):
    __slots__ = ()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = self._take_item(block, timeout)
        if self.is_stored:
            self.note_settled()
        return item

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
        batch = _Decoded(self)
        room = borrow_room(DEFAULT_BATCH)
        try:
            self._take_items(batch, room, most, block, deadline)
        except BaseException as error:
            batch.tell(error)
            raise
        finally:
            give_back_room(room)
        self.note_settled()
        return batch.result()

    # ---- one item ------------------------------------------------------------------------------

    def _take_item(self, block: bool, timeout: float | None) -> Any:
        self.check_open()
        block = bool(block)
        if timeout is not None and block:
            seconds_of(timeout)
        self.look_at_alarm()
        deadline = None
        room = borrow_room(1)
        try:
            while True:
                if self._kept:
                    item = self._take_kept()
                else:
                    status = self.try_take(room, 1)
                    if status == EMPTY and block and lib.rp_glance(self.log, QUEUE_GROUP, _GLANCES):
                        status = self.try_take(room, 1)
                    if status != OK and deadline is None:
                        deadline = deadline_of(block, timeout)
                    if status == BUSY or (status == EMPTY and block):
                        status = self._wait_for_frames(room, 1, deadline)
                    if status == OK:
                        item = self._decode_first(room)
                    else:
                        self._take_special(room, status, deadline, 1)
                        continue
                if item is not _NOTHING:
                    return item
        except BaseException:
            if room.taken.count and not room.is_decoding:
                self._kept.append(_first_of(room))
            raise
        finally:
            give_back_room(room)

    def _decode_first(self, room: Room) -> Any:
        frame = cast(Frame, FRAME.unpack_from(room.bytes))
        size, kind, _, subject_len, sequence, time_ns, headers_len, ttl_ms = frame
        if ttl_ms and self._is_of_no_use(time_ns, ttl_ms):
            room.taken.count = 0
            return _NOTHING
        body = room.bytes[HEADER + subject_len + headers_len : size]
        if kind == KIND_BYTES and self.plain:
            return body
        room.is_decoding = True
        return self.decode(kind, body, sequence)

    def _take_kept(self) -> Any:
        one: deque[Taken] = deque()
        is_decoding = False
        try:
            move_some(self._kept, one, 1)
            if not one:
                return _NOTHING  # another thread was faster
            frame, rest = one[0]
            if frame[7] and self._is_of_no_use(frame[5], frame[7]):
                return _NOTHING
            is_decoding = True
            return self.decode(frame[1], rest[frame[3] + frame[6] :], frame[4])
        except BaseException:
            if one and not is_decoding:
                self._kept.appendleft(one[0])
            raise

    # ---- many ----------------------------------------------------------------------------------

    def _take_items(self, batch: _Decoded, room: Room, most: int, block: bool, deadline: int) -> None:
        while (missing := most - len(batch.results)) > 0:
            if self._kept:
                batch.add(self._take_kept)
                continue
            batch.begin(room)
            status = self.try_take(room, missing)
            if status not in (OK, LARGE) and batch.results:
                return  # what came is worth more than waiting; the next call sees the status
            if status == BUSY or (status == EMPTY and block):
                status = self._wait_for_frames(room, most, deadline)
            if status == OK:
                batch.decode_all()
            elif batch.results:
                return  # a large one can fail: it gets a call of its own
            else:
                self._take_special(room, status, deadline, most)

    # ---- from the native core ------------------------------------------------------------------

    def try_take(self, room: Room, limit: int, group: int = QUEUE_GROUP) -> int:
        """rp_try_take(), out of storage too."""
        status: int = lib.rp_try_take(self.log, group, room.buffer, room.size, limit, room.taken)
        while status == COLD:
            status = take_cold(self, group, room, limit)
            if status == EMPTY:
                status = lib.rp_try_take(self.log, group, room.buffer, room.size, limit, room.taken)
        return status

    def _wait_for_frames(self, room: Room, limit: int, deadline: int | None) -> int:
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

    def _take_special(self, room: Room, status: int, deadline: int, limit: int) -> None:
        """What is to be had in another way goes to those that are kept. Raises what the status says."""
        if status == RETURNED_FIRST:
            self._take_returned(limit)
        elif status == LARGE:
            self._take_large(room.taken, deadline)
        else:
            raise self.fail(status, "get")

    def _take_returned(self, limit: int) -> None:
        """What was given back, taken for good. None if another consumer was faster."""
        group = self._group_of(QUEUE_GROUP)
        try:
            messages = group.receive(limit, 0, False)
        except Empty:
            return
        taken = [each.as_taken() for each in messages]
        try:
            group.settle(messages)
            self._kept.extend(taken)
        except BaseException:
            settled = {*group.give_back(messages, 0, True)}  # in spite of what was raised
            kept = {each[0][4] for each in self._kept}
            self._kept.extend(
                one
                for each, one in zip(messages, taken, strict=True)
                if each in settled and each.sequence not in kept
            )
            raise

    def _take_large(self, taken: Pointer, deadline: int) -> None:
        """The large message that was announced. None if another consumer was faster."""
        frame = cast(Frame, FRAME.unpack(ffi.buffer(ffi.addressof(taken, "frame"))))
        large = Large(self, QUEUE_GROUP, frame, taken.length)
        try:
            status = large.take(deadline)
            if status == OK:
                self._kept.append((frame, large.payload()))
        except BaseException:
            if large.is_taken() and not any(each[0][4] == frame[4] for each in self._kept):
                self._kept.append((frame, large.payload()))
            raise
        finally:
            large.let_go()
        if status not in (OK, EMPTY, RETURNED_FIRST):
            raise self.fail(status, "get")

    # ---- decoding ------------------------------------------------------------------------------

    def decode(self, kind: int, body: bytes, sequence: int) -> Any:
        """The two kinds that most codecs take are decoded here, as they are encoded here."""
        if self.plain:
            if kind == KIND_BYTES:
                return body
            if kind == KIND_TEXT:
                try:
                    return body.decode()
                except UnicodeDecodeError:
                    pass  # the codec says it better
        return self.codec.decode(kind, body, sequence)

    def _is_of_no_use(self, time_ns: int, ttl_ms: int) -> bool:
        """True, and counted, if nobody wants it any more."""
        if not is_expired(time_ns, ttl_ms):
            return False
        lib.rp_count(self.log, QUEUE_GROUP, lib.RP_COUNT_EXPIRED, 1)
        return True


def _first_of(room: Room) -> Taken:
    frame = cast(Frame, FRAME.unpack_from(room.bytes))
    return frame, room.bytes[HEADER : frame[0]]


class _Decoded:
    """Items of a batch. One that cannot be decoded takes no other with it, nor does a signal while one is decoded."""

    def __init__(self, log: Taking) -> None:
        self._log = log
        self._room: Room | None = None
        self._before = 0  # results before those of the room
        self.results: list[Any] = []  # items, errors, and _NOTHING for what is of no use any more: one for each frame

    def begin(self, room: Room) -> None:
        room.taken.count = 0
        self._room = room
        self._before = len(self.results)

    def decode_all(self) -> None:
        log, results = self._log, self.results
        for kind, body, sequence, time_ns, ttl_ms in self._frames():
            if ttl_ms and log._is_of_no_use(time_ns, ttl_ms):
                results.append(_NOTHING)
                continue
            try:
                results.append(log.decode(kind, body, sequence))
            except ValueError as error:
                if not hasattr(error, "payload"):
                    raise
                results.append(_Failed(error))

    def add(self, take: Callable[[], Any]) -> None:
        try:
            self.results.append(take())
        except ValueError as error:
            if not hasattr(error, "payload"):
                raise
            self.results.append(_Failed(error))

    def _frames(self) -> Iterator[tuple[int, bytes, int, int, int]]:
        at, room = 0, self._room
        if room is None:
            return
        for _ in range(room.taken.count):
            size, kind, _, subject_len, sequence, time_ns, headers_len, ttl_ms = FRAME.unpack_from(room.bytes, at)
            body = room.bytes[at + HEADER + subject_len + headers_len : at + size]
            yield kind, body, sequence, time_ns, ttl_ms
            at += align(size)

    def result(self) -> list[Any]:
        """Raises the first DecodeError, which has all the others, and the items."""
        items = [each for each in self.results if type(each) is not _Failed and each is not _NOTHING]
        errors = [each.error for each in self.results if type(each) is _Failed]
        if errors:
            errors[0].items = items
            errors[0].more = errors[1:]
            raise errors[0]
        return items

    def tell(self, error: BaseException) -> None:
        """What was taken by a call that fails."""
        items = [each for each in self.results if type(each) is not _Failed and each is not _NOTHING]
        undecoded = [body for _, body, *_ in self._frames()][len(self.results) - self._before :]
        if items or undecoded:
            error.items = items  # type: ignore[attr-defined]
            error.payloads = undecoded  # type: ignore[attr-defined]


class _Failed:
    def __init__(self, error: Any) -> None:
        self.error = error
