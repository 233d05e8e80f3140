"""How objects become bytes. The codec of each message is named in its frame, so a reader needs no agreement.

    kind            what                          read back as
    bytes           bytes-like                    bytes
    text            str                           str
    msgpack         everything else, by msgspec   dict, list (tuples too), int, float, bool, datetime ...
    ndarray         a numpy array, a tensor,      a read-only numpy array
                    a datetime64, a complex128 ...
    pickle          where opted in, what would    the object
                    not come back as it was
    pickle_buffers  the same, with large buffers  the object; see pickling.py
    own             what a user's codec made      what it makes of that
    record          an item of a structured array the same, read-only

A codec is an object with `encode(item) -> (kind, buffer)` and `decode(kind, body, sequence) -> item`. The
buffer may be a tuple of buffers, which travel behind one another. The bindings encode exact bytes and ASCII
str by themselves, unless its attribute `plain` is False.
"""

from __future__ import annotations

import math
import pickle
import sys
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import Any, Literal

import msgspec

from ringpost._binding import binding
from ringpost.errors import DecodeError, EncodeError
from ringpost.pickling import pickled, unpickled_with_buffers


class Kind(IntEnum):
    """The byte in a frame that names its codec. Never renumbered: it is part of the format."""

    BYTES = 0
    TEXT = 1
    MSGPACK = 2
    NDARRAY = 3
    PICKLE = 4
    OWN = 5
    RECORD = 6
    PICKLE_BUFFERS = 7


Buffer = Any  # bytes, bytearray, memoryview: collections.abc.Buffer needs Python 3.12

_EXT_NDARRAY = 1
_MOST_NOTHINGS = 1 << 20
_MOST_KEPT = 4096  # bytes of a head that is remembered
_MOST_NESTED = 200  # lists and dicts within one another: what is deeper, or has no end, is pickled
_LINE = 64  # bytes: the items of an array start at multiples of it

# what MessagePack knows by itself: spares most messages the questions below
_PLAIN = frozenset({dict, list, tuple, int, float, bool, type(None)})

# an attribute of an Enum costs more than encoding a small message
_MSGPACK = int(Kind.MSGPACK)
_PICKLE = int(Kind.PICKLE)
_PICKLE_BUFFERS = int(Kind.PICKLE_BUFFERS)
_PICKLES = (_PICKLE, _PICKLE_BUFFERS)


class StandardCodec:
    """What named queues speak."""

    plain = True

    def __init__(self, label: str, *, pickle: bool = False) -> None:
        self._label = label
        self._pickle = pickle
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._encode_unknown)
        self._decoder = msgspec.msgpack.Decoder(ext_hook=_decode_extension)

    def encode(self, item: object) -> tuple[int, Buffer]:
        """Raises EncodeError."""
        if self._pickle and not _comes_back(item):
            return self._encode_by_pickle(item)
        if type(item) not in _PLAIN:
            if isinstance(item, str):
                return self._encode_text(item)
            if isinstance(item, (bytes, bytearray, memoryview)):
                return Kind.BYTES, _contiguous(item)
            if _is_tensor(item):
                item = _array_of(item, self._label)
            if _is_array(item):
                return self._encode_array(item)
            if _is_scalar(item):
                if _is_record(item):
                    return Kind.RECORD, record_head(item.dtype) + item.tobytes()  # type: ignore[attr-defined]
                if not _is_pythons(item):
                    return self._encode_array(_array_of_one(item))
        try:
            return _MSGPACK, self._encoder.encode(item)
        except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
            if (view := _view_of(item)) is not None:
                return Kind.BYTES, view
            if self._pickle:
                return _pickled(item, self._label)
            raise EncodeError(
                f"cannot put a {type(item).__qualname__} into {self._label}: {error}; put what "
                "MessagePack knows (dict, list, int, float, str, bytes, datetime, dataclass, "
                "msgspec.Struct, ...), or open the queue with pickle=True on both sides"
            ) from error

    def decode(self, kind: int, body: bytes, sequence: int) -> Any:
        """Raises DecodeError, which carries the message."""
        try:
            if kind == _MSGPACK:
                return self._decoder.decode(body)
            if kind == Kind.TEXT:
                return str(body, "utf-8")
            if kind == Kind.NDARRAY:
                return _decode_copy(body)
            if kind == Kind.RECORD:
                return decode_record(body)
            if kind == Kind.BYTES:
                return body
        except Exception as error:
            raise undecodable(self._label, kind, body, sequence, str(error)) from error
        if kind == Kind.OWN:
            advice = "it was made by a codec of its own: open the queue with that codec="
            raise undecodable(self._label, kind, body, sequence, advice)
        if kind not in _PICKLES:
            raise undecodable(self._label, kind, body, sequence, "a newer ringpost put it")
        if not self._pickle:
            advice = "open the queue with pickle=True to allow it, if you trust every producer"
            raise undecodable(self._label, kind, body, sequence, advice)
        return _unpickled(self._label, kind, body, sequence)

    def _encode_by_pickle(self, item: object) -> tuple[int, Buffer]:
        try:
            return _pickled(item, self._label)
        except EncodeError:
            if (view := _view_of(item)) is None:
                raise
            return Kind.BYTES, view

    def _encode_text(self, text: str) -> tuple[int, Buffer]:
        try:
            return Kind.TEXT, text.encode()
        except UnicodeEncodeError as error:
            if self._pickle:
                return _pickled(text, self._label)
            raise EncodeError(
                f"cannot put a str into {self._label}: {error}; put bytes, or open the queue with "
                "pickle=True on both sides"
            ) from error

    def _encode_array(self, array: Any) -> tuple[int, Buffer]:
        if problem := beyond_raw_items(array):
            raise EncodeError(
                f"cannot put an array of dtype {array.dtype} into {self._label}: {problem}; open the queue "
                "with pickle=True on both sides"
            )
        return Kind.NDARRAY, _encode_array(array)

    def _encode_unknown(self, item: Any) -> Any:
        """msgspec's hook: arrays and numpy numbers inside other objects."""
        if _is_tensor(item):
            item = _array_of(item, self._label)
        if _is_scalar(item):
            if _is_pythons(item):
                return item.item()
            item = _array_of_one(item)
        if _is_array(item):
            if problem := beyond_raw_items(item):
                raise TypeError(f"of the array of dtype {item.dtype} in it, {problem}")
            return msgspec.msgpack.Ext(_EXT_NDARRAY, bytes(_encode_array(item)))
        raise TypeError(f"{type(item).__qualname__} is not a MessagePack type")


class PickleCodec:
    """What anonymous queues speak: everything comes back as multiprocessing.Queue would return it."""

    plain = True

    def __init__(self, label: str) -> None:
        self._label = label

    def encode(self, item: object) -> tuple[int, Buffer]:
        """Raises EncodeError."""
        return _pickled(item, self._label)

    def decode(self, kind: int, body: bytes, sequence: int) -> Any:
        """Raises DecodeError, which carries the message."""
        try:
            if kind == Kind.NDARRAY:
                return _decode_copy(body)  # it was lent
            if kind == Kind.RECORD:
                return decode_record(body)
        except Exception as error:
            raise undecodable(self._label, kind, body, sequence, str(error)) from error
        if kind not in _PICKLES:
            raise undecodable(self._label, kind, body, sequence, "only pickles are put here")
        return _unpickled(self._label, kind, body, sequence)


# ---- pickle -------------------------------------------------------------------------------------


def _comes_back(item: object) -> bool:
    """Without pickle, as it was, to the type of each part. (An array: but read-only.)"""
    return binding.is_exact(item, _MOST_NESTED) or _is_raw(item)


def _is_raw(item: Any) -> bool:
    if _is_array(item):
        return type(item) is sys.modules["numpy"].ndarray and not beyond_raw_items(item)
    return _is_scalar(item) and _is_record(item)


def _pickled(item: object, label: str) -> tuple[int, Buffer]:
    body = pickled(item, label)
    return (_PICKLE_BUFFERS if type(body) is tuple else _PICKLE), body


def _unpickled(label: str, kind: int, body: Buffer, sequence: int) -> Any:
    try:
        return pickle.loads(body) if kind == _PICKLE else unpickled_with_buffers(body)
    except Exception as error:
        raise undecodable(label, kind, body, sequence, repr(error)) from error


# ---- numpy --------------------------------------------------------------------------------------


def imported_numpy(why: str) -> Any:
    """Raises ImportError, with advice."""
    try:
        import numpy
    except ImportError as error:
        raise ImportError(f"{why}: pip install 'ringpost[numpy]'") from error
    return numpy


def beyond_raw_items(array: Any) -> str:
    """What of an array its raw items do not tell; nothing if that is all."""
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(array, masked.MaskedArray):
        return "the mask would be lost: put its .filled(), or its .data and .mask"
    return beyond_raw_bytes(array.dtype)


def beyond_raw_bytes(dtype: Any) -> str:
    """What bytes do not tell of the items of such an array; nothing if they tell all."""
    if dtype.isbuiltin == 1 and not dtype.hasobject:
        return ""
    if dtype.kind == "T":
        return "the items are str of any length: put its .astype('U')"
    if dtype.hasobject:
        return "the items are Python objects"
    if _is_foreign(dtype):
        return "the items are of another library's type: put its .view() as one of numpy's"
    return ""


def _is_foreign(dtype: Any) -> bool:
    if dtype.names is None:
        return bool(dtype.base.type.__module__ != "numpy")
    return any(_is_foreign(dtype.fields[name][0]) for name in dtype.names)


def _is_array(item: object) -> bool:
    numpy = sys.modules.get("numpy")  # who holds an array has imported it
    return numpy is not None and isinstance(item, numpy.ndarray)


def _is_tensor(item: object) -> bool:
    """Of another library, which speaks DLPack."""
    return hasattr(type(item), "__dlpack__") and not _is_array(item)


def _array_of(tensor: Any, label: str) -> Any:
    """A view of its memory. Raises EncodeError."""
    try:
        import numpy

        return numpy.from_dlpack(tensor)
    except Exception as error:
        raise EncodeError(
            f"cannot put a {type(tensor).__qualname__} into {label}: numpy.from_dlpack() says: {error}"
        ) from error


def _is_scalar(item: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(item, numpy.generic)


def _is_pythons(scalar: Any) -> bool:
    """Python has it, too, without loss: bool, int, float, str, bytes."""
    return scalar.dtype.kind in "biufUS" and scalar.dtype.char != "g"


def _array_of_one(scalar: Any) -> Any:
    return sys.modules["numpy"].asarray(scalar)


def _is_record(scalar: Any) -> bool:
    return scalar.dtype.names is not None and not beyond_raw_bytes(scalar.dtype)


def record_head(dtype: Any) -> bytes:
    """What stands before each record: see records.py."""
    head = msgspec.msgpack.encode(_description(dtype))
    return (len(head).to_bytes(4, "little") + head).ljust(-(-(4 + len(head)) // 16) * 16, b"\0")


def dtype_of_record(body: bytes) -> tuple[Any, int]:
    """The dtype that the head says, and where the record begins."""
    numpy = imported_numpy("this message is a record of an array")
    size = int.from_bytes(body[:4], "little")
    dtype = _described(numpy, msgspec.msgpack.decode(body[4 : 4 + size]))
    if dtype.hasobject or dtype.names is None:
        raise ValueError("a record has fields, which are no Python objects")
    return dtype, -(-(4 + size) // 16) * 16


def decode_record(body: bytes) -> Any:
    """Raises ValueError."""
    dtype, start = dtype_of_record(body)
    if len(body) != start + dtype.itemsize:
        raise ValueError("the record is not as long as its dtype says")
    import numpy

    return numpy.ndarray((), dtype, buffer=body, offset=start)[()]


def _encode_array(array: Any) -> bytearray:
    import numpy

    order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    head = array_head(array.dtype, array.shape, order)
    out = bytearray(len(head) + array.nbytes)
    out[: len(head)] = head
    target = numpy.ndarray(array.shape, array.dtype, buffer=out, offset=len(head), order=order)
    target[...] = array
    return out


def array_head(dtype: Any, shape: tuple[int, ...], order: Literal["C", "F"], before: int = 0) -> bytes:
    """What stands before the raw items: MessagePack [dtype, shape, order], its length in 3 bytes before it,
    padded to 64; then as many bytes as the 4th byte says, so that items come to lie at a multiple of 64 if
    `before` bytes of subject and headers come first."""
    head = _plain_head(dtype.str, shape, order) if dtype.names is None else _any_head(dtype, shape, order)
    if len(head) >= 1 << 24:
        raise ValueError("the description of this dtype is too long to travel")
    start, shift = _items_at(len(head)), -before % _LINE
    return (len(head) | shift << 24).to_bytes(4, "little") + head + bytes(start + shift - 4 - len(head))


@lru_cache(256)
def _plain_head(dtype: str, shape: tuple[int, ...], order: str) -> bytes:
    return _any_head(sys.modules["numpy"].dtype(dtype), shape, order)


def _any_head(dtype: Any, shape: tuple[int, ...], order: str) -> bytes:
    return msgspec.msgpack.encode([_description(dtype), shape, order])


def _items_at(head_size: int) -> int:
    return -(-(4 + head_size) // _LINE) * _LINE


def _decode_copy(body: bytes) -> Any:
    """Of private bytes: aligned again, if they were so where they came from."""
    view = memoryview(body)
    shift = view[3] if len(view) > 3 else 0
    if not shift:
        return _decode_array(body)
    size = int.from_bytes(view[0:3], "little")
    at = _items_at(size)
    return _decode_array(view[:3].tobytes() + b"\0" + view[4:at].tobytes() + view[at + shift :].tobytes())


def _decode_array(body: Buffer) -> Any:
    """In place. The head is read once, into private memory: others can write to shared memory."""
    numpy = imported_numpy("this message is an array")
    view = memoryview(body)
    words = int.from_bytes(view[0:4], "little")
    size, shift = words & 0xFFFFFF, words >> 24
    if size > len(view):
        raise ValueError("it is shorter than its head says")
    shape, dtype, order = (_read_head if size <= _MOST_KEPT else _head_of)(bytes(view[4 : 4 + size]))
    if isinstance(body, memoryview):
        body = numpy.frombuffer(body, "u1")  # else numpy keeps what it is of, which may be writable
    return numpy.ndarray(shape, dtype, buffer=body, offset=_items_at(size) + shift, order=order)


def _head_of(head: bytes) -> tuple[tuple[int, ...], Any, Any]:
    import numpy

    description, shape, order = msgspec.msgpack.decode(head)
    dtype = _described(numpy, description)
    if dtype.hasobject:
        raise ValueError("an array of Python objects does not travel as raw bytes")
    if any(length < 0 for length in shape):
        raise ValueError("an array has no negative length")
    if dtype.itemsize == 0 and math.prod(shape) > _MOST_NOTHINGS:
        raise ValueError("it has more items of no size than anybody can look at")
    return tuple(shape), dtype, order


_read_head = lru_cache(256)(_head_of)


def array_view(kind: int, payload: Buffer, label: str, sequence: int) -> Any:
    """The array in `payload`, in place. Raises TypeError if it is none, DecodeError if it is broken."""
    if kind != Kind.NDARRAY:
        raise TypeError(f"message {sequence} of {label} is no array but {kind_name(kind)}: ask for its .body")
    try:
        return _decode_copy(payload) if isinstance(payload, bytes) else _decode_array(payload)
    except Exception as error:
        raise undecodable(label, kind, payload, sequence, str(error)) from error


def _description(dtype: Any) -> Any:
    """As numpy describes it in .npy files: its name, or its fields with the gaps between them. Where fields
    overlap, or lie in another order than they are named: a dict, with the place of each."""
    if dtype.names is None:
        return dtype.str
    described: list[Any] = []
    end = 0
    for name in dtype.names:
        kind, offset, field = _description_of_field(name, *dtype.fields[name])
        if offset < end or isinstance(field[1], dict):
            return _description_by_places(dtype)
        described += [_gap(offset - end), field] if offset > end else [field]
        end = offset + kind.itemsize
    return described if end == dtype.itemsize else [*described, _gap(dtype.itemsize - end)]


def _description_by_places(dtype: Any) -> dict[str, Any]:
    fields = [_description_of_field(name, *dtype.fields[name]) for name in dtype.names]
    return {"itemsize": dtype.itemsize, "fields": [(offset, *field) for _, offset, field in fields]}


def _description_of_field(name: str, kind: Any, offset: int, title: str | None = None) -> Any:
    """Its dtype, where it is, and (name, description), with a shape if it has one."""
    item, shape = kind.subdtype or (kind, ())
    named = name if title is None else (title, name)
    return kind, offset, (named, _description(item), *([shape] if shape else []))


def _gap(size: int) -> tuple[str, str]:
    return "", f"|V{size}"


def _described(numpy: Any, description: Any) -> Any:
    """The dtype. No part of its description is run. Raises whatever is wrong with it."""
    if not isinstance(description, dict):
        return numpy.lib.format.descr_to_dtype(_tuples(description))
    size = description.get("itemsize")
    fields = [_placed_field(numpy, *field) for field in description.get("fields")]  # type: ignore[union-attr]
    names, titles, formats, offsets = map(list, zip(*fields, strict=True))
    # in numpy 1 the sum may overflow
    if any(not 0 <= offset <= size - kind.itemsize for offset, kind in zip(offsets, formats, strict=True)):
        raise ValueError("a field lies outside of its record")
    return numpy.dtype(
        {"names": names, "titles": titles, "formats": formats, "offsets": offsets, "itemsize": size}
    )


def _placed_field(
    numpy: Any, offset: int, name: Any, description: Any, shape: Sequence[int] = ()
) -> tuple[Any, ...]:
    title, name = name if isinstance(name, list) else (None, name)
    kind = _described(numpy, description)
    return name, title, numpy.dtype((kind, tuple(shape))) if shape else kind, offset


def _tuples(description: Any) -> Any:
    """Structured dtypes: numpy wants tuples where MessagePack has lists."""
    if not isinstance(description, list):
        return description
    return [_field(field) for field in description]


def _field(field: list[Any]) -> tuple[Any, ...]:
    name, inner, *shape = field
    name = tuple(name) if isinstance(name, list) else name
    return (name, _tuples(inner), *(tuple(one) for one in shape))


def _decode_extension(code: int, data: memoryview) -> Any:
    if code == _EXT_NDARRAY:
        return _decode_array(bytes(data))
    return msgspec.msgpack.Ext(code, bytes(data))


# ---- helpers ------------------------------------------------------------------------------------


def _contiguous(buffer: bytes | bytearray | memoryview) -> Buffer:
    view = memoryview(buffer)
    return view if view.c_contiguous else view.tobytes()


def _view_of(item: Any) -> Buffer | None:
    """The bytes of an array.array, a ctypes array, an mmap ...; None of what has none."""
    if _is_array(item) or _is_scalar(item):
        return None  # they may be pointers
    try:
        view = memoryview(item)
    except (TypeError, ValueError):
        return None
    return pickle.PickleBuffer(view).raw() if view.c_contiguous else view.tobytes()


def kind_name(kind: int) -> str:
    return Kind(kind).name.lower() if kind in Kind._value2member_map_ else f"kind {kind}"


def undecodable(label: str, kind: int, body: Buffer, sequence: int, why: str) -> DecodeError:
    name = kind_name(kind)
    return DecodeError(
        f"message {sequence} of {label} ({name}, {len(body)} bytes) cannot be decoded: {why}; "
        "it was taken, its bytes are in this exception's .payload",
        bytes(body),
        name,
        sequence,
        why,
    )
