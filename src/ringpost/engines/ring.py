"""The engine behind ring: URLs: queues in shared memory, one file each."""

from __future__ import annotations

import fnmatch
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from ringpost._binding import binding
from ringpost._binding.contract import Codec, Log, NativeLog
from ringpost.codecs import StandardCodec
from ringpost.engines import Kind, directory, segments
from ringpost.engines.access import Access, access_for
from ringpost.errors import LeftOver, QueueNotFound, RingpostError, SettingsMismatch, Unsupported

if TYPE_CHECKING:
    from ringpost.sidestore import SideStore
    from ringpost.store.format import Retention
    from ringpost.typed import MakeCodec

_GRANULE = 8192  # capacities are rounded down to it
_SIDE_STORE = "side.lmdb"  # sidestore.NAME, without LMDB
_ATTEMPTS = 100  # between looking and making, others may make or delete


class RingEngine:
    """A memory broker: lives until it is destroyed, or until the machine reboots."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.fragment or (parts.query and list(options) != ["group"]):
            raise ValueError(
                f"{url!r}: a ring: URL is ring:NAME, or ring:NAME?group=GROUP; write ? as %3F and # as %23 "
                "in a name"
            )
        self._name = unquote(parts.path)
        self._access = access_for(options.get("group"))
        self._directory = directory.root(self._access) / directory.file_name(self._name, "broker")
        self.url = url

    def _path(self, kind: Kind, name: str) -> Path:
        return self._directory / f"{directory.file_name(name, kind.value)}.{kind.value}"

    def open_log(
        self,
        kind: Kind,
        name: str,
        *,
        capacity: int | None = None,
        maxsize: int | None = None,
        make_codec: MakeCodec | None = None,
        priorities: bool | None = None,
        durability: str | None = None,
        retention: Retention | None = None,
        create: bool = True,
    ) -> Log:
        if durability not in (None, "memory") or retention is not None:
            raise Unsupported(
                f"{self.url} keeps nothing on disk, and so knows no durability or retention: connect to "
                "ring:///DIRECTORY"
            )
        what = _Wanted(
            path=self._path(kind, name),
            label=f"{kind.value} {name!r} of {self.url}",
            access=self._access,
            make_codec=make_codec or StandardCodec,
            settings=dict(
                _SETTINGS[kind],
                capacity=capacity or 0,
                max_messages=max(maxsize or 0, 0),
                levels=bool(priorities),
            ),
        )
        native = _find_or_make(what, create)
        _check_settings(native, capacity, maxsize, priorities)
        log = self._with_levels(native, what) if native.info()["levels"] else native
        if kind is Kind.QUEUE:
            log.on_alarm = _mover(log, self)
        if kind is Kind.REPLIES:
            from ringpost import anonymous

            anonymous.remember(log)
        return log

    def _with_levels(self, log: NativeLog, what: _Wanted) -> Log:
        from ringpost.levels import Levels

        info = log.info()
        settings = {"capacity": info["ring_size"] + info["pool_size"], "max_messages": info["max_messages"]}

        def open_level(priority: int, create: bool) -> Log:
            path = _level_path(what.path, info["log_id"], priority)
            return _find_or_make(replace(what, path=path, settings=settings), create)

        return Levels(log, open_level)

    def delete_log(self, kind: Kind, name: str) -> bool:
        path = self._path(kind, name)
        try:
            info = binding.attach(str(path), "a log that is deleted", StandardCodec("")).info()
        except RingpostError:
            return binding.remove(str(path))
        if (self._directory / _SIDE_STORE).exists():
            self.side_store().forget(info["log_id"])
        was_there = binding.remove(str(path))  # before its levels: who adds one looks whether it is there
        for level in fnmatch.filter(os.listdir(self._directory), _level_path(path, info["log_id"], "*").name):
            binding.remove(str(self._directory / level))
        return was_there

    def side_store(self) -> SideStore:
        from ringpost.sidestore import side_store  # and with it LMDB

        return side_store(self._directory, self._access)

    def list_logs(self, kind: Kind) -> list[str]:
        try:
            with directory.opened(self._directory, self._access) as here:
                names = os.listdir(here)
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            directory.check_base(directory.base())  # says more
            raise
        suffix = "." + kind.value
        return sorted(
            directory.original_name(each.removesuffix(suffix)) for each in names if each.endswith(suffix)
        )

    def destroy(self) -> None:
        for kind in Kind:
            for name in self.list_logs(kind):
                binding.remove(str(self._path(kind, name)))
        directory.remove_fifos(self._directory, everything=True, access=self._access)
        segments.remove_unfinished(self._directory)
        if (self._directory / _SIDE_STORE).exists():
            from ringpost.sidestore import remove_store

            remove_store(self._directory, self._access)
        directory.remove_if_empty(self._directory)

    def flush(self, timeout: float | None = None) -> None:
        """There is nothing to do: shared memory is all there is."""

    def collect(self) -> None:
        """Remove what the dead left of what ends with its process."""
        for name in self.list_logs(Kind.REPLIES):
            binding.collect(str(self._path(Kind.REPLIES, name)))

    def close(self) -> None:
        pass


# 123 subscribers for a topic, for group 0 is nobody's; few leases for each: they lag behind in messages, not
# in leases
_BROADCAST = {"broadcast": True, "keep_history": True, "groups": 124, "leases": 64}
_SETTINGS: dict[Kind, dict[str, Any]] = {
    Kind.QUEUE: {},
    Kind.TOPIC: _BROADCAST,
    Kind.EVENTS: _BROADCAST,
    Kind.REPLIES: {"auto_delete": True},
}


@dataclass(frozen=True)
class _Wanted:
    path: Path
    label: str
    make_codec: MakeCodec
    settings: dict[str, Any]
    access: Access

    def attach(self) -> NativeLog:
        directory.check_if_there(self.path.parent, self.access)
        return binding.attach(str(self.path), self.label, self._codec())

    def create(self) -> NativeLog:
        directory.make(self.path.parent, self.access)
        return segments.create(self.path, self.label, self._codec(), **self.settings)

    def _codec(self) -> Codec:
        return self.make_codec(self.label)


def _find_or_make(what: _Wanted, create: bool) -> NativeLog:
    for _ in range(_ATTEMPTS):
        try:
            return what.attach()
        except LeftOver:
            binding.collect(str(what.path))
            continue
        except QueueNotFound:
            if not create:
                raise
        try:
            return what.create()
        except (FileExistsError, QueueNotFound):
            continue  # made, or its directory destroyed, by somebody else meanwhile
    raise QueueNotFound(f"{what.label} was made and deleted by others all the time; try again")


def _mover(log: Log, engine: RingEngine) -> Callable[[], None]:
    """Puts what is scheduled into its queue when it is due."""
    reference = weakref.ref(log)

    def move_due() -> None:
        from ringpost.scheduled import Schedule

        alive = reference()
        if alive is not None:
            Schedule(alive, engine.side_store).move_due()

    return move_due


def _level_path(path: Path, log_id: bytes, priority: int | str) -> Path:
    """The id is in it, so that a queue which is made anew finds nothing of the one before."""
    return path.with_name(f"{path.stem}.{log_id.hex()}.{priority}.{Kind.LEVEL.value}")


def _check_settings(log: Log, capacity: int | None, maxsize: int | None, priorities: bool | None) -> None:
    info = log.info()
    existing = info["ring_size"] + info["pool_size"]
    if capacity is not None and capacity // _GRANULE * _GRANULE != existing:
        raise SettingsMismatch(
            f"{log.label} exists with capacity={existing}, not {capacity}: ask for the same, leave "
            "capacity out, or delete the queue first"
        )
    if maxsize is not None and max(maxsize, 0) != info["max_messages"]:
        raise SettingsMismatch(
            f"{log.label} exists with maxsize={info['max_messages']}, not {maxsize}: ask for the "
            "same, leave maxsize out, or delete the queue first"
        )
    if priorities is not None and priorities != info["levels"]:
        has = "has" if info["levels"] else "was made without"
        raise SettingsMismatch(f"{log.label} {has} priorities: ask for the same, or delete the queue first")
