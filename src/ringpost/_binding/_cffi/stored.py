"""Logs with storage. See contract.py, and native/src/stored.h."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from ringpost._binding._cffi.handle import MOST_GROUPS
from ringpost._binding._cffi.native import (
    COLD,
    CORRUPT,
    EMPTY,
    FRAME,
    HEADER,
    INTERRUPTED,
    NEVER,
    NOT_FOUND,
    OK,
    PATIENCE,
    TOO_SMALL,
    Pointer,
    align,
    ffi,
    lib,
    monotonic_ns,
    nanoseconds,
)

if TYPE_CHECKING:
    from ringpost._binding._cffi.log import Log

_NOBODY = 0xFFFFFFFFFFFFFFFF
_HELD: int = ffi.sizeof("rp_held")


@final
class Stored:
    """A stored log as its storage sees it. `door` is the log whose lock all writers of one storage share."""

    __slots__ = ("_door", "log")

    def __init__(self, log: Log, door: Log) -> None:
        self.log = log
        self._door = door
        if log is None or door is None:
            raise TypeError("a stored log has a log and a door")

    def entering(self, position: int, timeout: float | None = None) -> Turn:
        """`with stored.entering(position) as lead`: True: it falls to the caller to write, and nobody else
        does meanwhile. False: everything below `position` is in storage. Raises Stalled."""
        deadline = NEVER if timeout is None else monotonic_ns() + nanoseconds(timeout)
        return Turn(self.log, self._door, position, deadline)

    def tail(self) -> int:
        return int(lib.rp_tail(self.log.log))

    def durable(self) -> int:
        return int(lib.rp_durable(self.log.log))

    def set_durable(self, position: int) -> None:
        lib.rp_set_durable(self.log.log, position)

    def needed(self) -> int | None:
        """The position below which no group needs anything; None: there is no group."""
        position = int(lib.rp_needed(self.log.log))
        return None if position == _NOBODY else position

    def range(self, position: int, limit: int) -> tuple[memoryview, int, int, int, int] | None:
        """Frames in the ring from `position` on: (view, end, first sequence, count, how many are large).
        None: there are none. The view is good until set_durable() passes it."""
        found = ffi.new("rp_range *")
        status = lib.rp_stored_range(self.log.log, position, limit, found)
        if status == EMPTY:
            return None
        if status != OK:
            raise self.log.fail(status, "store frames of")
        view = _view(found.data, found.end - found.position)
        return view, found.end, found.sequence, found.count, found.large

    def sequence_at(self, position: int) -> int:
        """Of the frame at a position that is not below durable()."""
        found = ffi.new("rp_range *")
        status = lib.rp_stored_range(self.log.log, position, 0, found)
        if status not in (EMPTY, TOO_SMALL):
            raise self.log.fail(status, "store frames of")
        return int(found.sequence)

    def payloads(self, frames: memoryview) -> list[tuple[int, memoryview]]:
        """(sequence, view of the payload) of each large frame of a range."""
        found = []
        at = 0
        with ffi.from_buffer(frames) as memory:
            while at + HEADER <= len(memory):
                size, _, flags, _, sequence, _, _, _ = FRAME.unpack_from(frames, at)
                if size < HEADER:
                    raise self.log.fail(CORRUPT, "store frames of")
                if flags & lib.RP_FRAME_LARGE:
                    descriptor = ffi.cast("rp_descriptor *", memory + at + HEADER)
                    data = lib.rp_pool_data(self.log.log, descriptor)
                    if not data:
                        raise self.log.fail(CORRUPT, "store frames of")
                    found.append((sequence, _view(data, descriptor.length)))
                at += align(size)
        return found

    def copy(self, position: int, size: int) -> bytes | None:
        """Frames in the ring, copied; b"": there are none; None: the ring has lost them."""
        found = ffi.new("rp_range *")
        buffer = ffi.new("char[]", size)
        status = lib.rp_copy_frames(self.log.log, position, buffer, size, found)
        if status == COLD:
            return None
        if status not in (OK, EMPTY):
            raise self.log.fail(status, "read")
        return bytes(ffi.buffer(buffer, found.end - position))

    def groups(self) -> list[tuple[bytes, bytes, int, int, int, int, bytes]]:
        """What is to be stored of each group: a list of (name, pattern, policy, read, its sequence, acked,
        held) with `held` as bytes, sizeof(rp_held) each."""
        deadline = monotonic_ns() + PATIENCE
        info = ffi.new("rp_group_info *")
        found = []
        for number in range(MOST_GROUPS):
            if lib.rp_get_group_info(self.log.log, number, info) == OK and not info.lossy:
                found += self._group(info.handle, deadline)
        return found

    def _group(self, handle: int, deadline: int) -> list[tuple[bytes, bytes, int, int, int, int, bytes]]:
        """None, if it does not stay."""
        state = ffi.new("rp_group_state *")
        size, status = 64, INTERRUPTED
        while status in (INTERRUPTED, TOO_SMALL):
            held = ffi.new("rp_held[]", size)
            status = lib.rp_group_export(self.log.log, handle, state, held, size, deadline)
            if status == TOO_SMALL:
                size = state.held + 64
        if status == NOT_FOUND or (status == OK and not state.stays):
            return []
        if status != OK:
            raise self.log.fail(status, "store a group of")
        name, pattern = ffi.string(state.name), ffi.string(state.pattern)
        place = state.policy, state.read, state.read_sequence, state.acked
        return [(name, pattern, *place, bytes(ffi.buffer(held, state.held * _HELD)))]

    def restore_group(
        self, name: bytes, pattern: bytes, policy: int, read: int, sequence: int, acked: int, held: bytes
    ) -> None:
        """In a log that was just made: a group as groups() gave it."""
        if len(name) >= lib.RP_GROUP_NAME or len(pattern) >= lib.RP_PATTERN or len(held) % _HELD:
            raise ValueError("not a group")
        state = ffi.new("rp_group_state *")
        state.name = name
        state.pattern = pattern
        state.policy = policy
        state.read = read
        state.read_sequence = sequence
        state.acked = acked
        state.held = len(held) // _HELD
        entries = ffi.new("rp_held[]", max(state.held, 1))
        ffi.memmove(entries, held, len(held))
        status = lib.rp_group_import(self.log.log, state, entries, monotonic_ns() + PATIENCE)
        if status != OK:
            raise self.log.fail(status, "restore a group of")


@final
class Turn:
    """Of one writer: what Stored.entering() gives, for one `with`. A signal handler may raise between any two
    steps of Python, and a door that nobody leaves is shut as long as the process lives. So C says whether it
    is to be left, and leaves it: when the statement ends, or when nobody refers to this any more. (One more
    handler that raises while __enter__ handles what the first one raised: then the door is left with the
    traceback.)"""

    __slots__ = ("_deadline", "_door", "_ending", "_log", "_position", "_turn")

    def __init__(self, log: Log, door: Log, position: int, deadline: int) -> None:
        self._log = log
        self._door = door
        self._position = position
        self._deadline = deadline
        self._turn = ffi.new("rpc_turn *", (door.log, False))
        self._ending = ffi.gc(self._turn, lib.rpc_leave)

    def __enter__(self) -> bool:
        status = INTERRUPTED
        try:
            while status == INTERRUPTED:
                status = lib.rpc_enter(self._log.log, self._turn, self._position, self._deadline)
            if status != OK:
                raise self._log.fail(status, "store what was put into")
            lead: bool = self._turn.lead
            return lead
        except BaseException:
            lib.rpc_leave(self._turn)
            raise

    @property
    def __exit__(self) -> Callable[..., None]:
        """Python looks it up before it enters: a function of C, in which no signal handler runs."""
        exit_: Callable[..., None] = self._ending.__exit__
        return exit_


def _view(data: Pointer, size: int) -> memoryview:
    return memoryview(ffi.buffer(ffi.cast("char *", data), size)).toreadonly()


# ---- frames in private memory ----------------------------------------------------------------------


def let_go(data: Any) -> bool:
    """These bytes lie in a file that is mapped: what was read of it is not to count as this process's memory.
    False: they do not."""
    with ffi.from_buffer(data) as memory:
        return bool(lib.rp_let_go(memory))


def frames_from_end(data: Any, count: int) -> int:
    """The offset of the `count`-th last frame; 0 if there are fewer. Raises ValueError: not frames."""
    if not 0 < count <= 256:
        raise ValueError("'count' must be 1 to 256")
    at = ffi.new("size_t *")
    with ffi.from_buffer(data) as memory:
        if not lib.rpc_frames_from_end(memory, len(memory), count, at):
            raise ValueError(f"no frame at byte {at[0]} of {len(memory)}")
    return int(at[0])


def find_frame(data: Any, sequence: int, time_ns: int) -> tuple[int, int] | None:
    """(offset, sequence) of the first frame with at least this sequence and time; None. Raises ValueError."""
    at = ffi.new("size_t *")
    with ffi.from_buffer(data) as memory:
        if not lib.rpc_find_frame(memory, len(memory), sequence, time_ns, at):
            raise ValueError(f"no frame at byte {at[0]} of {len(memory)}")
        if at[0] == len(memory):
            return None
        return int(at[0]), int(FRAME.unpack_from(data, at[0])[4])
