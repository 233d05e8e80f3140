"""Queues in files that come as packages: persist-queue, litequeue, diskcache, localqueue, leanqueue."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.rivals.storing import Level, Storer, StoringLane, StoringRival


@dataclass(frozen=True)
class _PersistLane(StoringLane):
    def storer(self) -> Storer:
        from persistqueue import SQLiteQueue

        queue = SQLiteQueue(self.directory, auto_commit=True, timeout=30)
        return Storer(queue.put, close=queue.close)


class StoredPersistQueue(StoringRival):
    """A commit a put."""

    name = "persist-queue"
    module = "persistqueue"
    distribution = "persist-queue"
    note = "SQLiteQueue, auto_commit"
    levels = ("confirmed",)
    store_batches = False

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _PersistLane(directory, level)


@dataclass(frozen=True)
class _LiteLane(StoringLane):
    def storer(self) -> Storer:
        from litequeue import LiteQueue

        queue = LiteQueue(f"{self.directory}/queue.db", timeout=30)

        def put_many(messages: list[bytes]) -> None:
            with queue.transaction(mode="IMMEDIATE"):
                for message in messages:
                    queue.put(message)

        def sync() -> None:
            queue.conn.execute("PRAGMA wal_checkpoint(FULL)")

        return Storer(queue.put, put_many, sync, queue.close)


class StoredLiteQueue(StoringRival):
    """It does not wait for the disk."""

    name = "litequeue"
    module = "litequeue"
    distribution = "litequeue"
    note = "synchronous=NORMAL, which it sets itself: nothing is confirmed"
    levels = ("later",)

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _LiteLane(directory, level)


@dataclass(frozen=True)
class _DequeLane(StoringLane):
    def storer(self) -> Storer:
        from diskcache import Cache, Deque

        level = 2 if self.level == "confirmed" else 1
        deque = Deque.fromcache(Cache(self.directory, sqlite_synchronous=level))
        return Storer(deque.append, deque.extend, close=deque.cache.close)


class StoredDeque(StoringRival):
    """diskcache.Deque."""

    name = "diskcache.Deque"
    module = "diskcache"
    distribution = "diskcache"
    note = "SQLite, synchronous FULL, and NORMAL for later"

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _DequeLane(directory, level)


@dataclass(frozen=True)
class _LocalLane(StoringLane):
    def storer(self) -> Storer:
        from localqueue import DurabilityMode, SimpleQueue

        level = DurabilityMode.DURABLE if self.level == "confirmed" else DurabilityMode.RELAXED
        queue = SimpleQueue(self.directory, durability=level, serializer=_AsTheyAre())
        return Storer(queue.put, queue.put_many, close=queue.close)


class _AsTheyAre:
    """A serializer that has nothing to do."""

    def dumps(self, message: bytes) -> bytes:
        return message

    def loads(self, message: bytes) -> bytes:
        return message


class StoredLocalQueue(StoringRival):
    """SQLite behind Rust."""

    name = "localqueue"
    module = "localqueue"
    distribution = "localqueue"
    note = "durability DURABLE, and RELAXED for later"

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _LocalLane(directory, level)


@dataclass(frozen=True)
class _LeanLane(StoringLane):
    def storer(self) -> Storer:
        from leanqueue import LeanQueueCore

        queue = LeanQueueCore(f"{self.directory}/queue")
        return Storer(queue.enqueue, queue.enqueue_batch)


class StoredLeanQueue(StoringRival):
    """A log of its own behind Rust, for one process."""

    name = "leanqueue"
    module = "leanqueue"
    distribution = "leanqueue"
    note = "an fsync a call"
    levels = ("confirmed",)
    shared = False

    def storing_lane(self, directory: str, level: Level) -> StoringLane:
        return _LeanLane(directory, level)
