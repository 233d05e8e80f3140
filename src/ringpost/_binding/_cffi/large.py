"""A large message of a queue, taken for good: pinned where it lies, copied, or out of storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ringpost._binding._cffi.cold import skip_large
from ringpost._binding._cffi.native import COLD, EMPTY, INTERRUPTED, NO_SLOT, OK, Frame, Pointer, ffi, lib
from ringpost._binding._cffi.place import Pin

if TYPE_CHECKING:
    from ringpost._binding._cffi.handle import Handle


_new: Any = ffi.new_allocator(should_clear_after_alloc=False)


class Large:
    """One that RP_LARGE announced. It can be asked at every moment whether it is ours: see taking.py."""

    def __init__(self, log: Handle, group: int, frame: Frame, length: int, in_place: bool) -> None:
        self._log = log
        self._group = group
        self._frame = frame
        self._length = length
        self._copy: Pointer = None if in_place else _new("char[]", length)
        self._is_copied: Pointer = ffi.new("bool *")
        self._stored: bytes | None = None
        self.pin = Pin(log)

    def take(self, deadline: int) -> int:
        """RP_OK; RP_EMPTY, RP_RETURNED_FIRST: another consumer was faster; or what is wrong."""
        while True:
            status = self._take(deadline)
            if status == COLD:
                status = self._take_cold(deadline)
            if status == NO_SLOT and self._copy is None:
                self._copy = _new("char[]", self._length)
            elif status == INTERRUPTED:
                self._log.interrupted()
            else:
                return status

    def _take(self, deadline: int) -> int:
        log, what = self._log.log, (self._group, self._frame[4], self._length)
        if self._copy is None:
            return int(lib.rp_take_pinned(log, *what, deadline, self.pin.pin))
        return int(lib.rpc_take_large(log, *what, self._copy, deadline, self._is_copied))

    def _take_cold(self, deadline: int) -> int:
        payload = self._log.need_storage().payload(self._frame[4], self._length)
        if payload is None:
            return EMPTY
        status = skip_large(self._log, self._group, self._frame[4], deadline)
        if status == OK:
            self._stored = payload
        return status

    def is_taken(self) -> bool:
        return bool(self.pin) or self._is_copied[0] or self.is_stored()

    def is_stored(self) -> bool:
        """It comes out of storage, where nobody looks at subjects."""
        return self._stored is not None

    def payload(self) -> bytes:
        """Subject, headers and body."""
        if self._stored is not None:
            return self._stored
        return self.pin.copy() if self.pin else bytes(ffi.buffer(self._copy))
