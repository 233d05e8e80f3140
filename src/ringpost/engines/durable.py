"""The engine behind ring:///DIRECTORY: queues in shared memory, and in a directory on disk."""

from __future__ import annotations

import builtins
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ringpost._binding import binding
from ringpost._binding.contract import Log, NativeLog
from ringpost.codecs import StandardCodec
from ringpost.engines import Kind, ring
from ringpost.engines.access import PRIVATE, Access, access_for
from ringpost.errors import (
    QueueDeleted,
    QueueNotFound,
    RingpostError,
    SettingsMismatch,
    Status,
    failure,
)
from ringpost.keys import Key, from_environment, remember
from ringpost.stats import Recovered
from ringpost.store import format as form
from ringpost.store.environment import PATIENCE, SIDE, Environment, forget_environment, open_environment
from ringpost.store.log import StoredLog, check_durability
from ringpost.store.registry import Registry
from ringpost.store.transactions import Transactions
from ringpost.store.values import OF_THE_SIDE_STORE
from ringpost.store.writer import Writer, writer_of

if TYPE_CHECKING:
    from ringpost.sidestore import SideStore
    from ringpost.typed import MakeCodec

_log = logging.getLogger("ringpost")

DURABLE = (Kind.QUEUE, Kind.TOPIC, Kind.LEVEL)  # the others live as long as shared memory
_DEFAULT = "commit"
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class DurableEngine(ring.RingEngine):
    """A broker that survives reboots. Its rings lie in a directory of their own in shared memory, named by
    it."""

    def __init__(self, url: str, key: Key | None = None) -> None:
        """`key`: None: the one that the environment says, if it does. Raises ValueError."""
        parts = urlsplit(url)
        if parts.netloc or parts.fragment:
            raise ValueError(f"{url!r}: a durable broker is ring:///absolute/directory; write # as %23")
        self.url = url
        self._place = Path(unquote(parts.path))
        self._most_bytes, self._access = _options(url, parts.query)
        self.key = key or from_environment()
        self._opened: Environment | None = None
        self._is_destroyed = False
        self.recovered: tuple[Recovered, ...] = ()

    @classmethod
    def of(cls, environment: Environment) -> DurableEngine:
        """Of one that is open."""
        engine = cls(f"ring://{quote(str(environment.place.resolve()))}")
        engine._opened, engine._access = environment, environment.access
        return engine

    # ---- what is there -------------------------------------------------------------------------

    def _environment(self) -> Environment:
        """Made by the first call; what is destroyed underneath is not made again."""
        if self._opened is None or self._is_destroyed:
            self._opened = open_environment(self._place, key=self.key, access=self._access)
            self._is_destroyed = False
            remember(self.url, self.key)
        return self._opened

    def _writer(self) -> Writer:
        writer = writer_of(self._environment(), self._most_bytes)
        if writer.transactions is None:
            writer.transactions = Transactions(self._environment(), writer, self._open_stored)
        return writer

    def transactions(self) -> Transactions:
        transactions = self._writer().transactions
        assert transactions is not None
        return transactions

    def _open_stored(self, kind: str, name: str, timeout: float | None = PATIENCE) -> NativeLog:
        wanted = _Wanted(self, Kind(kind), name, StandardCodec)
        with self._environment().alone(timeout):
            return wanted.open_ring(wanted.find_or_add(create=False))[0]

    @property
    def _directory(self) -> Path:  # type: ignore[override]
        """Also of one that was destroyed: what is left of it may be removed."""
        return (self._opened or self._environment()).shm

    # ---- logs ----------------------------------------------------------------------------------

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
        retention: form.Retention | None = None,
        create: bool = True,
    ) -> Log:
        if kind not in DURABLE:
            return super().open_log(
                kind, name, capacity=capacity, maxsize=maxsize, make_codec=make_codec, create=create
            )
        if durability is not None:
            check_durability(durability)
        wanted = _Wanted(self, kind, name, make_codec or StandardCodec)
        with self._environment().alone():
            record = wanted.find_or_add(
                create,
                durability=durability or _DEFAULT,
                capacity=capacity or None,
                max_messages=max(maxsize or 0, 0),
                priorities=bool(priorities),
                retention=retention if retention is not None else _default_retention(kind),
            )
            native, is_new = wanted.open_ring(record)
        if is_new:
            self._note_what_was_recovered(wanted, native)
        self._finish_removals()
        self.transactions().finish_those_of_the_dead(PATIENCE, (kind.value, name))
        _check_settings(wanted.label, record, durability, retention)
        ring._check_settings(native, capacity, maxsize, priorities)
        log: Log = native
        if record.priorities:
            log = self._with_stored_levels(native, wanted, record)
        if kind is Kind.QUEUE:
            log.on_alarm = ring._mover(log, self)
        return log

    def _note_what_was_recovered(self, wanted: _Wanted, log: NativeLog) -> None:
        info = log.info()
        found = Recovered(wanted.kind.value, wanted.name, info["next_sequence"], info["unfinished"])
        if found.next_sequence:
            self.recovered += (found,)
            _log.info("%s goes on from disk at message %d; %d wait in it", wanted.label, *found[2:])

    def _with_stored_levels(self, native: NativeLog, wanted: _Wanted, record: form.LogRecord) -> Log:
        from ringpost.levels import Levels

        def open_level(priority: int, create: bool) -> Log:
            level = replace(wanted, kind=Kind.LEVEL, name=_level_name(wanted.name, priority))
            with self._environment().alone():
                wanted.check_there(record)
                found = level.find_or_add(
                    create,
                    durability=record.durability,
                    capacity=record.capacity,
                    max_messages=record.max_messages,
                    priorities=False,
                    retention=None,
                )
                return level.open_ring(found)[0]

        return Levels(native, open_level)

    def delete_log(self, kind: Kind, name: str) -> bool:
        if kind not in DURABLE:
            return super().delete_log(kind, name)
        environment = self._environment()
        with environment.alone():
            was_there = Registry(environment).remove(kind.value, name)
        self._finish_removals()
        return was_there

    def _finish_removals(self) -> None:
        """Of what somebody has deleted, who died perhaps before everything of it was gone."""
        registry = Registry(self._environment())
        for number, removed in registry.removed():
            try:
                self._finish_removal(registry, number, removed)
            except RingpostError as error:  # whoever comes next does it
                _log.warning("what is left of a deleted queue is not yet removed: %s", error)

    def _finish_removal(self, registry: Registry, number: bytes, removed: form.RemovedRecord) -> None:
        kind, name = form.kind_and_name(removed.key)
        with self._environment().alone():
            if registry.find(kind, name) is None:  # else there is another one's ring
                binding.remove(str(self._path(Kind(kind), name)))
        if (self._environment().place / SIDE).exists():
            self.side_store().forget(removed.id)
        is_left = True
        while is_left:
            with self._environment().alone():  # others' turn in between
                is_left = registry.delete_some(number)

    def list_logs(self, kind: Kind) -> list[str]:
        if kind not in DURABLE:
            return super().list_logs(kind)
        return sorted(Registry(self._environment()).names(kind.value))

    def side_store(self) -> SideStore:
        from ringpost.sidestore import durable_side_store

        environment = self._opened or self._environment()
        environment.catch_up()  # nothing is sealed with a key that somebody has rotated
        values = environment.values(OF_THE_SIDE_STORE)
        return durable_side_store(environment.place / SIDE, self._access, values, environment.shm)

    def destroy(self) -> None:
        from ringpost.engines import directory, segments
        from ringpost.sidestore import close_store

        environment = self._environment()
        for kind in Kind:
            for name in self.list_logs(kind):
                binding.remove(str(self._path(kind, name)))
        directory.remove_fifos(environment.shm, everything=True, access=self._access)
        segments.remove_unfinished(environment.shm)
        close_store((environment.place / SIDE).resolve())
        environment.remove_doors()
        directory.remove_if_empty(environment.shm)
        forget_environment(environment)
        self._is_destroyed = True
        directory.remove_unfinished(environment.place.parent)
        try:
            environment.place.rmdir()
        except OSError:
            pass  # something else is in it

    def rotate_key(self, key: Key) -> None:
        self._environment().rotate_key(key)
        self.key = key
        remember(self.url, key)

    def backup(self, path: str | os.PathLike[str]) -> None:
        from ringpost.store.checking import backup

        backup(self._environment(), Path(path), self.flush)

    def flush(self, timeout: float | None = None) -> None:
        """Also of logs that nobody here has open any more."""
        opened = []
        for kind in DURABLE:
            for name in self.list_logs(kind):
                try:
                    opened.append(self._open_stored(kind.value, name))
                except QueueNotFound:
                    continue  # deleted meanwhile
        for log in opened:
            log.flush(timeout)

    def storage_of_ring(self, kind: str, name: str) -> StoredLog | None:
        """Of a log, if its ring is there."""
        if not self._path(Kind(kind), name).exists():
            return None
        log = self._open_stored(kind, name)
        assert isinstance(log.storage, StoredLog)
        return log.storage


@dataclass(frozen=True)
class _Wanted:
    engine: DurableEngine
    kind: Kind
    name: str
    make_codec: Callable[[str], Any]

    @property
    def label(self) -> str:
        return f"{self.kind.value} {self.name.partition(chr(0))[0]!r} of {self.engine.url}"

    def find_or_add(self, create: bool, **settings: Any) -> form.LogRecord:
        from ringpost.engines import directory

        directory.file_name(self.name, self.kind.value)  # may it be named so?
        registry = Registry(self.engine._environment())
        record = registry.find(self.kind.value, self.name)
        if record is None and not create:
            raise QueueNotFound(f"{self.label} does not exist")
        if record is not None:
            return record
        self._check_capacity(settings["capacity"])
        return registry.add(self.kind.value, self.name, **settings)

    def _check_capacity(self, capacity: int | None) -> None:
        """Before it is stored: else the name would be taken, and no ring could be made. Raises ValueError."""
        if capacity is not None and not form.LEAST_CAPACITY <= capacity <= form.MOST_CAPACITY:
            raise failure(Status.INVALID, "create", self.label, size=capacity)

    def check_there(self, record: form.LogRecord) -> None:
        """Raises QueueDeleted."""
        found = Registry(self.engine._environment()).find(self.kind.value, self.name)
        if found is None or found.number != record.number:
            raise QueueDeleted(f"{self.label} was deleted; open it again to make a new one")

    def open_ring(self, record: form.LogRecord) -> tuple[NativeLog, bool]:
        """Its storage is in place before anybody uses it."""
        engine = self.engine
        path, label = engine._path(self.kind, self.name), self.label
        settings = dict(ring._SETTINGS.get(self.kind, {}), stored=True, levels=record.priorities)
        settings.update(capacity=record.capacity or 0, max_messages=record.max_messages)
        wanted = ring._Wanted(
            path=path, label=label, make_codec=self.make_codec, settings=settings, access=engine._access
        )

        def create(where: dict[str, Any]) -> NativeLog:
            made = replace(wanted, settings={**settings, **where}).create()
            self._mark(made, record)
            return made

        registry, writer = Registry(engine._environment()), engine._writer()
        native, is_new = registry.open_ring(record, path, wanted.attach, create)
        native.storage = writer.storage_of(wanted.attach(), record, label, (self.kind.value, self.name))
        return native, is_new

    def _mark(self, made: NativeLog, record: form.LogRecord) -> None:
        """What a ring says that its storage does not. Before it counts: who dies here has made none."""
        if record.priorities:
            from ringpost.levels import HIGHEST

            known = set(Registry(self.engine._environment()).names(Kind.LEVEL.value))
            for priority in range(1, HIGHEST + 1):
                if _level_name(self.name, priority) in known:
                    made.add_level(priority)
        if self.kind is Kind.QUEUE and (self.engine._environment().place / SIDE).exists():
            made.set_alarm(1)  # something may be scheduled


def _default_retention(kind: Kind) -> form.Retention | None:
    return form.Retention(bytes=8 << 20) if kind is Kind.TOPIC else None


def _level_name(name: str, priority: int) -> str:
    return f"{name}\0{priority}"


def _options(url: str, query: str) -> tuple[int | None, Access]:
    """max_bytes and group."""
    most, access = None, PRIVATE
    for key, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        if key == "group":
            access = access_for(value)
            continue
        if key != "max_bytes":
            raise ValueError(f"{url!r}: a durable broker knows the options max_bytes and group, not {key!r}")
        number, unit = value.rstrip("bB").lower().rstrip("kmgt"), value.rstrip("bB").lower()[-1:]
        if not number.isdigit():
            raise ValueError(f"{url!r}: max_bytes is a number of bytes, with k, m, g or t, not {value!r}")
        most = int(number) * _UNITS[unit if unit.isalpha() else ""]
    return most, access


def _check_settings(
    label: str, record: form.LogRecord, durability: str | None, retention: form.Retention | None
) -> None:
    if durability is not None and durability != record.durability:
        raise SettingsMismatch(
            f"{label} exists with durability={record.durability!r}, not {durability!r}: ask for the same, "
            f"leave it "
            "out, or say it with each put()"
        )
    if retention is not None and retention != record.retention:
        raise SettingsMismatch(f"{label} exists with another retention: ask for the same, or leave it out")


__all__: builtins.list[str] = ["DurableEngine"]
