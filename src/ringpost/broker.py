"""Broker: the names under which processes meet."""

from __future__ import annotations

import os
import weakref
from types import TracebackType
from typing import Any

from ringpost.engines import Engine, open_engine
from ringpost.queue import Queue

DEFAULT_URL = "ring:default"


def connect(url: str | None = None) -> Broker:
    """The broker at `url`; $RINGPOST_URL, else "ring:default", if none is given.

    "ring:NAME" is a memory broker: this user's, in shared memory, until it is destroyed or a reboot.

    Raises:
        ValueError, TypeError: no URL.
        Unsupported: no engine for its scheme is installed.
    """
    return Broker(open_engine(url or os.environ.get("RINGPOST_URL") or DEFAULT_URL))


class Broker:
    """Opens queues by name. Costs nothing by itself; closing it closes the handles it gave out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._queues: weakref.WeakSet[Queue[Any]] = weakref.WeakSet()
        self._closed = False

    @property
    def url(self) -> str:
        """What connect() was called with."""
        return self._engine.url

    def queue(
        self,
        name: str,
        *,
        capacity: int | None = None,
        maxsize: int | None = None,
        pickle: bool = False,
        create: bool = True,
    ) -> Queue[Any]:
        """The queue `name`, made if there is none.

        Args:
            capacity: bytes of shared memory for messages (default 16 MiB); half of it is the pool
                for messages above 16 KiB.
            maxsize: the most messages that wait in it; 0: bounded by bytes only (default).
            pickle: allow pickled messages through this handle. Only where you trust every producer.
            create: make it if there is none; else QueueNotFound.

        Raises:
            SettingsMismatch: it exists with another capacity or maxsize than asked for.
            SegmentFull: /dev/shm has no room for it.
            NotOurs, LayoutMismatch, CorruptLog: the file that is there is not ours to use.
        """
        self._check_open()
        log = self._engine.open_queue(name, capacity=capacity, maxsize=maxsize, pickle=pickle, create=create)
        queue = Queue._of(log, name, (_reopen, (self.url, name, pickle)))
        self._queues.add(queue)
        return queue

    def list(self) -> list[str]:
        """Names of the queues, sorted."""
        self._check_open()
        return self._engine.list_queues()

    def delete(self, name: str) -> bool:
        """Delete a queue with what is in it. Whoever uses it gets QueueDeleted. False: there was none."""
        self._check_open()
        return self._engine.delete_queue(name)

    def destroy(self) -> None:
        """Delete every queue of this broker."""
        self._check_open()
        self._engine.destroy()

    def close(self) -> None:
        """Close the handles that this broker gave out. The queues and their messages stay."""
        self._closed = True
        for queue in list(self._queues):
            queue.close()
        self._engine.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"the broker {self.url} is closed: connect() again")

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return connect, (self.url,)

    def __repr__(self) -> str:
        return f"<ringpost.Broker {self.url}>"


def _reopen(url: str, name: str, pickle: bool) -> Queue[Any]:
    return connect(url).queue(name, pickle=pickle)
