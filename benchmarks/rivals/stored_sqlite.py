"""SQLite by hand: a table, WAL, synchronous=FULL; NORMAL where others put off the disk too."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.rivals.storing import Level, Storer, StoringLane, StoringRival


@dataclass(frozen=True)
class _Lane(StoringLane):
    def connection(self) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self.directory}/queue.db", timeout=30, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if self.level == 'confirmed' else 'NORMAL'}")
        connection.execute("CREATE TABLE IF NOT EXISTS queue (id INTEGER PRIMARY KEY, body BLOB)")
        return connection

    def storer(self) -> Storer:
        connection = self.connection()

        def put(message: bytes) -> None:
            connection.execute("INSERT INTO queue (body) VALUES (?)", (message,))

        def put_many(messages: list[bytes]) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO queue (body) VALUES (?)", ((each,) for each in messages))
            connection.execute("COMMIT")

        def sync() -> None:
            connection.execute("PRAGMA wal_checkpoint(FULL)")

        return Storer(put, put_many, sync, connection.close)

    def reader(self) -> Callable[[int], int]:
        connection = self.connection()

        def take(limit: int) -> int:
            oldest = "SELECT id FROM queue ORDER BY id LIMIT ?"
            rows = connection.execute(f"DELETE FROM queue WHERE id IN ({oldest}) RETURNING body", (limit,))
            return len(rows.fetchall())

        return take


class StoredSqlite(StoringRival):
    """What many take."""

    name = "sqlite by hand"
    module = "sqlite3"
    note = "WAL; synchronous FULL, and NORMAL for later"
    reads = True

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _Lane(directory, level)
