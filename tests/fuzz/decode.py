"""Any bytes as what was put or stored: a value, or the error that the documentation names. Nothing else.

The first byte of an input says what the rest is read as.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from ringpost._binding import binding
from ringpost.codecs import Kind, PickleCodec, StandardCodec, array_view
from ringpost.envelope import unseal
from ringpost.errors import DecodeError, StorageDamaged
from ringpost.store import format as form
from ringpost.store.values import PLAIN

CODEC = StandardCodec("a queue")
MOST_ITEMS = 1 << 24  # that an array may have which takes no memory


def message(kind: int, body: bytes) -> None:
    try:
        value = CODEC.decode(kind, body, 1)
    except DecodeError:
        return
    use(value)


def use(value: Any) -> None:
    """As its receiver may."""
    if type(value).__module__ == "numpy" and hasattr(value, "shape"):
        assert not value.dtype.hasobject
        assert value.size <= MOST_ITEMS
        assert value.nbytes <= 1 << 24  # no more than the message has
        assert not getattr(value, "flags", value).writeable
        value.tobytes()


def lent(body: bytes) -> None:
    """An array that is read where it lies, in memory of others."""
    try:
        array = array_view(Kind.NDARRAY, memoryview(bytearray(body)), "a queue", 1)
    except DecodeError:
        return
    assert not array.dtype.hasobject
    assert array.nbytes <= len(body)
    array.tobytes()


def lent_to_anonymous(body: bytes) -> None:
    for kind in (Kind.NDARRAY, Kind.RECORD):
        try:
            use(PickleCodec("a queue").decode(kind, body, 1))
        except DecodeError:
            pass


def headers(body: bytes) -> None:
    unseal(body)


def block(value: bytes) -> None:
    """Its checksum is made right first, or nothing would come past it."""
    key, value = form.block_key(1, int.from_bytes(value[16:24], "little")), signed(value)
    try:
        form.kept_in(form.header_of(value))
    except ValueError:
        pass
    try:
        header, frames = PLAIN.frames(key, value)
        found = list(form.frames_in(frames, header.position))
    except StorageDamaged:
        return
    assert len(frames) <= max(len(value), form.MOST_SPARSE)
    assert sum(frame.span for frame in found) == len(frames)
    try:
        for number in (0, header.sequence + 1):
            binding.find_frame(frames, number, 0)
        assert 0 <= binding.frames_from_end(frames, 3) < max(len(frames), 1)
    except ValueError:
        pass
    if header.kept is None:
        assert len(form.with_expired(frames, header.sequence)) == len(frames)


def signed(value: bytes) -> bytes:
    if len(value) < 64:
        return value
    head = value[:48]
    rest = zlib.crc32(value[64:], zlib.crc32(value[52:64], zlib.crc32(head)))
    return head + struct.pack("<I", rest) + value[52:]


def bare_frames(value: bytes) -> None:
    for look in (lambda: binding.find_frame(value, 5, 1), lambda: binding.frames_from_end(value, 7)):
        try:
            look()
        except ValueError:
            pass


def record(value: bytes) -> None:
    """What the other tables hold."""
    readers: list[Callable[[bytes], object]] = [
        form.decode_broker,
        form.decode_log,
        form.decode_group,
        form.Progress.unpack,
        form.unpack_place,
        form.unpack_sequences,
        partial(PLAIN.piece, form.payload_key(1, 2, 3)),
    ]
    for read in readers:
        try:
            read(value)
        except StorageDamaged:
            pass


TARGETS: list[Callable[[bytes], None]] = [
    *(lambda body, kind=kind: message(kind, body) for kind in range(8)),  # type: ignore[misc]
    lent,
    lent_to_anonymous,
    headers,
    block,
    bare_frames,
    record,
]


def check(data: bytes) -> None:
    """Raises whatever should not have been raised."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])
