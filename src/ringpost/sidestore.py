"""Side store: the ordered map beside the logs, in LMDB, for what is not first-in first-out.

A memory broker's lies in its directory in shared memory and is never synced: it lives as long as the logs
do. A durable broker's lies in its directory on disk, and each transaction is there when it is over.
Its tables: messages that are not due yet (scheduled.py), ids that were sent (dedup.py), last values
(retained.py). Keys begin with the 16 bytes of their log's id.

Who writes, and who opens it, has a file lock for himself, which has a timeout and goes with its process; who
reads shares it. LMDB's own locks are off: they have no timeout, and know processes by their pids, which mean
others in another pid namespace. Nothing here keeps a transaction open across anybody else's code, and nobody
forks within one: the child could not open the store again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from ringpost._binding import binding
from ringpost.engines import directory
from ringpost.engines.access import PRIVATE, Access
from ringpost.errors import QueueDeleted, RingpostError, Stalled, Status, failure
from ringpost.store.values import PLAIN, Values
from ringpost.threads import holding

if TYPE_CHECKING:
    from ringpost.notes import Notes

NAME = "side.lmdb"
DATA = "data.mdb"
LOCK = "writers"
TABLES = (b"scheduled", b"sent", b"retained")

_MAP_SIZE = 1 << 36  # address space, not memory: the file grows as needed
_PAUSE = 0.001  # seconds between two tries for the lock
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
_FORK = 2.0  # seconds that a fork waits for other threads' transactions

_open_stores: dict[Path, SideStore] = {}
_guard = threading.Lock()
_held_by_fork: list[threading.Lock] = []


class SideStore:
    """One broker's. Get it from `side_store()`: LMDB forbids opening a file twice in a process."""

    def __init__(self, place: Path, access: Access, durable: bool = False, values: Values = PLAIN) -> None:
        self._place = place
        self._access = access
        self._durable = durable
        self._thread_lock = threading.Lock()
        with directory.opened(place.parent, access, readable=durable) as parent:
            directory.make_one(parent / place.name, access, fill=self._make_files)
            self._here = directory.open_directory(parent / place.name, access)
        try:
            self._lock_file = self._open_lock(directory.name_of(self._here) / LOCK)
        except BaseException:
            os.close(self._here)
            raise
        found = os.fstat(self._lock_file)
        self._identity = (found.st_dev, found.st_ino)
        self._environment: Any = None  # opened when it is needed first, by who has the lock
        self._tables: dict[bytes, Any] = {}
        self._writes = 0
        self.values = values
        """How what is in the tables lies there."""
        self.shm: Path | None = None
        """The broker's directory in shared memory, if this is not in there itself."""

    def _open_lock(self, path: Path) -> int:
        """A backup has none. Raises Stalled."""
        if not os.path.lexists(path):
            with self._alone_in_directory():
                directory.make_file(path, self._access.file_mode)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    @binding.contextmanager
    def _alone_in_directory(self, timeout: float = 5.0) -> Iterator[None]:
        """For who makes the file that others lock."""
        here = os.open(directory.name_of(self._here), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        directory.locked.add(here)
        try:
            if not directory.lock_within(here, timeout):
                raise self._stalled()
            yield
        finally:
            directory.close_locked(here)

    def _make_files(self, made: Path) -> None:
        for name in (LOCK, DATA):
            directory.make_empty_file(made / name, self._access)

    @binding.contextmanager
    def alone(self, timeout: float = 5.0) -> Iterator[None]:
        """Nobody else writes meanwhile. Raises Stalled, SegmentFull, StorageFailed."""
        with self._locked(fcntl.LOCK_EX, timeout):
            self._open()
            yield

    @binding.contextmanager
    def begin(self) -> Iterator[Any]:
        """A write transaction of who is alone(): committed at the end, undone by an exception.

        Raises SegmentFull, StorageFailed.
        """
        with self._told_of_failures(), self._environment.begin(write=True) as transaction:
            yield transaction

    @binding.contextmanager
    def write(self, timeout: float = 5.0) -> Iterator[Any]:
        """begin(), alone(). Raises Stalled."""
        with self.alone(timeout), self.begin() as transaction:
            yield transaction

    @binding.contextmanager
    def read(self, timeout: float = 5.0) -> Iterator[Any]:
        """Raises Stalled, SegmentFull, StorageFailed."""
        with (
            self._locked_to_read(timeout),
            self._told_of_failures(),
            self._environment.begin() as transaction,
        ):
            yield transaction

    @binding.contextmanager
    def _locked_to_read(self, timeout: float) -> Iterator[None]:
        while True:
            with self._locked(fcntl.LOCK_SH, timeout):
                if self._environment is not None:
                    yield
                    return
            with self.alone():  # opens it; another thread may close it before we come back
                pass

    @binding.contextmanager
    def _told_of_failures(self) -> Iterator[None]:
        """After one LMDB may refuse whatever follows: the next one opens it anew."""
        try:
            yield
        except lmdb.Error as error:
            failed = self._failed(error)
            if self._environment is not None:
                environment, self._environment = self._environment, None
                environment.close()
            raise failed from error

    def _open(self) -> None:
        if self._environment is not None:
            return
        try:
            environment = self._open_environment()
        except lmdb.Error as error:
            raise self._failed(error) from error
        try:
            tables = {name: environment.open_db(name) for name in TABLES}
        except BaseException as error:
            environment.close()  # LMDB would not let it be opened again
            if isinstance(error, lmdb.Error):
                raise self._failed(error) from error
            raise
        self._tables, self._environment = tables, environment

    def _open_environment(self) -> Any:
        return lmdb.open(
            str(directory.name_of(self._here)),
            map_size=_MAP_SIZE,
            max_dbs=len(TABLES),
            max_spare_txns=0,
            sync=self._durable,
            metasync=self._durable,
            lock=False,
            mode=self._access.file_mode,
            lib_version=0,
        )

    def table(self, name: bytes) -> Any:
        """For who has a transaction."""
        return self._tables[name]

    def check_room(self, transaction: Any, size: int) -> None:
        """On disk, for so many bytes of messages that the transaction has written. Raises StorageFailed."""
        from ringpost.store import disk

        if not self._durable:
            return
        file, tables = str(directory.name_of(self._here) / DATA), self._tables.values()
        rest = disk.RESERVE // 2  # what the logs leave is all that it gets of a full disk
        if not disk.has_room(file, self._environment, size, lambda: disk.used_by(transaction, tables), rest):
            raise disk.full(self._place)

    def notes(self, log_id: bytes, table: bytes) -> Notes:
        """For who is alone."""
        from ringpost.notes import Notes

        return Notes(self.shm or directory.name_of(self._here), log_id, table, self._access)

    def is_there(self) -> bool:
        """Is it still the one that others find?"""
        try:
            found = os.stat(self._place / LOCK)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def copy(self, place: Path) -> None:
        """A consistent copy, compacted, into an empty directory. Raises Stalled, SegmentFull,
        StorageFailed."""
        with self.alone():
            self._environment.copy(str(place), compact=True)

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        os.close(self._lock_file)
        os.close(self._here)

    def forget(self, log_id: bytes) -> None:
        """Whatever is kept for a log that is gone."""
        with self.write() as transaction:
            for name in TABLES:
                self.notes(log_id, name).remove()
            for table in self._tables.values():
                with transaction.cursor(table) as cursor:
                    found = cursor.set_range(log_id)
                    while found and cursor.key().startswith(log_id):
                        found = cursor.delete()

    @binding.contextmanager
    def _locked(self, kind: int, timeout: float) -> Iterator[None]:
        deadline = time.monotonic() + timeout
        while True:
            with self._try_both(kind, deadline) as has_both:
                if has_both:
                    yield
                    return
            if time.monotonic() >= deadline:
                raise self._stalled()
            time.sleep(_PAUSE)

    @binding.contextmanager
    def _try_both(self, kind: int, deadline: float) -> Iterator[bool]:
        """That of the threads is free again while we wait for another process: whoever forks waits for it."""
        left = max(deadline - time.monotonic(), 0)
        has_lock: list[bool] = []
        try:
            # got and noted in one step of C: a signal handler may raise between any two of Python
            has_lock.extend(map(self._thread_lock.acquire, [True], [left]))
            if has_lock == [False]:
                yield False
                return
            try:
                # a POSIX lock: it goes with its process, and a forked child does not have it
                yield self._try_lock(kind)
            finally:
                try:
                    fcntl.lockf(self._lock_file, fcntl.LOCK_UN)
                except OSError:  # it was closed meanwhile, and thus unlocked
                    pass
        finally:
            if True in has_lock:
                self._thread_lock.release()

    def _try_lock(self, kind: int) -> bool:
        try:
            fcntl.lockf(self._lock_file, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _failed(self, error: Exception) -> Exception:
        return _failed(self._place, self._durable, error)

    def _stalled(self) -> Stalled:
        return Stalled(
            f"a process holds the lock of {self._place} and is alive, but does not run (stopped by a "
            "signal, a debugger or a freezer?); continue or kill it"
        )


def _failed(place: Path, durable: bool, error: Exception) -> Exception:
    if durable:
        from ringpost.store.environment import failed

        return failed(place, error)
    what, path = "what is scheduled, and remembered,", str(place / DATA)
    is_damaged = isinstance(error, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError))
    return failure(Status.CORRUPT if is_damaged else Status.NO_SPACE, "keep", what, path=path)


def side_store(broker: Path, access: Access = PRIVATE) -> SideStore:
    """The store of the broker in a directory, opened once in a process, and again after a fork."""
    return _open_store(broker / NAME, access, durable=False)


def durable_side_store(place: Path, access: Access, values: Values, shm: Path | None = None) -> SideStore:
    """The same on disk, in the directory `place`."""
    store = _open_store(place.resolve(), access, durable=True, values=values)
    store.shm = shm
    return store


def _open_store(place: Path, access: Access, durable: bool, values: Values = PLAIN) -> SideStore:
    with holding(_guard):
        store = _open_stores.get(place)
        if store is not None and not store.is_there():  # destroyed, and perhaps made again
            del _open_stores[place]
            store.close()
            store = None
        if store is None:
            store = _find_by_another_name(place)
        if store is None:
            try:
                store = _open_stores[place] = SideStore(place, access, durable, values)
            except FileNotFoundError:
                raise QueueDeleted(
                    f"the broker in {place.parent} was deleted; open its queues again"
                ) from None
            except OSError as error:
                if error.errno not in _NO_ROOM or isinstance(error, RingpostError):
                    raise
                raise _failed(place, durable, error) from error
        return store


def _find_by_another_name(place: Path) -> SideStore | None:
    """Two stores of one directory would not lock each other out: POSIX locks are a process's."""
    try:
        found = os.stat(place / LOCK)
    except FileNotFoundError:
        return None
    for name, store in list(_open_stores.items()):
        if store._identity == (found.st_dev, found.st_ino):
            if not store.is_there():  # it was moved
                store._place = place
                _open_stores[place] = _open_stores.pop(name)
            return store
    return None


def remove_store(broker: Path, access: Access = PRIVATE) -> None:
    """With all that is in it."""
    close_store(broker / NAME)
    with directory.opened(broker, access) as here:
        directory.remove_tree(here / NAME)


def close_store(place: Path) -> None:
    """This process is done with it."""
    with holding(_guard):
        store = _open_stores.pop(place, None)
        if store is not None:
            store.close()


def _wait_for_transactions() -> None:
    """Before a fork. Who does not get a lock in time (a signal handler perhaps) forks all the same."""
    deadline = time.monotonic() + _FORK
    _hold_for_fork(_guard, deadline)
    for store in list(_open_stores.values()):
        _hold_for_fork(store._thread_lock, deadline)


def _hold_for_fork(lock: threading.Lock, deadline: float) -> None:
    if lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
        _held_by_fork.append(lock)


def _go_on() -> None:
    while _held_by_fork:
        _held_by_fork.pop().release()


def _forget_after_fork() -> None:
    global _guard
    for store in _open_stores.values():  # the parent's: LMDB wants a child to open its own
        if store._thread_lock in _held_by_fork:
            store.close()
    _guard = threading.Lock()
    _open_stores.clear()
    _held_by_fork.clear()


os.register_at_fork(before=_wait_for_transactions, after_in_parent=_go_on, after_in_child=_forget_after_fork)
