"""Every error of ringpost, and the one place that words them.

`Empty` and `Full` are those of the standard library's module `queue`, and so is `ShutDown` where it exists
(Python 3.13), so that programs written for queue.Queue or multiprocessing.Queue catch what they expect.
"""

from __future__ import annotations

import errno as _errno
import os
import queue
from enum import IntEnum
from queue import Empty as Empty
from queue import Full as Full
from typing import TYPE_CHECKING, Any

from ringpost import ownership, processes

if TYPE_CHECKING or not hasattr(queue, "ShutDown"):

    class ShutDown(Exception):
        """The queue was shut down: no more puts, and nothing left to get."""

else:
    ShutDown = queue.ShutDown


class RingpostError(Exception):
    """Base of the errors that ringpost adds to the standard library's."""


class Stalled(RingpostError, Empty, Full):
    """A process that holds a lock of the queue is alive but does not run (stopped, frozen, swapped out).

    Both an `Empty` and a `Full`, so that code which handles a timeout handles this one too. If it is the
    lock of those who write to the disk, what was put is in the queue, and not confirmed: the exception's
    attribute `put` says how many messages are.
    """


def was_put(error: BaseException) -> bool:
    """What failed came after the put: whoever puts it again puts a copy."""
    return bool(getattr(error, "put", 0))


class MessageTooLarge(RingpostError, ValueError):
    """The message can never fit into this queue: open the queue with more `capacity`."""


class SegmentFull(RingpostError, OSError):
    """The file system of the shared memory (usually /dev/shm) has no room for the queue."""


class CorruptLog(RingpostError):
    """The shared memory does not hold what it must: somebody else wrote to it."""


class StorageFailed(RingpostError, OSError):
    """The disk did not take what was to be stored (full, over quota, broken, gone); or there is no directory
    where queues are to live.

    What was put is not confirmed. It is still in shared memory: it may be delivered, and is stored with the
    next commit that succeeds. The exception's attribute `put`, where it has one, says how many messages
    that are.
    """


class StorageDamaged(CorruptLog):
    """What was stored is not there any more as it was written."""


class LayoutMismatch(RingpostError):
    """The queue was made by an incompatible version of ringpost, or for another kind of machine."""


class NotOurs(RingpostError, PermissionError):
    """The queue's file or directory belongs to somebody else, is open to others, or is a link."""


class KeyRefused(RingpostError, PermissionError):
    """A durable broker's directory is sealed with another key than the one given, or with none."""


class QueueNotFound(RingpostError, LookupError):
    """There is no such queue."""


class QueueDeleted(RingpostError):
    """The queue was deleted while this handle was open."""


class SettingsMismatch(RingpostError, ValueError):
    """The queue exists with other settings than those asked for."""


class EncodeError(RingpostError, TypeError):
    """The object cannot be encoded for this queue. Raised by put(), in the caller."""


class DecodeError(RingpostError, ValueError):
    """A message was taken that cannot be decoded here. It is not lost: it is in this exception.

    Attributes:
        payload: the message's bytes as they were put.
        codec: name of its codec ("pickle", "msgpack", "ndarray", ...).
        sequence: its sequence number in the queue, from 0.
        why: it cannot be decoded here: a part of the text.
        items: what get_many() took together with it and could decode.
        more: further DecodeErrors of the same get_many().
    """

    def __init__(self, message: str, payload: bytes, codec: str, sequence: int, why: str = "") -> None:
        super().__init__(message)
        self.payload = payload
        self.codec = codec
        self.sequence = sequence
        self.why = why or message
        self.items: list[Any] = []
        self.more: list[DecodeError] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodeError, (str(self), self.payload, self.codec, self.sequence), self.__dict__


class Crowded(RingpostError):
    """No room to note what is given back, now. Handled within ringpost."""


class LeftOver(RingpostError):
    """A segment from before a reboot. Never reaches users: the engine removes it."""


class LeaseLost(RingpostError):
    """A message was settled by somebody who no longer holds it.

    Attributes:
        messages: those that were lost.
    """

    def __init__(self, text: str, messages: list[Any] | None = None) -> None:
        super().__init__(text)
        self.messages = messages or []

    def __reduce__(self) -> tuple[Any, ...]:
        return LeaseLost, (str(self),)  # messages belong to their process


class TooManyProcesses(RingpostError):
    """Every participant slot of the queue is taken by a live process."""


class Unsupported(RingpostError):
    """This engine, file system or platform cannot do what was asked for."""


class Status(IntEnum):
    """rp_status of native/include/ringpost.h."""

    OK = 0
    EMPTY = 1
    FULL = 2
    BUSY = 3
    STALLED = 4
    INTERRUPTED = 5
    SHUT_DOWN = 6
    DELETED = 7
    TOO_LARGE = 8
    TOO_SMALL = 9
    LARGE = 10
    TOO_MANY = 11
    CORRUPT = 12
    LAYOUT = 13
    STALE = 14
    NOT_OURS = 15
    NO_SLOT = 16
    NO_SPACE = 17
    EXISTS = 18
    NOT_FOUND = 19
    UNSUPPORTED = 20
    INVALID = 21
    SYSTEM = 22
    RETURNED_FIRST = 23
    COLD = 24


# with these a status is about a group, not about its log
_OF_GROUPS = ("receive from", "acknowledge in", "give messages back to", "extend a lease of", "seek in")

_GRANULE = 8192  # bytes, of the pool


def failure(
    status: int,
    operation: str,
    label: str,
    *,
    path: str = "",
    error: int = 0,
    size: int = 0,
    most: int = 0,
    holder: tuple[int, int] = (0, 0),
    held: str = "",
    waiting: int = 0,
    maxsize: int = 0,
) -> Exception:
    """The exception for a native status: what happened, to which queue, what to do."""
    match status:
        case Status.EMPTY:
            return Empty(f"{label} is empty")
        case Status.FULL:
            if 0 < maxsize <= waiting:
                lack = f"as many messages wait in it as its maxsize={maxsize} allows"
            else:
                lack = f"no room for {size} bytes" if size else "no room for more"
            return Full(f"{label} is full: {lack}; {held or 'its consumers are behind'}")
        case Status.SHUT_DOWN:
            return ShutDown(f"{label} is shut down")
        case Status.STALLED | Status.BUSY:
            return Stalled(
                f"cannot {operation} {label}: {processes.describe(*holder)} holds its lock and is alive, "
                "but does not run "
                "(stopped by a signal, a debugger or a freezer?); continue or kill it"
            )
        case Status.DELETED:
            return QueueDeleted(f"{label} was deleted; open it again to make a new one")
        case Status.TOO_LARGE:
            enough = 2 * -(-max(size, most) // _GRANULE) * _GRANULE  # half of it is the pool
            return MessageTooLarge(
                f"a message of {size} bytes can never fit into {label}: at most {most} bytes; "
                f"make the queue with capacity={enough} or more"
            )
        case Status.CORRUPT:
            return CorruptLog(
                f"{label}: the shared memory at {path} is damaged (not written by ringpost, or "
                "overwritten); delete the queue and make it again"
            )
        case Status.LAYOUT:
            return LayoutMismatch(
                f"{label}: {path} was made by another version of ringpost or for another machine; "
                "let its users finish, delete the queue and make it again, or use one version"
            )
        case Status.NOT_OURS:
            return NotOurs(
                _errno.EACCES,
                f"{label} must be a plain file of mode 0600 owned by uid {os.geteuid()} (of mode 0660 and "
                "of its "
                f"directory's group, for a broker of a group), but {_what_is_there(path)}; remove it, or "
                "use another "
                "name",
                path,
            )
        case Status.NO_SLOT if operation == "subscribe to":
            return TooManyProcesses(
                f"{label}: every place for a subscriber is taken; unsubscribe() those that nobody needs"
            )
        case Status.NO_SLOT if operation == "give messages back to":
            return Crowded(f"{label}: so much is in consumers' hands, in bits and pieces, that no more fits")
        case Status.NO_SLOT:
            return TooManyProcesses(
                f"{label}: all its participant slots are taken by live processes; end some, or "
                "spread them over several queues"
            )
        case Status.NO_SPACE:
            return SegmentFull(_errno.ENOSPC, _no_space(label, path), path)
        case Status.NOT_FOUND if operation in _OF_GROUPS:
            return QueueDeleted(f"{label}: this subscriber was removed; subscribe() again")
        case Status.NOT_FOUND:
            return QueueNotFound(f"{label} does not exist ({path})")
        case Status.EXISTS:
            return FileExistsError(_errno.EEXIST, f"{label} exists", path)
        case Status.STALE:
            return LeftOver(f"{label}: {path} is from before a reboot")
        case Status.UNSUPPORTED:
            return Unsupported(
                f"{label}: the file system of {path} cannot prove whether a process is alive "
                "(network file system?); set RINGPOST_SHM_DIR to a local tmpfs, ext4 or xfs"
            )
        case Status.INVALID:
            return ValueError(f"cannot {operation} {label}: a size is out of range ({size} bytes)")
        case Status.SYSTEM:
            return OSError(error, f"cannot {operation} {label}: {os.strerror(error)}", path)
        case _:
            return RingpostError(f"cannot {operation} {label}: status {status}")


def describe_hold(group: dict[str, Any], holdings: list[dict[str, Any]]) -> str:
    """Who keeps a ring from going on: a group that is behind, and the processes that hold its messages."""
    who = f"group {group['name']!r} is" if group["name"] else "its consumers are"
    text = f"{who} {group['ready']} messages behind"
    if group["pid"]:
        text += f" in {processes.describe(group['pid'], group['pid_namespace'])}"
    held = [each for each in holdings if each["pid"]]
    if held:
        oldest = min(held, key=lambda each: int(each["sequence"]))
        text += (
            f", with {group['in_flight']} not yet settled: "
            f"{processes.describe(oldest['pid'], oldest['pid_namespace'])} has held message "
            f"{oldest['sequence']} for {oldest['held_ns'] / 1e9:.1f} s"
        )
    return text


def _what_is_there(path: str) -> str:
    if os.path.lexists(path):
        return f"there {ownership.describe(path)}"
    return f"its directory {ownership.describe(os.path.dirname(path))}"


def _no_space(label: str, path: str) -> str:
    directory = os.path.dirname(path)
    try:
        stats = os.statvfs(directory)
        free = f"{stats.f_bavail * stats.f_frsize / 2**20:.1f} MiB free"
    except OSError:
        free = "unknown room"
    return (
        f"no room for {label} in {directory} ({free}): ask for less capacity=, delete queues that "
        "nobody needs, enlarge it (docker run --shm-size=1g; mount -o remount,size=) or set "
        "RINGPOST_SHM_DIR to another directory"
    )
