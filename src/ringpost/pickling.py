"""Pickles: multiprocessing's, but for large buffers, which go beside the stream (PEP 574).

A pickle with buffers is a head of little-endian 64-bit numbers, then the stream, then the buffers. The head:
how many buffers, the size of the stream, and for each buffer its size * 2, plus 1 if it is writable. So
nothing large is copied into a stream, or out of it: put() copies it once, and so does get().
"""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

from ringpost.errors import EncodeError

Buffer = Any

_SCALARS = frozenset({int, float, bool, type(None)})
_KEPT = 1 << 16  # bytes: a larger stream's memory is not kept for the next message
_BESIDE = 1 << 15  # bytes: with smaller buffers, the second way costs more than the copies


class _Pickler:
    """multiprocessing's pickler, with which connections, locks and queues travel too, made for reuse."""

    def __init__(self) -> None:
        self.stream = io.BytesIO()
        self.buffers: list[memoryview] = []
        self.pickler = ForkingPickler(self.stream, pickle.HIGHEST_PROTOCOL, True, self._into_stream)
        self.pickler.dispatch_table = cast(Any, _Reducers())  # its own is a copy

    def _into_stream(self, buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _BESIDE:
            return True
        self.buffers.append(view)
        return False


class _Reducers:
    """What was registered with multiprocessing or copyreg, up to now."""

    def __getitem__(self, kind: type) -> Any:
        try:
            return ForkingPickler._extra_reducers[kind]  # type: ignore[attr-defined]
        except KeyError:
            return copyreg.dispatch_table[kind]


_idle: list[_Pickler] = []  # pop and append are atomic; one that failed is not used again


def pickled(item: object, label: str) -> Buffer | tuple[Buffer, ...]:
    """A tuple: a pickle with buffers, in parts. Raises EncodeError."""
    if type(item) in _SCALARS:
        return pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
    try:
        one = _idle.pop()
    except IndexError:
        one = _Pickler()
    try:
        one.pickler.dump(item)
    except Exception as error:
        raise EncodeError(
            f"cannot put a {type(item).__qualname__} into {label}: pickling failed: {error}"
        ) from error
    if one.buffers:
        return _parts(one.stream.getbuffer(), one.buffers)
    if one.stream.tell() > _KEPT:
        return one.stream.getbuffer()
    stream = one.stream.getvalue()
    one.stream.seek(0)
    one.stream.truncate()
    one.pickler.clear_memo()
    _idle.append(one)
    return stream


def _parts(stream: memoryview, buffers: list[memoryview]) -> tuple[Buffer, ...]:
    sizes = [view.nbytes << 1 | (not view.readonly) for view in buffers]
    return struct.pack(f"<{2 + len(sizes)}Q", len(sizes), stream.nbytes, *sizes), stream, *buffers


def unpickled_with_buffers(body: Buffer) -> Any:
    """Every buffer becomes a bytes or a bytearray of its own, as it does if it comes out of a stream. The
    head is read once: others can write to shared memory. Raises whatever is wrong."""
    view = memoryview(body)
    (count,) = struct.unpack_from("<Q", view)
    at, *sizes = struct.unpack_from(f"<{1 + count}Q", view, 8)
    start = 8 * (2 + count)
    stream = bytes(view[start : start + at])
    buffers: list[bytes | bytearray] = []
    at += start
    for size, writable in ((each >> 1, each & 1) for each in sizes):
        part = view[at : at + size]
        buffers.append(bytearray(part) if writable else bytes(part))
        at += size
    if at != len(view):
        raise ValueError("it is not as long as its head says")
    return pickle.loads(stream, buffers=buffers)
