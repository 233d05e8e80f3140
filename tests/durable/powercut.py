"""What a power cut may leave of data.mdb: every image is made of a recorded run, as disks and file systems
may have it.

What was flushed is there. Of what was written since the last flush any part may be: nothing, all, all but
one write, some, a write torn at a sector. A write through a descriptor with O_DSYNC is there when it
returns, and says nothing of the others.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_RECORD = struct.Struct("<cQQ")


class Event(NamedTuple):
    """See recorder.c."""

    kind: str
    offset: int
    data: bytes


class Image(NamedTuple):
    """The file after a power cut, and what the program had said until then."""

    data: bytes
    marks: tuple[str, ...]
    how: str


def events_of(log: Path) -> list[Event]:
    raw, at, found = log.read_bytes(), 0, []
    while at < len(raw):
        kind, offset, length = _RECORD.unpack_from(raw, at)
        at += _RECORD.size
        data = b"" if kind in b"ft" else raw[at : at + length]
        at += len(data)
        found.append(Event(kind.decode(), offset, data))
    return found


@dataclass
class _Disk:
    """What is there for sure, and the writes that may be."""

    sure: bytearray = field(default_factory=bytearray)
    open: list[Event] = field(default_factory=list)

    def with_writes(self, writes: list[Event]) -> bytes:
        image = bytearray(self.sure)
        for one in writes:
            put(image, one)
        return bytes(image)


def put(image: bytearray, write: Event) -> None:
    if write.kind == "t":
        del image[write.offset :]
        image.extend(bytes(write.offset - len(image)))
        return
    if len(image) < write.offset:
        image.extend(bytes(write.offset - len(image)))
    image[write.offset : write.offset + len(write.data)] = write.data


def images(events: list[Event], seed: int, begin_after: str) -> Iterator[Image]:
    """Each once, from the mark `begin_after` on."""
    chance, disk, marks = random.Random(seed), _Disk(), []
    seen: set[bytes] = set()
    has_begun = False
    for event in events:
        if event.kind == "m":
            marks.append(event.data.decode().strip())
            has_begun = has_begun or marks[-1] == begin_after
            continue
        if event.kind == "f":
            disk = _Disk(bytearray(disk.with_writes(disk.open)))
        elif event.kind == "s":
            put(disk.sure, event)
        else:
            disk.open.append(event)
        if not has_begun:
            continue
        for how, data in _what_may_be(disk, chance):
            digest = hashlib.blake2b(data + repr(len(marks)).encode(), digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield Image(data, tuple(marks), f"{how}, after {len(marks)} marks")


def _what_may_be(disk: _Disk, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    writes = disk.open
    yield "nothing of the open writes", bytes(disk.sure)
    if not writes:
        return
    yield "all of them", disk.with_writes(writes)
    if len(writes) > 1:
        gone = chance.randrange(len(writes))
        yield f"all but write {gone}", disk.with_writes([*writes[:gone], *writes[gone + 1 :]])
        some = [one for one in writes if chance.random() < 0.5]
        yield f"{len(some)} of {len(writes)}", disk.with_writes(some)
        shuffled = chance.sample(writes, chance.randrange(1, len(writes) + 1))
        yield f"{len(shuffled)} in another order", disk.with_writes(shuffled)
    last = writes[-1]
    if len(last.data) > SECTOR:
        cut = chance.randrange(1, len(last.data) // SECTOR + 1) * SECTOR
        for how, part in (
            ("its beginning", Event("w", last.offset, last.data[:cut])),
            ("its end", Event("w", last.offset + cut, last.data[cut:])),
        ):
            yield f"of the last one {how}", disk.with_writes([*writes[:-1], part])
