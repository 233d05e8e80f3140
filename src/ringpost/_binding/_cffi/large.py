"""A large message of a queue, taken for good: pinned where it lies, copied, or out of storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ringpost._binding._cffi.cold import skip_large
from ringpost._binding._cffi.native import COLD, EMPTY, INTERRUPTED, NO_SLOT, OK, Frame, ffi, lib
from ringpost._binding._cffi.place import Pin

if TYPE_CHECKING:
    from ringpost._binding._cffi.handle import Handle


class Large:
    """One that RP_LARGE announced. It can be asked at every moment whether it is ours: see taking.py."""

    def __init__(self, log: Handle, group: int, frame: Frame, length: int) -> None:
        self._log = log
        self._group = group
        self._frame = frame
        self._length = length
        self.pin = Pin(log)
        self._copy: bytearray | bytes | None = None
        self._is_copied = False
        self._is_stored = False

    def take(self, deadline: int) -> int:
        """RP_OK; RP_EMPTY, RP_RETURNED_FIRST: another consumer was faster; or what is wrong."""
        log, sequence = self._log.log, self._frame[4]
        while True:
            status: int
            if self._copy is None:
                status = lib.rp_take_pinned(log, self._group, sequence, self._length, deadline, self.pin.pin)
            else:
                data = ffi.from_buffer(self._copy)
                status = lib.rp_take_large(
                    log, self._group, sequence, self._length, ffi.NULL, 0, data, deadline
                )
                self._is_copied = status == OK
            if status == COLD:
                status = self._take_cold(deadline)
            if status == NO_SLOT and self._copy is None:
                self._copy = bytearray(self._length)
            elif status != INTERRUPTED:
                return status
            else:
                self._log.interrupted()

    def _take_cold(self, deadline: int) -> int:
        payload = self._log.need_storage().payload(self._frame[4])
        if payload is None:
            return EMPTY
        status = skip_large(self._log, self._group, self._frame[4], deadline)
        if status == OK:
            self._copy, self._is_copied, self._is_stored = payload, True, True
        return status

    def is_taken(self) -> bool:
        return self._is_copied or bool(self.pin)

    def is_from_ring(self) -> bool:
        """Not out of storage, where nobody looks at subjects."""
        return not self._is_stored

    def payload(self) -> bytes:
        """Subject, headers and body."""
        if self.pin:
            return self.pin.copy()
        assert self._copy is not None
        return bytes(self._copy)

    def let_go(self) -> None:
        self.pin.end()
