"""A handle of a log: what all calls on it share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from ringpost._binding._cffi.ending import Owner
from ringpost._binding._cffi.native import FULL, OK, STALLED, TOO_LARGE, Pointer, ffi, fields_of, lib
from ringpost.errors import Unsupported, describe_hold, failure

if TYPE_CHECKING:
    from ringpost._binding._cffi.group import Group
    from ringpost._binding.contract import Codec, Storage

H = TypeVar("H", bound="Handle")

MOST_GROUPS = 128
_STORING = 5.0  # seconds that the disk gets, even of those who do not wait for room


class Handle:
    """One process's handle of a log. Detaches when nobody refers to it, or to what was made of it."""

    __slots__ = (
        "__weakref__",
        "_kept",
        "_storage",
        "closed",
        "codec",
        "is_stored",
        "label",
        "log",
        "on_alarm",
        "on_empty",
        "owner",
        "path",
        "plain",
    )

    log: Pointer
    owner: Owner  # of it
    codec: Codec
    plain: bool  # bytes and str need no codec
    path: str
    label: str
    closed: bool
    on_alarm: Callable[[], None] | None
    on_empty: Callable[[], Callable[[], None] | None] | None
    is_stored: bool  # it has, or had, a storage
    _kept: deque[Any]  # taken, and not yet handed out: see taking.py
    _storage: Storage | None  # None: what the ring loses is lost

    def __init__(self) -> None:
        raise TypeError("logs are opened, not made: see create() and attach()")

    @classmethod
    def open(cls: type[H], out: Pointer, path: str, label: str, codec: Codec) -> H:
        handle = cls.__new__(cls)
        handle.log = out[0]
        handle.owner = Owner(partial(lib.rpc_detach, out))
        handle.path = path
        handle.label = label
        handle.codec = codec
        handle.plain = getattr(codec, "plain", True)
        handle.closed = False
        handle.on_alarm = None
        handle.on_empty = None
        handle.is_stored = False
        handle._storage = None
        handle._kept = deque()
        return handle

    def close(self) -> None:
        """Calls in flight end, later ones raise ValueError. The memory goes with the last reference."""
        if self.closed:
            return
        self.closed = True
        self._storage = None  # which refers to this
        lib.rp_wake_all(self.log)

    def leave(self) -> None:
        lib.rp_leave(self.log)

    # ---- storage -------------------------------------------------------------------------------

    @property
    def storage(self) -> Storage | None:
        return self._storage

    @storage.setter
    def storage(self, storage: Storage | None) -> None:
        self._storage = storage
        self.is_stored = storage is not None

    def need_storage(self) -> Storage:
        """Raises ValueError: closed meanwhile; Unsupported: there is none at all."""
        storage = self._storage
        if storage is None:
            self.check_open()
            raise Unsupported(
                f"{self.label} is in memory: it knows no durability; use a broker with a directory"
            )
        return storage

    def check_durability(self, durability: str) -> None:
        if durability not in ("memory", "interval", "commit"):
            raise ValueError(f"'durability' is 'memory', 'interval' or 'commit', not {durability!r}")
        if durability != "memory":
            self.need_storage()

    def confirm(self, durability: str | None, block: bool, timeout: float | None) -> None:
        """What was put is to be as durable as was asked for."""
        if not block:
            timeout = _STORING
        elif timeout is not None:
            timeout = max(timeout, _STORING)
        self.need_storage().after_put(durability, timeout)

    def note_settled(self) -> None:
        storage = self._storage
        if storage is not None:
            storage.after_settle()

    def made_room(self) -> bool:
        """A full ring may be one that storage has not yet got."""
        return self.is_stored and self.need_storage().make_room()

    # ---- failing -------------------------------------------------------------------------------

    def fail(self, status: int, operation: str, size: int = 0) -> Exception:
        error = ffi.errno
        holder = (lib.rp_holder(), lib.rp_holder_namespace()) if status == STALLED else (0, 0)
        info = ffi.new("rp_info *")
        if status in (TOO_LARGE, FULL):
            lib.rp_get_info(self.log, info)
        return failure(
            status,
            operation,
            self.label,
            path=self.path,
            error=error,
            size=size,
            most=info.max_payload,
            holder=holder,
            held=self._held_back() if status == FULL else "",
            waiting=info.ready,
            maxsize=info.max_messages,
        )

    def _held_back(self) -> str:
        """Who keeps the ring full, if it is not just the queue's consumers being behind."""
        groups = self.groups()
        if not groups or (len(groups) == 1 and not groups[0]["name"] and groups[0]["in_flight"] == 0):
            return ""
        slowest = max(groups, key=itemgetter("lag_bytes"))
        return describe_hold(slowest, self._group_of(slowest["handle"]).holdings())

    def check_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self.label} is closed: this handle was closed before")

    def interrupted(self) -> None:
        """Between two slices of a wait: our own close(), and what is due."""
        self.look_at_alarm()
        self.check_open()

    def look_at_alarm(self) -> None:
        if self.on_alarm is not None and lib.rp_alarm_rings(self.log):
            self.on_alarm()

    # ---- groups --------------------------------------------------------------------------------

    def _group_of(self, handle: int) -> Group:
        from ringpost._binding._cffi.group import group_of

        return group_of(self, handle)

    def groups(self) -> list[dict[str, Any]]:
        """Information on each open group, group 0 first."""
        self.check_open()
        info = ffi.new("rp_group_info *")
        return [
            group_fields(info)
            for number in range(MOST_GROUPS)
            if lib.rp_get_group_info(self.log, number, info) == OK
        ]


def group_fields(info: Pointer) -> dict[str, Any]:
    fields = fields_of(info)
    for name in ("name", "pattern"):
        fields[name] = fields[name].decode("utf-8", "replace")
    return fields
