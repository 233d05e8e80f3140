"""LMDB by hand: one record a message, one transaction a put. The floor of what ringpost stands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from benchmarks.rivals.storing import Level, Storer, StoringLane, StoringRival


@dataclass(frozen=True)
class _Lane(StoringLane):
    def environment(self) -> Any:
        return _open(self.directory, self.level == "confirmed")

    def storer(self) -> Storer:
        environment = self.environment()
        table = environment.open_db(b"queue")

        def put_many(messages: list[bytes]) -> None:
            with environment.begin(write=True) as transaction, transaction.cursor(table) as cursor:
                last = int.from_bytes(cursor.key(), "big") if cursor.last() else 0
                for number, message in enumerate(messages, last + 1):
                    transaction.put(number.to_bytes(8, "big"), message, db=table, append=True)

        return Storer(
            lambda message: put_many([message]), put_many, lambda: environment.sync(True), environment.close
        )

    def reader(self) -> Callable[[int], int]:
        environment = self.environment()
        table = environment.open_db(b"queue")

        def take(limit: int) -> int:
            with environment.begin(write=True) as transaction, transaction.cursor(table) as cursor:
                taken, found = 0, cursor.first()
                while found and taken < limit:
                    taken += bool(cursor.pop(cursor.key()))
                    found = cursor.first()
                return taken

        return take


@lru_cache(1)
def _open(directory: str, sync: bool) -> Any:
    """Once in a process: LMDB forbids more."""
    import lmdb

    return lmdb.open(directory, map_size=1 << 36, max_dbs=1, sync=sync)


class StoredLmdb(StoringRival):
    """No queue, but what one would begin with."""

    name = "lmdb by hand"
    module = "lmdb"
    distribution = "lmdb"
    note = 'one record a message; "later" is sync=False, which a power cut may destroy'
    reads = True

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _Lane(directory, level)
