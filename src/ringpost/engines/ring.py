"""The engine behind ring: URLs: queues in shared memory, one file each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ringpost._binding import binding
from ringpost._binding.contract import Log
from ringpost.codecs import StandardCodec
from ringpost.engines import directory
from ringpost.errors import LeftOver, QueueNotFound, SettingsMismatch, Unsupported

_GRANULE = 8192  # capacities are rounded down to it
_ATTEMPTS = 100  # between looking and making, others may make or delete


class RingEngine:
    """A memory broker: lives until it is destroyed, or until the machine reboots."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.netloc or parts.path.startswith("/"):
            raise Unsupported(f"{url!r}: this version keeps queues in memory only; use ring:NAME")
        if parts.query or parts.fragment:
            raise ValueError(f"{url!r}: a ring: URL is ring:NAME; write ? as %3F and # as %23 in a name")
        self._name = unquote(parts.path)
        self._directory = directory.root() / directory.file_name(self._name, "broker")
        self.url = url

    def _path(self, name: str) -> Path:
        return self._directory / (directory.file_name(name, "queue") + directory.SUFFIX)

    def open_queue(
        self,
        name: str,
        *,
        capacity: int | None,
        maxsize: int | None,
        pickle: bool,
        create: bool,
    ) -> Log:
        label = f"queue {name!r} of {self.url}"
        path = self._path(name)
        codec = StandardCodec(label, pickle=pickle)
        log = _find_or_make(path, label, codec, capacity or 0, max(maxsize or 0, 0), create)
        _check_settings(log, capacity, maxsize)
        return log

    def delete_queue(self, name: str) -> bool:
        return binding.remove(str(self._path(name)))

    def list_queues(self) -> list[str]:
        try:
            directory.check_private(self._directory)
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        suffix = directory.SUFFIX
        return sorted(
            directory.original_name(each.removesuffix(suffix)) for each in names if each.endswith(suffix)
        )

    def destroy(self) -> None:
        for name in self.list_queues():
            self.delete_queue(name)
        directory.remove_if_empty(self._directory)

    def close(self) -> None:
        pass


def _find_or_make(path: Path, label: str, codec: Any, capacity: int, maxsize: int, create: bool) -> Log:
    for _ in range(_ATTEMPTS):
        directory.check_if_there(path.parent)
        try:
            return binding.attach(str(path), label, codec)
        except LeftOver:
            binding.collect(str(path))
            continue
        except QueueNotFound:
            if not create:
                raise
        directory.make_private(path.parent)
        try:
            return binding.create(str(path), label, codec, capacity=capacity, max_messages=maxsize)
        except (FileExistsError, QueueNotFound):
            continue  # made, or its directory destroyed, by somebody else meanwhile
    raise QueueNotFound(f"{label} was made and deleted by others all the time; try again")


def _check_settings(log: Log, capacity: int | None, maxsize: int | None) -> None:
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
