"""Engines: what moves the messages. `connect()` picks one by its URL's scheme.

An engine is a class found through the entry point group `ringpost.engines`, called with the URL. Everything
above it (Broker, Queue) knows only the two protocols here.
"""

from __future__ import annotations

from enum import Enum
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from ringpost._binding.contract import Log
from ringpost.errors import Unsupported

if TYPE_CHECKING:
    from ringpost.keys import Key
    from ringpost.sidestore import SideStore
    from ringpost.store.format import Retention
    from ringpost.typed import MakeCodec


class Kind(Enum):
    """What a name means. Each kind has names of its own."""

    QUEUE = "queue"
    TOPIC = "topic"
    EVENTS = "events"
    REPLIES = "replies"  # a queue that ends with the process which made it
    LEVEL = "level"  # what a queue keeps of one priority


class Engine(Protocol):
    """One broker's queues, topics and event buses."""

    @property
    def url(self) -> str: ...
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
        """Find or make one; `make_codec` makes its codec of its label.

        Raises QueueNotFound, SettingsMismatch, and what the engine adds.
        """

    def delete_log(self, kind: Kind, name: str) -> bool: ...
    def list_logs(self, kind: Kind) -> list[str]: ...
    def destroy(self) -> None:
        """Delete everything this broker has."""

    def side_store(self) -> SideStore:
        """For what is not first-in first-out."""

    def flush(self, timeout: float | None = None) -> None:
        """What was put is on disk, if this engine has one. Raises StorageFailed, Stalled."""

    def collect(self) -> None:
        """Remove what processes that died have left."""

    def close(self) -> None: ...


def open_engine(url: str, key: Key | None = None) -> Engine:
    """Raises ValueError, TypeError for what is no URL, Unsupported for a scheme without an engine, or for a
    key where there is no disk."""
    if not isinstance(url, str):
        raise TypeError(f"a broker URL is a str, not {type(url).__qualname__}")
    scheme = urlsplit(url).scheme
    if not scheme[:1].isalpha() or not url.isprintable():
        raise ValueError(f"{url!r} is no broker URL: say ring:NAME for a queue in shared memory")
    if scheme == "ring" and urlsplit(url).path.startswith("/"):
        from ringpost.engines.durable import DurableEngine

        return DurableEngine(url, key)
    if key is not None:
        raise Unsupported(
            f"{url} keeps nothing on disk, so there is nothing to seal: shared memory is plain memory. "
            "Connect to ring:///DIRECTORY, or leave key= out"
        )
    if scheme == "ring":  # the usual one need not be looked up
        from ringpost.engines.ring import RingEngine

        return RingEngine(url)
    installed = entry_points(group="ringpost.engines")
    for point in installed.select(name=scheme):
        engine: Engine = point.load()(url)
        return engine
    schemes = ", ".join(sorted({f"{point.name}:" for point in installed} | {"ring:"}))
    raise Unsupported(f"no engine for {scheme}: URLs is installed ({url!r}); there is {schemes}")
