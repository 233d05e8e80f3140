"""What the other modules need of the extension: its functions, layouts of structs, deadlines."""

from __future__ import annotations

import math
import time
from struct import Struct
from typing import Any

from ringpost._binding._cffi._native import ffi as ffi
from ringpost._binding._cffi._native import lib as lib

Pointer = Any  # a C pointer or array, as cffi has it

OK: int = lib.RP_OK
EMPTY: int = lib.RP_EMPTY
FULL: int = lib.RP_FULL
BUSY: int = lib.RP_BUSY
STALLED: int = lib.RP_STALLED
INTERRUPTED: int = lib.RP_INTERRUPTED
DELETED: int = lib.RP_DELETED
TOO_LARGE: int = lib.RP_TOO_LARGE
TOO_SMALL: int = lib.RP_TOO_SMALL
LARGE: int = lib.RP_LARGE
TOO_MANY: int = lib.RP_TOO_MANY
CORRUPT: int = lib.RP_CORRUPT
NO_SLOT: int = lib.RP_NO_SLOT
NOT_FOUND: int = lib.RP_NOT_FOUND
INVALID: int = lib.RP_INVALID
RETURNED_FIRST: int = lib.RP_RETURNED_FIRST
COLD: int = lib.RP_COLD

NOW: int = lib.RP_NOW
NEVER: int = lib.RP_NEVER
INLINE_MAX: int = lib.RP_INLINE_MAX
QUEUE_GROUP: int = lib.RP_QUEUE_GROUP

KIND_BYTES = 0  # the two kinds that need no codec: see codecs.py
KIND_TEXT = 1
LOCK_GRACE = 1_000_000_000  # what a call that must not wait grants a descheduled lock holder, ns
PATIENCE = 5_000_000_000  # for a lock, where there is no timeout to go by, ns
LONGEST_WAIT = 1e9  # seconds
LOST = 0xFFFFFFFF  # a receipt's entry, when it was no longer ours

_CODES = {"uint8_t": "B", "uint16_t": "H", "uint32_t": "I", "uint64_t": "Q"}


def layout_of(name: str) -> Struct:
    """To read a struct of unsigned integers without a cdata for each."""
    fields = [field for _, field in ffi.typeof(name).fields]
    layout = Struct("=" + "".join(_CODES[field.type.cname] for field in fields))
    assert layout.size == ffi.sizeof(name), name
    return layout


FRAME = layout_of("rp_frame")
"""(size, kind, flags, subject_len, sequence, time_ns, headers_len, ttl_ms)"""
HEADER = FRAME.size
RECEIPT = layout_of("rp_receipt")
"""(entry, id, bit, deliveries)"""

Frame = tuple[int, int, int, int, int, int, int, int]

assert [name for name, _ in ffi.typeof("rp_frame").fields] == [
    *("size", "kind", "flags", "subject_len", "sequence", "time_ns", "headers_len", "ttl_ms")
]


def align(size: int) -> int:
    """As rp_align()."""
    return (size + 15) & ~15


def fields_of(struct: Pointer) -> dict[str, Any]:
    """All fields of a struct; those of chars as bytes up to the first zero."""
    found: dict[str, Any] = {}
    for name, field in ffi.typeof(struct[0]).fields:
        value = getattr(struct, name)
        found[name] = ffi.string(value) if field.type.cname.startswith("char[") else value
    return found


def is_expired(time_ns: int, ttl_ms: int) -> bool:
    return ttl_ms != 0 and time.time_ns() > time_ns + ttl_ms * 1_000_000


# ---- time ------------------------------------------------------------------------------------------

monotonic_ns = time.monotonic_ns  # the clock of rp_monotonic_ns()


def seconds_of(timeout: Any) -> float:
    seconds = math.ldexp(timeout, 0)  # a float of what is a number, and of nothing else
    if not seconds >= 0:
        raise ValueError("'timeout' must be a non-negative number")
    return seconds


def nanoseconds(seconds: Any) -> int:
    return int(min(seconds_of(seconds), LONGEST_WAIT) * 1e9)


def patience_of(seconds: Any) -> int:
    """For a lock that somebody else holds: so long it takes if they were stopped."""
    return PATIENCE if seconds is None else nanoseconds(seconds)


def deadline_of(block: bool, timeout: Any) -> int:
    """As the native core wants it. Asked for once a call, so that signals do not prolong it. A call that does
    not wait grants a lock's holder so long as `timeout`, if that is a float below a second: for event loops.
    """
    if not block:
        if type(timeout) is float and 0 <= timeout < 1:
            return -(monotonic_ns() + int(timeout * 1e9))
        return -(monotonic_ns() + LOCK_GRACE)
    if timeout is None:
        return NEVER
    if timeout == 0:
        return deadline_of(False, None)
    return monotonic_ns() + nanoseconds(timeout)


def batch_limit(limit: Any) -> int:
    if limit < 0:
        raise ValueError("'limit' must be a non-negative number")
    return int(min(limit, 0xFFFFFFFF))
