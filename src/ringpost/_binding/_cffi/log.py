"""Logs: making, finding and removing them, and what is neither putting nor taking."""

from __future__ import annotations

import os
from typing import Any, cast, final

from ringpost._binding import contract
from ringpost._binding._cffi import place, records
from ringpost._binding._cffi.group import Group, group_of
from ringpost._binding._cffi.native import (
    EMPTY,
    INTERRUPTED,
    NOT_FOUND,
    OK,
    PATIENCE,
    QUEUE_GROUP,
    TOO_MANY,
    Pointer,
    deadline_of,
    ffi,
    fields_of,
    lib,
    monotonic_ns,
)
from ringpost._binding._cffi.place import Loan
from ringpost._binding._cffi.putting import Putting
from ringpost._binding._cffi.taking import Taking
from ringpost._binding._cffi.watch import Watch, open_watch
from ringpost.errors import failure


@final
class Log(Putting, Taking):
    """One process's handle of a log. Detaches when nobody refers to it any more."""

    __slots__ = ()

    # ---- in place, and many --------------------------------------------------------------------

    def borrow(self, size: int, block: bool = True, timeout: float | None = None) -> Loan:
        self.check_open()
        return place.borrow(self, size, deadline_of(block, timeout))

    def commit(
        self,
        loan: contract.Loan,
        kind: int,
        subject_len: int = 0,
        headers_len: int = 0,
        ttl_ms: int = 0,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> None:
        cast(Loan, loan).commit(kind, subject_len, headers_len, ttl_ms, block, timeout, durability)

    def put_records(
        self,
        kind: int,
        head: bytes,
        items: Any,
        item: int,
        block: bool = True,
        timeout: float | None = None,
        durability: str | None = None,
    ) -> int:
        return records.put_records(self, kind, head, items, item, block, timeout, durability)

    def peek(self, block: bool = True, timeout: float | None = None) -> tuple[int, bytes, int] | None:
        return records.peek(self, block, timeout)

    def take_records(self, kind: int, head: bytes, items: Any, item: int) -> int:
        return records.take_records(self, kind, head, items, item)

    # ---- the alarm -----------------------------------------------------------------------------

    def set_alarm(self, when_ns: int) -> None:
        """From then on (ns since the epoch) calls that take messages call `on_alarm` first; 0: no more."""
        lib.rp_set_alarm(self.log, when_ns)

    def alarm(self) -> int:
        return int(lib.rp_alarm(self.log))

    # ---- several logs as one -------------------------------------------------------------------

    def levels(self) -> int:
        return int(lib.rp_levels(self.log))

    def add_level(self, level: int) -> None:
        lib.rp_add_level(self.log, level)

    def listen(self) -> int:
        self.check_open()
        return int(lib.rp_bell_listen(self.log))

    def wait_for_bell(self, heard: int, timeout: float | None = None) -> None:
        status = lib.rp_bell_wait(self.log, heard, deadline_of(True, timeout))
        self.interrupted()
        if status not in (OK, INTERRUPTED):
            raise self.fail(status, "receive from")

    def ring(self) -> None:
        lib.rp_bell_ring(self.log)

    # ---- groups --------------------------------------------------------------------------------

    def group(self) -> Group:
        """The group that every log has: the queue's consumers."""
        return group_of(self, QUEUE_GROUP)

    def open_group(
        self,
        name: str,
        pattern: str = "",
        *,
        policy: int = 0,
        from_start: bool = False,
        lossy: bool = False,
        ends_with_us: bool = False,
        start: tuple[int, int] | None = None,
    ) -> tuple[Group, bool]:
        text = ffi.new("char[]", pattern.encode())
        self.check_open()
        settings = ffi.new("rp_group_settings *")
        settings.pattern = text
        settings.policy = policy
        settings.from_start = bool(from_start)
        settings.lossy = bool(lossy)
        settings.ends_with_us = bool(ends_with_us)
        if from_start and start is None and self.is_stored:
            with self.need_storage().keeping_first() as first:
                return self._open_group_at(name, settings, first)
        return self._open_group_at(name, settings, start)

    def _open_group_at(
        self, name: str, settings: Pointer, start: tuple[int, int] | None
    ) -> tuple[Group, bool]:
        deadline = monotonic_ns() + PATIENCE
        settings.placed = start is not None
        settings.position, settings.sequence = start or (0, 0)
        handle, made = ffi.new("uint32_t *"), ffi.new("bool *")
        while (
            status := lib.rp_group_open(self.log, name.encode(), settings, deadline, handle, made)
        ) == INTERRUPTED:
            self.interrupted()
        if status != OK:
            raise self.fail(status, "subscribe to")
        return group_of(self, handle[0]), made[0]

    # ---- descriptors ---------------------------------------------------------------------------

    def watch_space(self, timed: bool = False) -> Watch:
        return open_watch(self, lib.RP_WATCH_SPACE, 0, timed)

    def watch_bell(self, timed: bool = False) -> Watch:
        return open_watch(self, lib.RP_WATCH_BELL, 0, timed)

    def watch_join(self, timed: bool = False) -> Watch:
        return open_watch(self, lib.RP_WATCH_JOIN, 0, timed)

    # ---- control -------------------------------------------------------------------------------

    def size(self) -> int:
        self.check_open()
        count = ffi.new("uint64_t *")
        self._check_look(lib.rp_ready(self.log, count))
        return int(count[0])

    def full(self) -> bool:
        self.check_open()
        answer = ffi.new("bool *")
        self._check_look(lib.rp_is_full(self.log, answer))
        return bool(answer[0])

    def info(self) -> dict[str, Any]:
        self.check_open()
        info = ffi.new("rp_info *")
        self._check_look(lib.rp_get_info(self.log, info))
        return {**fields_of(info), "log_id": bytes(ffi.buffer(info.log_id))}

    def _check_look(self, status: int) -> None:
        if status != OK:
            raise self.fail(status, "look at")

    def task_done(self) -> None:
        self.check_open()
        status = lib.rp_task_done(self.log)
        if status == TOO_MANY:
            raise ValueError("task_done() called too many times")
        if status != OK:
            raise self.fail(status, "call task_done() on")

    def join(self, timeout: float | None = None) -> None:
        self.check_open()
        deadline = deadline_of(True, timeout)
        while (status := lib.rp_join(self.log, deadline)) != OK:
            if status == EMPTY:
                raise TimeoutError(f"{self.label}: tasks were still unfinished after {timeout} s")
            if status != INTERRUPTED:
                raise self.fail(status, "join")
            self.interrupted()

    def shutdown(self, immediate: bool = False) -> None:
        deadline = monotonic_ns() + PATIENCE
        self.check_open()
        while (status := lib.rp_shut_down(self.log, bool(immediate), deadline)) != OK:
            if status != INTERRUPTED:
                raise self.fail(status, "shut down")
            self.interrupted()


# ---- making, finding, removing ---------------------------------------------------------------------


def create(
    path: str,
    label: str,
    codec: contract.Codec,
    *,
    capacity: int = 0,
    max_messages: int = 0,
    groups: int = 0,
    leases: int = 0,
    broadcast: bool = False,
    keep_history: bool = False,
    auto_delete: bool = False,
    levels: bool = False,
    stored: bool = False,
    log_id: bytes | None = None,
    first_position: int = 0,
    first_sequence: int = 0,
    first_done: int = 0,
) -> Log:
    name = _path_bytes(path, label)
    settings = ffi.new("rp_settings *")
    settings.capacity = capacity
    settings.max_messages = max_messages
    settings.groups = groups
    settings.leases = leases
    settings.broadcast = bool(broadcast)
    settings.keep_history = bool(keep_history)
    settings.auto_delete = bool(auto_delete)
    settings.levels = bool(levels)
    settings.stored = bool(stored)
    settings.first_position = first_position
    settings.first_sequence = first_sequence
    settings.first_done = first_done
    if log_id is not None:
        if len(log_id) != 16:
            raise ValueError("a log's id has 16 bytes")
        id_bytes = ffi.new("uint8_t[]", log_id)
        settings.log_id = id_bytes
    out = ffi.new("rp_log **")
    status = lib.rp_create(name, settings, out)
    if status != OK:
        raise failure(status, "create", label, path=path, error=ffi.errno, size=capacity)
    return Log.open(out, path, label, codec)


def attach(path: str, label: str, codec: contract.Codec) -> Log:
    out = ffi.new("rp_log **")
    status = lib.rp_attach(_path_bytes(path, label), out)
    if status != OK:
        raise failure(status, "open", label, path=path, error=ffi.errno)
    return Log.open(out, path, label, codec)


def remove(path: str) -> bool:
    """Delete the log's file and tell whoever is attached. False if there is none."""
    status = lib.rp_remove(_path_bytes(path))
    if status not in (OK, NOT_FOUND):
        raise failure(status, "delete", path, path=path, error=ffi.errno)
    return bool(status == OK)


def collect(path: str) -> bool:
    """Unlink the file if it is left over; see rp_collect."""
    return bool(lib.rp_collect(_path_bytes(path)) == OK)


def _path_bytes(path: str, label: str = "") -> bytes:
    if not isinstance(path, str) or not isinstance(label, str):
        raise TypeError(f"a path and a label are str, not {type(path).__name__} and {type(label).__name__}")
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError(f"embedded null character in the path {path!r}")
    return encoded
