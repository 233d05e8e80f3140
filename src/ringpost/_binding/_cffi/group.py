"""Groups: cursors which any number of consumers share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

from ringpost._binding._cffi.cold import receive_cold
from ringpost._binding._cffi.delivery import NO_RECEIPT, Delivery, HandOver, frame_of, move_some
from ringpost._binding._cffi.handle import group_fields
from ringpost._binding._cffi.large import Large
from ringpost._binding._cffi.native import (
    BUSY,
    COLD,
    EMPTY,
    FRAME,
    HEADER,
    INTERRUPTED,
    INVALID,
    LARGE,
    LOST,
    NO_SLOT,
    NOT_FOUND,
    OK,
    PATIENCE,
    RECEIPT,
    RETURNED_FIRST,
    TOO_SMALL,
    Frame,
    Pointer,
    align,
    batch_limit,
    deadline_of,
    ffi,
    fields_of,
    layout_of,
    lib,
    monotonic_ns,
    nanoseconds,
    patience_of,
)
from ringpost._binding._cffi.place import Pin
from ringpost._binding._cffi.rooms import DEFAULT_BATCH, Room, borrow_room, give_back_room
from ringpost._binding._cffi.watch import Watch, open_watch
from ringpost.errors import Empty

if TYPE_CHECKING:
    from ringpost._binding._cffi.log import Log

M = TypeVar("M")

_DESCRIPTOR = layout_of("rp_descriptor")


@final
class Group:
    """A cursor on a log which any number of consumers share."""

    __slots__ = ("__weakref__", "_is_stopped", "_kept", "_lost", "handle", "log")

    log: Log
    handle: int
    _is_stopped: bool  # by interrupt()
    _lost: deque[int]  # frames that were overwritten, and of which no message has told yet
    _kept: deque[Any]  # taken for good by a call that a signal handler ended: the next one's

    def __init__(self) -> None:
        raise TypeError("groups are opened, not made: see Log.open_group()")

    # ---- receiving -----------------------------------------------------------------------------

    def receive(
        self,
        limit: int = 1,
        lease: float = 0,
        block: bool = True,
        timeout: float | None = None,
        message_type: type[M] = Delivery,  # type: ignore[assignment]
        into: Any = None,
        holder: Any = None,
    ) -> list[M]:
        """Messages that stay in the log until they are settled; at least one, or Empty. They are in `into`,
        or given back, before a signal handler's exception leaves this call."""
        most, lease_ns = batch_limit(limit), nanoseconds(lease)
        self.log.check_open()
        most = min(most, DEFAULT_BATCH)
        if most == 0:
            return []
        deadline = deadline_of(block, timeout)
        self.log.look_at_alarm()
        hand_over = HandOver(into, holder)
        messages: list[Any] = []
        room = borrow_room(most)
        try:
            while not messages:
                self._receive_leased(room, most, lease_ns, block, deadline)
                messages = self._unpack_leased(room, message_type)
            give_back_room(room)
            return hand_over.do(messages)
        except BaseException:
            if not hand_over.is_done():
                if messages:
                    self._give_back(receipts_of(messages), len(messages), 0, True)
                elif room.taken.count:
                    self._give_back(room.receipts, room.taken.count, 0, True)
            raise

    def _receive_leased(self, room: Room, limit: int, lease: int, block: bool, deadline: int) -> None:
        """Fill the room. Raises what the status says."""
        log, where = self.log, (room.buffer, room.size, limit, lease, room.receipts)
        status = lib.rp_try_receive(log.log, self.handle, *where, room.taken)
        while status in (BUSY, INTERRUPTED, COLD) or (status == EMPTY and block):
            if status == COLD:
                status = receive_cold(log, self.handle, room, limit, lease)
                if status == EMPTY:
                    status = lib.rp_try_receive(log.log, self.handle, *where, room.taken)
                continue
            status = lib.rp_receive(log.log, self.handle, *where, deadline, room.taken)
            if status == INTERRUPTED:
                self._look_around()
            elif status != COLD:
                break
        if status != OK:
            raise log.fail(status, "receive from")

    def _unpack_leased(self, room: Room, message_type: Any) -> list[Any]:
        messages: list[Any] = []
        at, data, receipts = 0, room.bytes, room.receipt_bytes
        for i in range(room.taken.count):
            frame = cast(Frame, FRAME.unpack_from(data, at))
            size, flags = frame[0], frame[2]
            message = message_type.__new__(message_type)
            message._fill(self, frame, receipts[i * RECEIPT.size : (i + 1) * RECEIPT.size])
            if not flags:
                message._fill_parts(data, at + HEADER, at + size)
                messages.append(message)
            elif not flags & lib.RP_FRAME_VOID and self._fill_large(message, room, i, at):
                messages.append(message)
            else:
                self.settle_one(message)  # no longer ours, or not wanted
            at += align(size)
        if self.log.is_stored and any(each.deliveries > 1 for each in messages):
            return self.log.need_storage().handed_out_again(self, messages)
        return messages

    def _fill_large(self, message: Delivery, room: Room, number: int, at: int) -> bool:
        """False: it is no longer ours, or not wanted."""
        log, frame, receipt = self.log, ffi.cast("rp_frame *", room.buffer + at), room.receipts + number
        pin = Pin(log)
        status = lib.rp_pin_received(log.log, self.handle, receipt, frame, pin.pin)
        if status == OK:
            message._fill_pinned(pin)
            return True
        payload: bytes | None = None
        length = _DESCRIPTOR.unpack_from(room.bytes, at + HEADER)[0]
        if status == NO_SLOT:
            copy = bytearray(length)
            with ffi.from_buffer(copy) as memory:
                status = lib.rp_read_large(log.log, self.handle, receipt, frame, memory, length)
            payload = bytes(copy)
        if status == NOT_FOUND:
            return False
        if status == COLD:
            payload = log.need_storage().payload(frame.sequence, length)
            if payload is None:
                if self.holds(message):
                    raise log.need_storage().missing_payload(frame.sequence)
                return False  # the lease ended meanwhile, and somebody else settled it
            if not self._wants_stored(payload, frame.subject_len):
                return False
        elif status != OK:
            raise log.fail(status, "receive from")
        assert payload is not None
        message._fill_parts(payload, 0, len(payload))
        return True

    def _wants_stored(self, payload: bytes, subject_len: int) -> bool:
        """Not if compaction took it: it is empty then."""
        return bool(payload) and self._wants(payload[:subject_len])

    def _wants(self, subject: bytes) -> bool:
        """The subjects of large messages in storage are not seen by those who pass messages over."""
        pattern = self.info()["pattern"].encode()
        return not pattern or bool(lib.rp_subject_matches(pattern, len(pattern), subject, len(subject)))

    def _look_around(self) -> None:
        """Between two slices of a wait."""
        self.log.interrupted()
        if self._is_stopped:
            raise ValueError(f"{self.log.label}: this consumer was closed before")

    def interrupt(self) -> None:
        """Calls that wait in this object, in other threads, raise ValueError."""
        self._is_stopped = True
        lib.rp_wake_all(self.log.log)

    def watch(self, timed: bool = False) -> Watch:
        return open_watch(self.log, lib.RP_WATCH_FRAMES, self.handle, timed)

    # ---- taking for good -----------------------------------------------------------------------

    def take(
        self,
        limit: int = 1,
        block: bool = True,
        timeout: float | None = None,
        message_type: type[M] = Delivery,  # type: ignore[assignment]
        into: Any = None,
        holder: Any = None,
    ) -> list[M]:
        """Messages that are taken for good; at least one, or Empty. They are in `into`, or kept for the next
        call, before a signal handler's exception leaves this one."""
        most = min(batch_limit(limit), DEFAULT_BATCH)
        self.log.check_open()
        if most == 0:
            return []
        deadline = deadline_of(block, timeout)
        self.log.look_at_alarm()
        hand_over = HandOver(into, holder)
        landed: deque[Any] = deque()
        room = borrow_room(most)
        try:
            if self._kept:
                move_some(self._kept, landed, most)
            while not landed:
                self._take_into(landed, room, most, block, deadline, message_type)
            give_back_room(room)
            return hand_over.do(list(landed))
        except BaseException:
            if not hand_over.is_done():
                self._keep(landed or self._unpack_taken(room, message_type))
            raise

    def _keep(self, landed: Iterable[Any]) -> None:
        """What is ours, and was not handed over."""
        unsettled = {each for each in landed if not each.settled}
        given_back = unsettled.difference(
            self.give_back(unsettled, 0, True)
        )  # the others were settled just now
        self._kept.extend(each for each in landed if each not in given_back)

    def _take_into(
        self,
        landed: deque[Any],
        room: Room,
        limit: int,
        block: bool,
        deadline: int,
        message_type: Any,
    ) -> None:
        """Nothing, if others were faster. Raises what the status says."""
        log = self.log
        status = log.try_take(room, limit, self.handle)
        self._note_lost(room)
        while status in (BUSY, INTERRUPTED, COLD) or (status == EMPTY and block):
            if status == COLD:
                status = log.try_take(room, limit, self.handle)
                continue
            status = lib.rp_take(log.log, self.handle, room.buffer, room.size, limit, deadline, room.taken)
            self._note_lost(room)
            if status == INTERRUPTED:
                self._look_around()
            elif status != COLD:
                break
        if status == OK:
            log.note_settled()
            landed.extend(self._unpack_taken(room, message_type))
        elif status == TOO_SMALL:
            self._take_with_room(landed, room.taken.need, limit, deadline, message_type)
        elif status == RETURNED_FIRST:
            try:
                self.receive(limit, 0, False, None, message_type, landed)
            except Empty:
                return
            self.settle(landed)
        elif status == LARGE:
            self._take_large(landed, room.taken, deadline, message_type)
            log.note_settled()
        else:
            raise log.fail(status, "receive from")

    def _take_with_room(
        self, landed: deque[Any], size: int, limit: int, deadline: int, message_type: Any
    ) -> None:
        """A lossy group hands large messages out whole: try again with a buffer that holds this one."""
        room = Room(size, limit)
        try:
            self._take_into(landed, room, limit, True, deadline, message_type)
        except BaseException:
            if not landed:
                landed.extend(self._unpack_taken(room, message_type))
            raise

    def _take_large(self, landed: deque[Any], taken: Pointer, deadline: int, message_type: Any) -> None:
        """None, if another consumer was faster."""
        frame = cast(Frame, FRAME.unpack(ffi.buffer(ffi.addressof(taken, "frame"))))
        large = Large(self.log, self.handle, frame, taken.length, True)
        try:
            status = large.take(deadline)
            if status == OK and (not large.is_stored() or self._wants_stored(large.payload(), frame[3])):
                landed.append(self._large_message(large, frame, message_type))
        except BaseException:
            if large.is_taken() and not landed:
                landed.append(self._large_message(large, frame, message_type))
            raise
        if status not in (OK, EMPTY, RETURNED_FIRST):
            raise self.log.fail(status, "receive from")

    def _large_message(self, large: Large, frame: Frame, message_type: Any) -> Any:
        message = self._taken_message(frame, message_type)
        if large.pin:
            message._fill_pinned(large.pin)
        else:
            payload = large.payload()
            message._fill_parts(payload, 0, len(payload))
        return message

    def _unpack_taken(self, room: Room, message_type: Any) -> list[Any]:
        messages: list[Any] = []
        at, data = 0, room.bytes
        for _ in range(room.taken.count):
            frame = cast(Frame, FRAME.unpack_from(data, at))
            if not frame[2] & lib.RP_FRAME_VOID:
                message = self._taken_message(frame, message_type)
                message._fill_parts(data, at + HEADER, at + frame[0])
                messages.append(message)
            at += align(frame[0])
        if messages and self._lost:
            messages[0].lost = self._all_lost()
        return messages

    def _taken_message(self, frame: Frame, message_type: Any) -> Any:
        message = message_type.__new__(message_type)
        message._fill(self, frame, NO_RECEIPT)
        message.settled = True
        return message

    def _note_lost(self, room: Room) -> None:
        lost = room.taken.lost
        if lost:
            self._lost.append(lost)

    def _all_lost(self) -> int:
        total = 0
        try:
            while True:
                total += self._lost.popleft()  # each by one thread
        except IndexError:
            return total

    def restore(
        self,
        message_type: type[M],
        kind: int,
        payload: bytes,
        subject: bytes | None,
        headers: bytes | None,
        sequence: int,
        time_ns: int,
    ) -> M:
        """A message that was kept elsewhere."""
        frame = frame_of(kind, payload, subject, headers, sequence, time_ns)
        message = self._taken_message(frame, message_type)
        message._payload = payload
        message._subject = subject
        message.raw_headers = headers
        return cast(M, message)

    # ---- settling ------------------------------------------------------------------------------

    def settle_one(self, message: Any, patience: float | None = None) -> bool:
        """Ack one. False: it is no longer ours."""
        lost = self._settle(receipts_of([message]), 1, patience_of(patience))
        message._end()
        return lost == 0

    def settle(self, messages: Iterable[Any], patience: float | None = None) -> list[Any]:
        """Ack these. Returns those that were no longer ours."""
        these = list(messages)
        receipts = receipts_of(these)
        self._settle(receipts, len(these), patience_of(patience))
        for message in these:
            message._end()
        return lost_of(these, receipts)

    def _settle(self, receipts: Pointer, count: int, patience: int) -> int:
        lost = ffi.new("uint32_t *")
        deadline = monotonic_ns() + patience
        status = INTERRUPTED
        while status == INTERRUPTED:
            status = lib.rp_settle(self.log.log, self.handle, receipts, count, deadline, lost)
        if status != OK:
            raise self.log.fail(status, "acknowledge in")
        self.log.note_settled()
        return int(lost[0])

    def give_back(
        self,
        messages: Iterable[Any],
        delay: float = 0,
        unseen: bool = False,
        wait: bool = True,
        patience: float | None = None,
    ) -> list[Any]:
        """Hand these out again, after `delay` seconds. Returns those that were no longer ours."""
        these = list(messages)
        receipts = receipts_of(these)
        self._give_back(
            receipts, len(these), nanoseconds(delay), bool(unseen), patience_of(patience) if wait else 0
        )
        for message in these:
            message._end()
        return lost_of(these, receipts)

    def _give_back(
        self, receipts: Pointer, count: int, delay: int, unseen: bool, patience: int = PATIENCE
    ) -> None:
        lost, done = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        deadline = monotonic_ns() + patience
        while count:
            status = lib.rp_give_back(
                self.log.log, self.handle, receipts, count, delay, unseen, deadline, lost, done
            )
            receipts += done[0]
            count -= done[0]
            if status not in (OK, INTERRUPTED):
                raise self.log.fail(status, "give messages back to")

    def extend(self, message: Any, seconds: float | None, patience: float | None = None) -> bool:
        """Hold it that much longer from now; None: until this process ends. False: no longer ours."""
        lease = 0 if seconds is None else nanoseconds(seconds)
        deadline = monotonic_ns() + patience_of(patience)
        receipt = receipts_of([message])
        status = INTERRUPTED
        while status == INTERRUPTED:
            status = lib.rp_extend(self.log.log, self.handle, receipt, lease, deadline)
        return self._is_held(status, "extend a lease of")

    def holds(self, message: Any) -> bool:
        """Is it still ours to settle?"""
        receipt = receipts_of([message])
        status = lib.rp_holds(self.log.log, self.handle, receipt, monotonic_ns() + PATIENCE)
        return self._is_held(status, "look at")

    def _is_held(self, status: int, operation: str) -> bool:
        if status not in (OK, NOT_FOUND):
            raise self.log.fail(status, operation)
        return status == OK

    def discard(self, sequence: int) -> bool | None:
        """Ack one in whosever hands it is. None: it was not handed out yet; False: it was settled before."""
        status = lib.rp_group_discard(self.log.log, self.handle, sequence, monotonic_ns() + PATIENCE)
        return None if status == EMPTY else self._is_held(status, "acknowledge in")

    # ---- looking -------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        self.log.check_open()
        info = ffi.new("rp_group_info *")
        status = lib.rp_get_group_info(self.log.log, self.handle, info)
        if status != OK:
            raise self.log.fail(status, "look at")
        return group_fields(info)

    def holdings(self) -> list[dict[str, Any]]:
        """What is in whose hands: a dict for each lease."""
        count = lib.rp_get_holdings(self.log.log, self.handle, ffi.NULL, 0)
        found = ffi.new("rp_holding[]", count + 1)
        count = min(count, lib.rp_get_holdings(self.log.log, self.handle, found, count))
        return [fields_of(found + i) for i in range(count)]

    def seek(self, sequence: int = 0, time_ns: int = 0) -> None:
        """Pass over messages until one has at least this sequence and time (ns since the epoch)."""
        log, handle = self.log, self.handle
        status = lib.rp_group_seek(log.log, handle, sequence, time_ns, monotonic_ns() + PATIENCE)
        while status == COLD:
            position, there = log.need_storage().find(sequence, time_ns)
            status = lib.rp_group_place(log.log, handle, position, there, monotonic_ns() + PATIENCE)
            if status == INVALID:  # it stands behind that already
                status = OK
            elif status == OK:
                status = lib.rp_group_seek(log.log, handle, sequence, time_ns, monotonic_ns() + PATIENCE)
                if status == COLD:  # it is there
                    status = OK
        if status != OK:
            raise log.fail(status, "seek in")

    def set_pattern(self, pattern: str) -> None:
        """From now on it wants these subjects: a pattern, or several with blanks between."""
        status = lib.rp_group_set_pattern(
            self.log.log, self.handle, pattern.encode(), monotonic_ns() + PATIENCE
        )
        if status != OK:
            raise self.log.fail(status, "subscribe to")

    def count_rejected(self, by: int = 1) -> None:
        lib.rp_count(self.log.log, self.handle, lib.RP_COUNT_REJECTED, by)

    def count_expired(self, by: int = 1) -> None:
        lib.rp_count(self.log.log, self.handle, lib.RP_COUNT_EXPIRED, by)

    def count_dropped(self, by: int = 1) -> None:
        lib.rp_count(self.log.log, self.handle, lib.RP_COUNT_DROPPED, by)

    # ---- ending --------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Close a group that ends with this process. Never waits."""
        lib.rp_group_abandon(self.log.log, self.handle)

    def remove(self) -> None:
        """Close the group for everybody: what it has not handed out is nobody's any more."""
        deadline = monotonic_ns() + PATIENCE
        status = INTERRUPTED
        while status == INTERRUPTED:
            status = lib.rp_group_close(self.log.log, self.handle, deadline)
        if status not in (OK, NOT_FOUND):
            raise self.log.fail(status, "unsubscribe from")


def group_of(log: Any, handle: int) -> Group:
    group = Group.__new__(Group)
    group.log = log
    group.handle = handle
    group._is_stopped = False
    group._lost = deque()
    group._kept = deque()
    return group


def receipts_of(messages: list[Any]) -> Pointer:
    """An rp_receipt for each."""
    receipts = ffi.new("rp_receipt[]", max(len(messages), 1))
    ffi.memmove(receipts, b"".join([each._receipt for each in messages]), len(messages) * RECEIPT.size)
    return receipts


def lost_of(messages: list[Any], receipts: Pointer) -> list[Any]:
    return [each for i, each in enumerate(messages) if receipts[i].entry == LOST]
