"""The last of a disk, which messages do not get: it is for acks, deletions, and what was decided.

LMDB writes pages anew when it deletes something, too. On a disk that messages have filled to its end nothing
could be acked for good any more, and nothing deleted: consuming would never make room. RabbitMQ has its
disk_free_limit for the same reason.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ringpost.errors import StorageFailed

RESERVE = 32 << 20  # bytes
_SHARE = 16  # of a small disk: at most one part of so many


def has_room(file: str, environment: Any, size: int, used: Callable[[], int], rest: int = RESERVE) -> bool:
    """For `size` bytes of messages, on the disk or within the file. True where the file was moved, or
    deleted: who commits is told.

    Args:
        file: the data file of `environment`, which is LMDB's.
        used: bytes of it that are in use, with these messages. Asked where the disk has no room.
        rest: bytes that are to be left; less of a small disk.
    """
    try:
        found = os.statvfs(file)
    except FileNotFoundError:
        return True
    kept = min(rest, rest * (found.f_blocks * found.f_frsize) // (_SHARE * RESERVE))
    left = found.f_bavail * found.f_frsize - kept
    if left >= size:
        return True
    pages = environment.info()["last_pgno"] + 1
    return bool(left + pages * environment.stat()["psize"] >= used())


def used_by(transaction: Any, tables: Iterable[Any]) -> int:
    """Bytes in use; the file may be larger, with pages that are free to be used again."""
    pages, size = 0, 4096
    for table in tables:
        found = transaction.stat(table)
        pages += found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        size = found["psize"]
    return int(pages * size)


def full(place: Path) -> StorageFailed:
    return StorageFailed(
        errno.ENOSPC,
        "the disk is full, but for a rest that is kept for acks and deletions: make room, or consume "
        "messages, and go on",
        str(place),
    )
