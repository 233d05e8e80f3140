"""Putting messages into a log."""

from __future__ import annotations

from collections.abc import Iterable
from struct import error as StructError
from typing import Any

from ringpost._binding._cffi.handle import Handle
from ringpost._binding._cffi.native import (
    BUSY,
    FRAME,
    FULL,
    HEADER,
    INLINE_MAX,
    INTERRUPTED,
    KIND_BYTES,
    KIND_TEXT,
    NOW,
    OK,
    STALLED,
    Pointer,
    align,
    deadline_of,
    ffi,
    lib,
    seconds_of,
)
from ringpost._binding._cffi.rooms import BATCH_BUFFER


class Putting(Handle):
    __slots__ = ()

    def put(
        self,
        item: object,
        block: bool = True,
        timeout: float | None = None,
        *,
        durability: str | None = None,
    ) -> None:
        if durability is not None:
            self.check_durability(durability)
        self._put_item(item, block, timeout)
        if self.is_stored:
            self.confirm(durability, block, timeout)

    def put_nowait(self, item: object) -> None:
        self._put_item(item, False, None)
        if self.is_stored:
            self.confirm(None, False, None)

    def send(
        self,
        item: object,
        subject: bytes | None = None,
        headers: bytes | None = None,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> None:
        self.check_open()
        if durability is not None:
            self.check_durability(durability)
        if timeout is not None and block:
            seconds_of(timeout)
        kind, body = self._encode(item)
        self._put_message(kind, body, subject, headers, ttl_ms, block, timeout)
        if self.is_stored:
            self.confirm(durability, block, timeout)

    def encode(self, item: object) -> tuple[int, bytes]:
        """(kind, body) as it would travel, for send_raw()."""
        kind, buffer = self._encode(item)
        return int(kind), bytes(buffer)

    def send_raw(
        self,
        kind: int,
        payload: Any,
        subject: bytes | None = None,
        headers: bytes | None = None,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
        beyond: bool = False,
    ) -> None:
        """A body that was encoded before; `beyond`: also into a queue that has its maxsize."""
        self.check_open()
        if durability is not None:
            self.check_durability(durability)
        self._put_message(kind, payload, subject, headers, ttl_ms, block, timeout, beyond)
        if self.is_stored:
            self.confirm(durability, block, timeout)

    def put_many(
        self,
        items: Iterable[object],
        block: bool = True,
        timeout: float | None = None,
        *,
        durability: str | None = None,
    ) -> int:
        return self._put_all(((item, None, None, 0) for item in items), block, timeout, durability)

    def send_many(
        self,
        items: Iterable[tuple[object, bytes | None, bytes | None, int]],
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> int:
        return self._put_all(items, block, timeout, durability)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until storage, if there is any, has everything that was put."""
        self.check_open()
        if self.is_stored:
            self.need_storage().flush(timeout)

    # ---- one message ---------------------------------------------------------------------------

    def _encode(self, item: object) -> tuple[int, Any]:
        if self.plain:
            if type(item) is bytes:
                return KIND_BYTES, item
            if type(item) is str and item.isascii():
                return KIND_TEXT, item.encode()
        kind, body = self.codec.encode(item)
        return kind, b"".join(body) if type(body) is tuple else body

    def _put_item(self, item: object, block: bool, timeout: float | None) -> None:
        self.check_open()
        block = bool(block)
        if timeout is not None and block:
            seconds_of(timeout)
        kind, body = self._encode(item)
        if type(body) is bytes and len(body) <= INLINE_MAX:
            status = lib.rpc_try_put(self.log, kind, body, len(body))
            if status == OK:
                return
            if status != BUSY and (status != FULL or not (block or self.is_stored)):
                raise self.fail(status, "put", len(body))
        self._put_message(kind, body, None, None, 0, block, timeout)

    def _put_message(
        self,
        kind: int,
        body: Any,
        subject: bytes | None,
        headers: bytes | None,
        ttl_ms: int,
        block: bool,
        timeout: float | None,
        beyond: bool = False,
    ) -> None:
        with ffi.from_buffer(body) as data:
            message = message_of(kind, data, subject, headers, ttl_ms)
            message.beyond = beyond
            if length_of(message) > INLINE_MAX:
                self.put_large(message, deadline_of(block, timeout), ffi.new("rp_loan *"))
            else:
                self._put_small(message, block, timeout)

    def _put_small(self, message: Pointer, block: bool, timeout: float | None) -> None:
        status = lib.rp_try_put(self.log, message)
        if status == OK:
            return
        if status == FULL and self.made_room():
            status = lib.rp_try_put(self.log, message)
        if status == BUSY or (status == FULL and block):
            deadline = deadline_of(block, timeout)
            while (status := lib.rp_put(self.log, message, deadline)) == INTERRUPTED:
                self.interrupted()
                self.made_room()
        if status != OK:
            raise self.fail(status, "put", message.body_len)

    def put_large(self, message: Pointer, deadline: int, loan: Pointer) -> None:
        """`loan`: an empty one; afterwards is_sent() of it says what became of it."""
        try:
            self.borrow_into(loan, length_of(message), deadline, length_of(message))
            lib.rpc_copy_parts(loan.data, message)
            self.commit_loan(loan, message, deadline, length_of(message))
        finally:
            lib.rpc_abort(self.log, loan)

    def borrow_into(self, loan: Pointer, room: int, deadline: int, size: int) -> None:
        """The caller sees to rpc_abort(), whatever comes out of here."""
        while True:
            status = lib.rp_borrow(self.log, room, NOW if self.is_stored else deadline, loan)
            if status in (FULL, STALLED) and self.is_stored:
                if status == FULL and self.made_room():
                    continue
                status = lib.rp_borrow(self.log, room, deadline, loan)
            if status == OK:
                return
            if status != INTERRUPTED:
                raise self.fail(status, "put", size)
            self.interrupted()

    def commit_loan(self, loan: Pointer, parts: Pointer, deadline: int, size: int) -> None:
        while (status := lib.rpc_commit(self.log, loan, parts, deadline)) != OK:
            if status == INTERRUPTED:
                self.interrupted()
                self.made_room()
            elif not (status == FULL and self.made_room()):
                raise self.fail(status, "put", size)

    # ---- many ----------------------------------------------------------------------------------

    def _put_all(
        self,
        items: Iterable[tuple[object, bytes | None, bytes | None, int]],
        block: bool,
        timeout: float | None,
        durability: str | None,
    ) -> int:
        self.check_open()
        if durability is not None:
            self.check_durability(durability)
        batch = _Batch(self, block, timeout)
        try:
            for item, subject, headers, ttl_ms in items:
                batch.add(item, subject, headers, ttl_ms)
            batch.flush()
            if self.is_stored:
                self.confirm(durability, block, timeout)
            return batch.done()
        except BaseException as error:
            tell_how_many(error, batch.done())
            raise


def tell_how_many(error: BaseException, done: int) -> None:
    try:
        error.put = done  # type: ignore[attr-defined]
    except AttributeError:
        pass


def message_of(
    kind: int, data: Pointer, subject: bytes | None, headers: bytes | None, ttl_ms: int
) -> Pointer:
    """An rp_message; good as long as what it is made of."""
    message = ffi.new("rp_message *")
    message.kind = kind
    message.ttl_ms = ttl_ms
    message.body = data
    message.body_len = len(data)
    if subject is not None:
        message.subject = ffi.from_buffer(_checked(subject))
        message.subject_len = len(subject)
    if headers is not None:
        message.headers = ffi.from_buffer(_checked(headers))
        message.headers_len = len(headers)
    return message


def _checked(part: object) -> bytes:
    if not isinstance(part, bytes):
        raise TypeError(f"subject and headers are bytes, not {type(part).__name__}")
    return part


def is_sent(loan: Pointer) -> bool:
    """It was borrowed, and ended by rpc_commit(): see calls.h."""
    return bool(loan.length) and not loan.data


def length_of(message: Pointer) -> int:
    return int(message.subject_len + message.headers_len + message.body_len)


class _Batch:
    """Prepared frames in private memory, on their way to the log."""

    def __init__(self, log: Putting, block: bool, timeout: float | None) -> None:
        self._log = log
        self._block = block
        self._timeout = timeout
        self._deadline = deadline_of(block, timeout)
        self._frames: Pointer = ffi.new("char[]", BATCH_BUFFER)
        self._bytes: Pointer = ffi.buffer(self._frames)
        self._used = 0
        self._count = 0
        # the native core's word on what went in: good at every moment, whatever a signal handler raises
        self._counts: list[Pointer] = []
        self._loans: list[Pointer] = []

    def done(self) -> int:
        """How many went in."""
        return int(sum(each[0] for each in self._counts)) + sum(map(is_sent, self._loans))

    def add(self, item: object, subject: bytes | None, headers: bytes | None, ttl_ms: int) -> None:
        kind, body = self._log._encode(item)
        if type(body) is not bytes:
            body = ffi.buffer(ffi.from_buffer(body))
        before = b"" if subject is None else _checked(subject)
        subject_len = len(before)
        if headers is not None:
            before += _checked(headers)
        size = HEADER + len(before) + len(body)
        if size > HEADER + INLINE_MAX:
            self._add_large(kind, body, subject, headers, ttl_ms)
            return
        if self._used + align(size) > BATCH_BUFFER:
            self.flush()
        at = self._used
        try:
            FRAME.pack_into(
                self._bytes, at, size, kind, 0, subject_len, 0, 0, len(before) - subject_len, ttl_ms
            )
        except StructError:
            ffi.new("rp_frame *", {"kind": kind, "ttl_ms": ttl_ms})  # raises TypeError or OverflowError
            raise
        if before:
            self._bytes[at + HEADER : at + HEADER + len(before)] = before
        self._bytes[at + HEADER + len(before) : at + size] = body
        self._used += align(size)
        self._count += 1

    def _add_large(
        self, kind: int, body: Any, subject: bytes | None, headers: bytes | None, ttl_ms: int
    ) -> None:
        self.flush()
        self._loans.append(ffi.new("rp_loan *"))
        with ffi.from_buffer(body) as data:
            message = message_of(kind, data, subject, headers, ttl_ms)
            self._log.put_large(message, self._deadline, self._loans[-1])

    def flush(self) -> None:
        log, at = self._log, 0
        if self._deadline <= NOW:
            self._deadline = deadline_of(False, self._timeout)  # the items may have taken their time
        done_bytes = ffi.new("size_t *")
        while self._count:
            done = ffi.new("uint32_t *")
            self._counts.append(done)
            status = lib.rp_try_put_frames(
                log.log, self._frames + at, self._used, self._count, done, done_bytes
            )
            if status == FULL and log.made_room():
                continue
            while status in (BUSY, INTERRUPTED) or (status == FULL and self._deadline > NOW):
                if status == INTERRUPTED:
                    log.interrupted()
                    log.made_room()
                status = lib.rp_put_frames(
                    log.log, self._frames + at, self._used, self._count, self._deadline, done, done_bytes
                )
                if status == FULL:
                    break
            if status != OK:
                raise log.fail(status, "put")
            at += done_bytes[0]
            self._used -= done_bytes[0]
            self._count -= done[0]
        self._used = 0
