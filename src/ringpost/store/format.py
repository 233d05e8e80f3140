"""What the tables hold. A change here is a new FORMAT."""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple

import msgspec

from ringpost.errors import StorageDamaged

FORMAT = 1

META = b"meta"  # "broker" -> Broker
LOGS = b"logs"  # kind NUL name -> LogRecord
PROGRESS = b"progress"  # log number -> Progress
GROUPS = b"groups"  # log number, name -> GroupRecord
BLOCKS = b"blocks"  # log number, position -> a block: header and frames
PAYLOADS = b"payloads"  # log number, sequence, part -> checksum and bytes of a large message
TRANSACTIONS = b"transactions"  # id -> a transaction that was decided, and is not yet carried out
TABLES = (META, LOGS, PROGRESS, GROUPS, BLOCKS, PAYLOADS, TRANSACTIONS)

PAGES = 65520  # bytes of a value that fill sixteen pages of LMDB exactly

_NUMBER = struct.Struct(">I")
_BLOCK_KEY = struct.Struct(">IQ")
_PAYLOAD_KEY = struct.Struct(">IQI")
_PROGRESS = struct.Struct(">QQQ")
_HEADER = struct.Struct("<4sBBHIIQQQQII8x")  # its last number but the padding is the checksum
_AT = 48  # where that is
_MAGIC = b"rpb1"
_CHECKSUM = struct.Struct("<I")

MOST_FRAMES = PAGES - _HEADER.size  # bytes
MOST_PART = PAGES - _CHECKSUM.size


class BrokerRecord(msgspec.Struct, frozen=True):
    format: int
    id: bytes
    made_ns: int
    next_number: int


class LogRecord(msgspec.Struct, frozen=True):
    """Settings of a log; `id` is the one that its ring has."""

    number: int
    id: bytes
    durability: str
    capacity: int | None
    max_messages: int
    priorities: bool
    retention: Retention | None = None


class Retention(msgspec.Struct, frozen=True):
    """What a durable topic keeps beyond what its subscribers still need.

    Args:
        seconds, bytes, messages: what is beyond any of these bounds goes, a block at a time; None: no
            bound of this kind. Without any, everything is kept for ever.
    """

    seconds: float | None = None
    bytes: int | None = None
    messages: int | None = None


class Progress(NamedTuple):
    """The ring that a log is stored from, and how far it is stored where no block says more."""

    position: int
    sequence: int
    ring: int

    def pack(self) -> bytes:
        return _PROGRESS.pack(*self)

    @classmethod
    def unpack(cls, value: bytes) -> Progress:
        return cls(*_PROGRESS.unpack(value))


class GroupRecord(msgspec.Struct, array_like=True, frozen=True):
    """A group as Stored.groups() gives it; `held` is an array of rp_held."""

    name: bytes
    pattern: bytes
    policy: int
    read: int
    sequence: int
    acked: int
    held: bytes


class Header(NamedTuple):
    """Of a block."""

    frames: int
    size: int
    position: int
    sequence: int
    end_sequence: int
    time_ns: int  # of its first frame

    @property
    def end(self) -> int:
        return self.position + self.size


def number_key(number: int) -> bytes:
    return _NUMBER.pack(number)


def block_key(number: int, position: int) -> bytes:
    return _BLOCK_KEY.pack(number, position)


def payload_key(number: int, sequence: int, part: int) -> bytes:
    return _PAYLOAD_KEY.pack(number, sequence, part)


def position_of(key: Any) -> int:
    return int.from_bytes(key[4:12], "big")


def log_key(kind: str, name: str) -> bytes:
    return kind.encode() + b"\0" + name.encode("utf-8", "surrogatepass")


def pack_block(frames: memoryview, position: int, sequence: int, count: int) -> bytes:
    time_ns = int.from_bytes(frames[16:24], "little")  # rp_frame.time_ns
    fields = (_MAGIC, FORMAT, 0, 0, count, len(frames), position, sequence, sequence + count, time_ns)
    checksum = _checksum(_HEADER.pack(*fields, 0, 0), frames)
    return b"".join((_HEADER.pack(*fields, checksum, 0), frames))


def _checksum(header: Any, frames: Any) -> int:
    """Of everything but itself."""
    return zlib.crc32(frames, zlib.crc32(header[_AT + 4 : _HEADER.size], zlib.crc32(header[:_AT])))


def header_of(value: Any) -> Header:
    """Without looking at the frames. Raises ValueError."""
    if len(value) < _HEADER.size:
        raise ValueError(f"it has {len(value)} bytes")
    magic, version, _, _, count, size, position, sequence, end_sequence, time_ns, _, _ = _HEADER.unpack_from(
        value
    )
    if magic != _MAGIC or version != FORMAT:
        raise ValueError("it does not begin as blocks do")
    if size + _HEADER.size != len(value) or end_sequence - sequence != count or not count:
        raise ValueError("its sizes contradict one another")
    return Header(count, size, position, sequence, end_sequence, time_ns)


def unpack_block(key: bytes, value: Any) -> tuple[Header, memoryview]:
    """Checked. Raises StorageDamaged."""
    try:
        header = header_of(value)
        frames = memoryview(value)[_HEADER.size :]
        fields = _HEADER.unpack_from(value)
        if _checksum(value, frames) != fields[10]:
            raise ValueError("its checksum is wrong")
        if header.position != position_of(key):
            raise ValueError("it lies in another one's place")
    except (ValueError, struct.error) as problem:
        raise StorageDamaged(f"block {describe(key)} is damaged: {problem}") from None
    return header, frames


_FRAME = struct.Struct(
    "<IBBHQQII"
)  # rp_frame: size, kind, flags, subject, sequence, time, headers, ttl in ms


def expired_frames(sequence: int, count: int, size: int) -> bytes:
    """So many messages that nobody wants any more, together of this size."""
    frames = [_FRAME.pack(_FRAME.size, 0, 0, 0, sequence + i, 0, 0, 1) for i in range(count - 1)]
    last = size - (count - 1) * _FRAME.size
    return b"".join(frames) + _FRAME.pack(last, 0, 0, 0, sequence + count - 1, 0, 0, 1).ljust(last, b"\0")


def with_expired(block: bytes, sequence: int) -> bytes:
    """The block, with one of its messages expired."""
    header, frames, at = header_of(block), bytearray(block[_HEADER.size :]), 0
    while at < len(frames):
        size, kind, flags, subject, number, _, headers, _ = _FRAME.unpack_from(frames, at)
        if number == sequence:
            _FRAME.pack_into(frames, at, size, kind, flags, subject, number, 0, headers, 1)
        at += -(-size // 16) * 16
    return pack_block(memoryview(frames), header.position, header.sequence, header.frames)


def pack_part(part: memoryview) -> bytes:
    return b"".join((_CHECKSUM.pack(zlib.crc32(part)), part))


def unpack_part(key: bytes, value: Any) -> memoryview:
    """Raises StorageDamaged."""
    part = memoryview(value)[_CHECKSUM.size :]
    if _CHECKSUM.unpack_from(value)[0] != zlib.crc32(part):
        raise StorageDamaged(
            f"part {key[12:].hex()} of payload {describe(key)} is damaged: its checksum is wrong"
        )
    return part


def describe(key: bytes) -> str:
    return f"{int.from_bytes(key[:4], 'big')}/{position_of(key)}"


encode = msgspec.msgpack.Encoder().encode
decode_broker = msgspec.msgpack.Decoder(BrokerRecord).decode
decode_log = msgspec.msgpack.Decoder(LogRecord).decode
decode_group = msgspec.msgpack.Decoder(GroupRecord).decode
