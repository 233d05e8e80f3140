"""Notes: what is in a ring already, and the side store does not know, for storage failed or stalled.

Without them whoever tries again would put a copy. They are about one ring and lie in shared memory, as the
ring does: what a reboot takes out of the ring is not noted any more, and is put again. A death before they
are written lets a message come twice, as everywhere. Only who has the side store alone reads or writes them.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import msgspec

from ringpost._binding.contract import Log
from ringpost.engines.access import Access
from ringpost.levels import Level, Levels

SUFFIX = ".notes"

_FOR_EVER = 2**63 - 1


class Note(msgspec.Struct, array_like=True, frozen=True):
    """Of what has one key in the side store."""

    ring: int  # when it was made
    until_ns: int = _FOR_EVER  # CLOCK_REALTIME


Found = dict[bytes, Note]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, Note]]).decode

_here: dict[Path, Found] = {}  # where shared memory has no room for them either: this process remembers them


class Notes:
    """Of one log, about one table."""

    def __init__(self, place: Path, log_id: bytes, table: bytes, access: Access) -> None:
        self._file = place / f"{log_id.hex()}.{table.decode()}{SUFFIX}"
        self._access = access
        self._is_there = False

    def read(self, log: Log, now_ns: int) -> Found:
        """Those that are about the log's rings as they are, and not over."""
        try:
            file = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            data = b""
        else:
            self._is_there = True
            with open(file, "rb") as opened:
                data = opened.read()
        found = {**_parse(data), **_here.get(self._file, {})}
        if not found:
            return found
        rings = rings_of(log)
        return {key: note for key, note in found.items() if note.ring in rings and note.until_ns > now_ns}

    def write(self, notes: Found) -> None:
        """Instead of those that there were."""
        if not notes:
            return self.clear()
        try:
            self._write(_encode(list(notes.items())))
            _here.pop(self._file, None)
        except OSError:
            _here[self._file] = notes

    def _write(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._file, flags, 0o600)
        with open(file, "wb", buffering=0) as opened:
            self._is_there = True
            if os.fstat(file).st_uid == os.geteuid():
                if self._access.gid is not None:
                    os.fchown(file, -1, self._access.gid)
                os.fchmod(file, self._access.file_mode)
            if opened.write(data) != len(data):
                raise OSError(errno.ENOSPC, "written in part", str(self._file))

    def clear(self) -> None:
        """The side store knows of all that was read."""
        _here.pop(self._file, None)
        if self._is_there:
            self.remove()

    def remove(self) -> None:
        """Whatever is there, of a log that is gone."""
        with contextlib.suppress(OSError):
            os.close(os.open(self._file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW))
            os.unlink(self._file)


def ring_of(to: Log | Level) -> int:
    """What a Note calls it."""
    return int(to.info()["created_ns"])


def rings_of(log: Log) -> set[int]:
    """As they are now."""
    return {ring_of(each) for each in (log.logs() if isinstance(log, Levels) else [log])}


def _parse(data: bytes) -> Found:
    """Nothing, if its writer died."""
    try:
        return dict(_decode(data)) if data else {}
    except msgspec.MsgspecError:
        return {}
