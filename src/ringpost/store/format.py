"""What the tables hold. A change here is a new FORMAT."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec

from ringpost.errors import StorageDamaged

_Record = TypeVar("_Record")

FORMAT = 1
SEALED = 2  # the format of brokers with keys (vault.py), so that who knows nothing of those refuses

META = b"meta"  # "broker" -> Broker; "keys" -> KeysRecord, of a sealed one; REMOVED, number -> RemovedRecord
LOGS = b"logs"  # kind NUL name -> LogRecord
PROGRESS = b"progress"  # log number -> Progress
GROUPS = b"groups"  # log number, name -> GroupRecord
BLOCKS = None  # log number, position -> a block: header and frames
PAYLOADS = b"payloads"  # log number, sequence, part -> checksum and bytes of a large message
KEYS = b"keys"  # log number, key -> where the last message with it lies, where a topic asked for compaction
SUPERSEDED = b"superseded"  # log number, position of a block -> sequences in it that are no longer the last
PUT_OFF = b"\xff" * 8  # there, in place of a position: one follows, of a block that is to be written anew
TRANSACTIONS = b"transactions"  # id -> a transaction that was decided, and is not yet carried out
# BLOCKS is the table without a name, where LMDB keeps the others' names: each commit writes it anyway, and
# so a commit of one message writes a page less.
TABLES = (META, LOGS, PROGRESS, GROUPS, BLOCKS, PAYLOADS, KEYS, SUPERSEDED, TRANSACTIONS)

REMOVED = b"removed"
KINDS = ("queue", "topic", "level")  # engines.durable.DURABLE

MOST_SPARSE = 1 << 20  # bytes that a block may stand for of which only some frames are here
MOST_LENGTHS = 4096  # bytes that say where its frames begin: more of them are not put together
PAGES = 65520  # bytes of a value that fill sixteen pages of LMDB exactly

_NUMBER = struct.Struct(">I")
_BLOCK_KEY = struct.Struct(">IQ")
_PAYLOAD_KEY = struct.Struct(">IQI")
_PROGRESS = struct.Struct(">QQQ")
_HEADER = struct.Struct("<4sBBHIIQQQQII8x")  # its last numbers are the checksum, and that of the key
_SPARSE = 1  # flags of a block: of its frames only some are here, behind the lengths of all
_LENGTHS = struct.Struct("<H")  # how many numbers these are, see pack_sparse()
_UNITS, _TOGETHER = 12, 16  # bits of a number that say how long, frames that one stands for
_PLACE = struct.Struct("<QQ")
_AT = 48  # where that is
_MAGIC = b"rpb1"
_CHECKSUM = struct.Struct("<I")

HELD = 32  # bytes of an rp_held: position, sequence, pending, deliveries, delay
HEADER = _HEADER.size
SEAL = 40  # bytes that sealing adds to frames: a nonce before them, a tag behind them
MOST_FRAMES = PAGES - HEADER  # bytes
MOST_PART = PAGES - _CHECKSUM.size


# What is stored may have been tampered with, or damaged: what is out of bounds is not decoded.
U32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]
U64 = Annotated[int, msgspec.Meta(ge=0)]  # MessagePack has none above 2^64 - 1
LEAST_CAPACITY, MOST_CAPACITY = 128 << 10, 1 << 42  # RP_MIN_CAPACITY, RP_MAX_CAPACITY
Capacity = Annotated[int, msgspec.Meta(ge=LEAST_CAPACITY, le=MOST_CAPACITY)]
Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
GroupName = Annotated[bytes, msgspec.Meta(max_length=63)]  # RP_GROUP_NAME - 1
Pattern = Annotated[bytes, msgspec.Meta(max_length=255)]  # RP_PATTERN - 1


class BrokerRecord(msgspec.Struct, frozen=True):
    format: int
    id: Id
    made_ns: U64
    next_number: U32


class LogRecord(msgspec.Struct, frozen=True):
    """Settings of a log; `id` is the one that its ring has."""

    number: U32
    id: Id
    durability: Literal["memory", "interval", "commit"]
    capacity: Capacity | None
    max_messages: U64
    priorities: bool
    retention: Retention | None = None


class RemovedRecord(msgspec.Struct, array_like=True, frozen=True):
    """Of a log that was deleted, until nothing of it is left; `key` was that of its LogRecord."""

    key: bytes
    id: Id


class Retention(msgspec.Struct, frozen=True):
    """What a durable topic keeps beyond what its subscribers still need.

    Args:
        seconds, bytes, messages: what is beyond any of these bounds goes, a block at a time; None: no
            bound of this kind. Without any, everything is kept for ever.
        compact: of each key only the last message is kept, as far as the bounds let it stay; the others go,
            also before named subscribers that are behind got them. The key is publish()'s `key`, or the
            subject of a message without one. A message with neither is kept.
    """

    seconds: float | None = None
    bytes: int | None = None
    messages: int | None = None
    compact: bool = False


class Progress(NamedTuple):
    """The ring that a log is stored from, and how far it is stored where no block says more."""

    position: int
    sequence: int
    ring: int

    def pack(self) -> bytes:
        return _PROGRESS.pack(*self)

    @classmethod
    def unpack(cls, value: bytes) -> Progress:
        """Raises StorageDamaged."""
        return cls(*_unpacked(_PROGRESS, value, "a log's progress"))


class GroupRecord(msgspec.Struct, array_like=True, frozen=True):
    """A group as Stored.groups() gives it; `held` is an array of rp_held."""

    name: GroupName
    pattern: Pattern
    policy: U64
    read: U64
    sequence: U64
    acked: U64
    held: bytes


class Header(NamedTuple):
    """Of a block."""

    frames: int
    size: int
    position: int
    sequence: int
    end_sequence: int
    time_ns: int  # of its first frame
    kept: int | None = None  # how many of its frames are here; None: all

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


def kind_and_name(key: bytes) -> tuple[str, str]:
    """Whose log_key() it is. Raises StorageDamaged."""
    try:
        kind, _, name = key.decode("utf-8", "surrogatepass").partition("\0")
    except UnicodeDecodeError as problem:
        raise StorageDamaged(f"the name of a log is damaged: {problem}") from None
    if kind not in KINDS:
        raise StorageDamaged(f"the name of a log is damaged: {kind!r} is no kind")
    return kind, name


def header_for(frames: Any, position: int, sequence: int, count: int) -> Header:
    time_ns = int.from_bytes(frames[16:24], "little")  # rp_frame.time_ns
    return Header(count, len(frames), position, sequence, sequence + count, time_ns)


def pack_header(header: Header, checksum: int = 0, key: int = 0) -> bytes:
    flags, kept = (0, 0) if header.kept is None else (_SPARSE, header.kept)
    return _HEADER.pack(_MAGIC, FORMAT, flags, kept, *header[:-1], checksum, key)


def pack_block(header: Header, body: Any) -> bytes:
    """`body`: frames; of a sparse block what pack_sparse() made."""
    return b"".join((pack_header(header, _checksum(pack_header(header), body)), body))


def pack_sparse(frames: list[tuple[int, bytes | None]]) -> bytes:
    """The body of a sparse block, of (span, frame; None: it is gone) of all its frames.

    First come numbers of 16 bits: 12 say how long a frame that is gone was, in units of 16 bytes, 0: it is
    here; 4 how many such frames follow that one. Subscribers and leases stand where frames begin, so that
    must not be forgotten. Before the numbers is said how many they are, behind them lie the frames that are
    here. Raises ValueError, struct.error.
    """
    numbers = _numbers(0 if frame is not None else span // ALIGN for span, frame in frames)
    return _pack_body(numbers, b"".join(frame for _, frame in frames if frame is not None))


def _numbers(lengths: Iterable[int]) -> list[int]:
    """Raises ValueError."""
    numbers = []
    for length, same in groupby(lengths):
        if length >> _UNITS:
            raise ValueError(f"a frame cannot have {length * ALIGN} bytes")
        count = sum(1 for _ in same)
        for done in range(0, count, _TOGETHER):
            numbers.append(length | (min(count - done, _TOGETHER) - 1) << _UNITS)
    return numbers


def _pack_body(numbers: list[int], frames: Any) -> bytes:
    return b"".join((struct.pack(f"<{1 + len(numbers)}H", len(numbers), *numbers), frames))


def _unpack_body(body: Any) -> tuple[list[int], memoryview]:
    """Raises struct.error."""
    count = _LENGTHS.unpack_from(body)[0]
    numbers = struct.unpack_from(f"<{count}H", body, _LENGTHS.size)
    return list(numbers), memoryview(body)[_LENGTHS.size * (1 + count) :]


def joined(first: Header, body: Any, second: Header, empty: Any) -> tuple[Header, bytes] | None:
    """Of two sparse blocks that lie one behind the other, the second of them without messages. None: they
    would be too large. Raises struct.error."""
    (numbers, frames), (more, _) = _unpack_body(body), _unpack_body(empty)
    size = first.size + second.size
    if size > MOST_SPARSE or _LENGTHS.size * (len(numbers) + len(more)) > MOST_LENGTHS:
        return None
    if numbers and more:
        numbers[-1:], more[:1] = _merged(numbers[-1], more[0]), []
    both = first._replace(frames=first.frames + second.frames, size=size, end_sequence=second.end_sequence)
    return both, _pack_body(numbers + more, frames)


def _merged(first: int, second: int) -> list[int]:
    """Two numbers as one, if that can be."""
    (length, count), (other, more) = _length_and_count(first), _length_and_count(second)
    return _numbers([length] * (count + more)) if length == other else [first, second]


def _length_and_count(number: int) -> tuple[int, int]:
    return number & (1 << _UNITS) - 1, 1 + (number >> _UNITS)


def filled(header: Header, body: Any) -> bytes:
    """All frames of a sparse block: void ones, as long as they were, where it has none. Raises ValueError,
    struct.error."""
    numbers, kept = _unpack_body(body)
    lengths = [_length_and_count(number) for number in numbers]
    are_kept = sum(count for length, count in lengths if length == 0)
    if are_kept != header.kept or sum(count for _, count in lengths) != header.frames:
        raise ValueError("its frames are not as many as it says")
    pieces: list[Any] = []
    at, sequence, left = 0, header.sequence, header.size
    for length, count in lengths:
        for number in range(sequence, sequence + count):
            pieces.append(_void_frame(number, length * ALIGN) if length else _kept_frame(kept, at, number))
            at += 0 if length else len(pieces[-1])
            left -= len(pieces[-1])
            if left < 0:
                raise ValueError("its frames are longer than it says")
        sequence += count
    if left or at != len(kept):
        raise ValueError("its frames are not as long as it says")
    return b"".join(pieces)


def _kept_frame(frames: memoryview, at: int, sequence: int) -> memoryview:
    """Raises ValueError, struct.error."""
    size, _, _, _, number, _, _, _ = _FRAME.unpack_from(frames, at)
    span = _span(size)
    if span > len(frames) - at or number != sequence:
        raise ValueError(f"message {sequence} is not where it should be")
    return frames[at : at + span]


def _checksum(header: Any, frames: Any) -> int:
    """Of everything but itself."""
    return zlib.crc32(frames, zlib.crc32(header[_AT + 4 : _HEADER.size], zlib.crc32(header[:_AT])))


def header_of(value: Any) -> Header:
    """Without looking at the frames. Raises ValueError."""
    if len(value) < HEADER:
        raise ValueError(f"it has {len(value)} bytes")
    magic, version, flags, kept, *fields = _HEADER.unpack_from(value)
    count, size, position, sequence, end_sequence, time_ns, _, key = fields
    if magic != _MAGIC or version != FORMAT:
        raise ValueError("it does not begin as blocks do")
    is_sparse, around = bool(flags & _SPARSE), HEADER + (SEAL if key else 0)
    if (not is_sparse and size + around != len(value)) or end_sequence - sequence != count or not count:
        raise ValueError("its sizes contradict one another")
    if (size > MOST_SPARSE and is_sparse) or position % ALIGN or size % ALIGN or position + size >= 1 << 64:
        raise ValueError(f"it cannot stand for {size} bytes at {position}")
    return Header(count, size, position, sequence, end_sequence, time_ns, kept if is_sparse else None)


def key_number(block: Any) -> int:
    """Of the key that it is sealed with; 0: it is not."""
    return int(_HEADER.unpack_from(block)[-1])


def check_block(value: Any) -> None:
    """Raises ValueError."""
    if key_number(value) or _checksum(value, memoryview(value)[HEADER:]) != _HEADER.unpack_from(value)[-2]:
        raise ValueError("its checksum is wrong")


def kept_in(header: Header) -> int:
    """How many messages of the block are here."""
    return header.frames if header.kept is None else header.kept


_FRAME = struct.Struct(
    "<IBBHQQII"
)  # rp_frame: size, kind, flags, subject, sequence, time, headers, ttl in ms
FRAME_HEADER = _FRAME.size
_LENGTH = struct.Struct("<Q")  # rp_descriptor.length, behind the header of a large one
LARGE, VOID = 1, 2  # flags
ALIGN = 16
_MOST_FRAME = FRAME_HEADER + 16384  # bytes


def _span(size: int) -> int:
    """Bytes that a frame takes. Raises ValueError."""
    if size < FRAME_HEADER:
        raise ValueError(f"a frame cannot have {size} bytes")
    return -(-size // ALIGN) * ALIGN


class Frame(NamedTuple):
    """Where a frame lies, and what its header says."""

    position: int
    span: int
    sequence: int
    flags: int
    subject_length: int
    headers_length: int


def frames_in(frames: Any, position: int) -> Iterator[Frame]:
    """Of a block that was checked, and begins at `position`. Raises StorageDamaged where it has no frame: its
    checksum says what was stored, not that this was sane."""
    at, end, read = 0, len(frames), _FRAME.unpack_from
    while at < end:
        try:
            size, _, flags, subject, sequence, _, headers, _ = read(frames, at)
            span = _span(size)
        except (ValueError, struct.error):
            span = end + 1
        if span > end - at:
            raise StorageDamaged(f"the block at {position} is damaged: it has no frame at byte {at} of {end}")
        yield Frame(position + at, span, sequence, flags, subject, headers)
        at += span


def large_in(frames: Any, position: int) -> Iterator[tuple[int, int]]:
    """(sequence, length) of the payloads that lie elsewhere. Of a block as frames_in() gets it. Raises
    StorageDamaged."""
    for frame in frames_in(frames, position):
        if frame.flags & LARGE and not frame.flags & VOID:
            if frame.span < FRAME_HEADER + _LENGTH.size:
                raise StorageDamaged(
                    f"the block at {position} is damaged: it does not say how large message {frame.sequence} "
                    "is"
                )
            yield frame.sequence, _LENGTH.unpack_from(frames, frame.position - position + FRAME_HEADER)[0]


def in_blocks(frames: bytes, most: int) -> Iterator[tuple[bytes, int]]:
    """Whole frames, of at most so many bytes together, and how many they are."""
    start = count = 0
    for frame in frames_in(frames, 0):
        end = frame.position + frame.span
        if end - start > most:
            yield frames[start : frame.position], count
            start, count = frame.position, 0
        count += 1
    yield frames[start:], count


def void_frames(sequence: int, count: int, size: int) -> bytes:
    """In place of so many messages, of this size together, where nobody knows how long each of them was:
    nobody gets them. Raises ValueError."""
    pieces = []
    for number in range(sequence, sequence + count):
        size_of_others = (sequence + count - number - 1) * _FRAME.size
        mine = min(size - size_of_others, _MOST_FRAME)
        if mine < _FRAME.size:
            raise ValueError(f"{count} messages do not fit into {size} bytes")
        pieces.append(_void_frame(number, mine))
        size -= mine
    if size:
        raise ValueError(f"{count} messages cannot have {size} bytes more")
    return b"".join(pieces)


def _void_frame(sequence: int, span: int) -> bytes:
    """Raises ValueError."""
    if span < _FRAME.size:
        raise ValueError(f"a frame cannot have {span} bytes")
    return _FRAME.pack(span, 0, VOID, 0, sequence, 0, 0, 1).ljust(span, b"\0")


def with_expired(frames: Any, sequence: int) -> bytearray:
    """The frames, with one of the messages expired."""
    changed, at = bytearray(frames), 0
    while at < len(changed):
        size, kind, flags, subject, number, _, headers, _ = _FRAME.unpack_from(changed, at)
        if number == sequence:
            _FRAME.pack_into(changed, at, size, kind, flags, subject, number, 0, headers, 1)
        at += _span(size)
    return changed


def pack_place(position: int, sequence: int) -> bytes:
    return _PLACE.pack(position, sequence)


def unpack_place(value: Any) -> tuple[int, int]:
    """Raises StorageDamaged."""
    position, sequence = _unpacked(_PLACE, value, "the place of a key")
    return position, sequence


def pack_sequences(sequences: list[int]) -> bytes:
    return struct.pack(f"<{len(sequences)}Q", *sequences)


def unpack_sequences(value: Any) -> list[int]:
    """Raises StorageDamaged."""
    return list(_unpacked(struct.Struct(f"<{len(value) // 8}Q"), value, "a list of sequences"))


def _unpacked(how: struct.Struct, value: Any, what: str) -> tuple[Any, ...]:
    if len(value) != how.size:
        raise StorageDamaged(f"{what} is damaged: it has {len(value)} bytes")
    return how.unpack(value)


def pack_part(part: memoryview) -> bytes:
    return b"".join((_CHECKSUM.pack(zlib.crc32(part)), part))


def unpack_part(value: Any) -> memoryview:
    """Raises ValueError."""
    part = memoryview(value)[_CHECKSUM.size :]
    if len(value) < _CHECKSUM.size or _CHECKSUM.unpack_from(value)[0] != zlib.crc32(part):
        raise ValueError("its checksum is wrong")
    return part


def describe(key: bytes) -> str:
    return f"{int.from_bytes(key[:4], 'big')}/{position_of(key)}"


encode = msgspec.msgpack.Encoder().encode


def _decoder(kind: type[_Record]) -> Callable[[Any], _Record]:
    decode_one = msgspec.msgpack.Decoder(kind).decode

    def decode(value: Any) -> _Record:
        """Raises StorageDamaged."""
        try:
            return decode_one(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
            raise StorageDamaged(f"a {kind.__name__} is damaged: {problem}") from None

    return decode


decode_broker = _decoder(BrokerRecord)
decode_log = _decoder(LogRecord)
decode_removed = _decoder(RemovedRecord)
_decode_group = _decoder(GroupRecord)


def decode_group(value: Any) -> GroupRecord:
    """Raises StorageDamaged."""
    group = _decode_group(value)
    if len(group.held) % HELD:
        raise StorageDamaged(f"a GroupRecord is damaged: {len(group.held)} bytes say what is held")
    return group
