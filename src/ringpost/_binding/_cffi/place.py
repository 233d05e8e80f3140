"""Payloads in place: what is written or read in shared memory itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, final

from ringpost._binding._cffi.ending import Owner
from ringpost._binding._cffi.native import OK, Pointer, deadline_of, ffi, lib

if TYPE_CHECKING:
    from ringpost._binding._cffi.handle import Handle
    from ringpost._binding._cffi.log import Log

_LEAST_LOAN = 16385  # bytes: three granules, so that it can be pinned by its maker and its receiver

View = memoryview
"""A received payload where it lies: it stays as it is while this, or what was made of it, is there."""


def memory_of(owner: Owner, data: Pointer, size: int) -> memoryview:
    """A buffer that keeps `owner`; so does every buffer made of it."""
    keeping = partial(getattr, owner, "end")  # any function of C that refers to it, and does nothing
    return memoryview(ffi.buffer(ffi.gc(ffi.cast("char *", data), keeping), size))


class Pin:
    """An rp_pin, empty at first, that ends with the last who refers to its owner."""

    __slots__ = ("_log", "owner", "pin")

    def __init__(self, log: Handle) -> None:
        self.pin: Pointer = ffi.new("rp_pin *")
        self._log = log
        self.owner = Owner(partial(lib.rpc_unpin, log.log, self.pin), log.owner)

    def __bool__(self) -> bool:
        return bool(self.pin.data)

    def view(self, before: int) -> memoryview:
        """The bytes behind the first `before`."""
        data = ffi.cast("char *", self.pin.data) + before
        return memory_of(self.owner, data, self.pin.length - before).toreadonly()

    def copy(self) -> bytes:
        return bytes(ffi.buffer(self.pin.data, self.pin.length))

    def end(self) -> None:
        lib.rpc_unpin(self._log.log, self.pin)


# ---- loans -----------------------------------------------------------------------------------------


@final
class Loan:
    """Room for one message in shared memory, sent by commit(). While this object, or what was made of its
    buffer, is there, the room is used for nothing else."""

    __slots__ = ("_buffer", "_is_aborted", "_loan", "_log", "_pin")

    _log: Log
    _loan: Pointer
    _pin: Pin
    _buffer: memoryview
    _is_aborted: bool

    def __init__(self) -> None:
        raise TypeError("loans are borrowed, not made: see Log.borrow()")

    @property
    def open(self) -> bool:
        """Neither committed nor aborted."""
        return not self._is_aborted and bool(self._loan.data)

    @property
    def buffer(self) -> memoryview:
        return self._buffer if self.open else self._buffer.toreadonly()

    def commit(
        self,
        kind: int,
        subject_len: int = 0,
        headers_len: int = 0,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> None:
        """Send it: subject, headers and body lie in it behind one another. It stays open if this raises, but
        for storage's errors, after which it is sent."""
        log = self._log
        log.check_open()
        if durability is not None:
            log.check_durability(durability)
        deadline = deadline_of(block, timeout)
        if not self.open:
            raise ValueError("this loan was committed or aborted before")
        parts = ffi.new("rp_message *")
        parts.kind = kind
        parts.ttl_ms = ttl_ms
        parts.subject_len = subject_len
        parts.headers_len = headers_len
        if lib.rp_pin_loan(log.log, self._loan, self._pin.pin) != OK:
            raise ValueError("this loan is its parent process's, or it was committed or aborted before")
        try:
            log.commit_loan(self._loan, parts, deadline, self._loan.length)
        except BaseException:
            if self._loan.data:
                self._pin.end()
            raise
        if log.is_stored:
            log.confirm(durability, block, timeout)

    def abort(self) -> None:
        """Send nothing. The room is free once nobody has a buffer of it."""
        self._is_aborted = True


def borrow(log: Log, size: int, deadline: int) -> Loan:
    pin = Pin(log)
    room = ffi.new("rp_loan *")
    owner = Owner(partial(lib.rpc_abort, log.log, room), pin.owner)  # a loan that was sent is pinned
    log.borrow_into(room, max(size, _LEAST_LOAN), deadline, size)
    room.length = size
    loan = Loan.__new__(Loan)
    loan._log = log
    loan._loan = room
    loan._pin = pin
    loan._buffer = memory_of(owner, room.data, size)
    loan._is_aborted = False
    return loan
