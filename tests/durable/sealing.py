"""Sealed brokers, and what is to be found in the bytes of their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ringpost
from durable.conftest import lose_shared_memory
from ringpost.store import format as form
from ringpost.store.environment import Environment

KEY, OTHER = os.urandom(32), os.urandom(32)


def environment_of(broker: ringpost.Broker) -> Environment:
    return broker._engine._environment()  # type: ignore[attr-defined,no-any-return]


def rows_of(environment: Environment, table: bytes | None) -> dict[bytes, bytes]:
    with environment.read() as transaction, transaction.cursor(environment.table(table)) as cursor:
        rows = {bytes(key): bytes(value) for key, value in cursor}
    return {key: value for key, value in rows.items() if table is not None or key not in form.TABLES}


Put = Callable[[bytes, bytes | None], None]


@contextmanager
def changing(environment: Environment, table: bytes | None) -> Iterator[Put]:
    """As somebody does who may write to the file, and has no key: put(key, value); None: delete."""
    with environment.alone(), environment.begin() as transaction:

        def put(key: bytes, value: bytes | None) -> None:
            transaction.delete(key, db=environment.table(table))
            if value is not None:
                transaction.put(key, value, db=environment.table(table))

        yield put


def bytes_on_disk(place: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file())


def after_reboot(
    broker: ringpost.Broker, shm_dir: Path, key: bytes | str | None = KEY, url: str | None = None
) -> ringpost.Broker:
    broker.close()
    lose_shared_memory(shm_dir)
    return ringpost.connect(url or broker.url, key=key)


def drain(queue: ringpost.Queue[Any]) -> list[Any]:
    found: list[Any] = []
    while not queue.empty():
        found += queue.get_many(block=False)
    return found
