"""The files of a durable broker: an LMDB environment, opened once in a process and again after a fork.

Whoever writes holds the door first: a futex lock in shared memory, which has timeouts and goes with its
process (native/src/stored.h). LMDB's own has neither, and is then never contended. Readers need nobody.

Nobody forks within a transaction: the child could not close what it inherited, and open it again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb

from ringpost import ownership
from ringpost._binding import binding
from ringpost._binding.contract import NativeLog, Stored
from ringpost.codecs import StandardCodec
from ringpost.engines import directory, segments
from ringpost.engines.access import PRIVATE, Access
from ringpost.engines.surroundings import check_surroundings, check_way
from ringpost.errors import (
    KeyRefused,
    LeftOver,
    NotOurs,
    QueueNotFound,
    RingpostError,
    StorageDamaged,
    StorageFailed,
    Unsupported,
)
from ringpost.mounts import file_system_of
from ringpost.store import disk, domain
from ringpost.store import format as form
from ringpost.store.values import OF_THE_BROKER, PLAIN, SealedValues, Values
from ringpost.store.vault import LINKS, Vault, new_row
from ringpost.threads import holding

if TYPE_CHECKING:
    from ringpost.keys import Key

DATA = "data.mdb"
SIDE = "side"  # the side store's folder in the broker's
_DOOR = "storage.door"
_KEYS = b"keys"  # in the table meta, of a sealed broker
NEW = ".new"  # where the data file is made, or copied to, in the broker's directory

LOCK = "lock.mdb"
_LOCK_SIZE = 192 << 10  # bytes: more than _READERS need
_MAP_SIZES = (
    1 << 40,
    1 << 36,
    1 << 32,
)  # bytes of address space: as much as can be had; the file grows as needed
_MAPPED = 32 << 20  # bytes read until their pages are let go
_READERS = 2048  # at one moment
_SWEEP = 1000  # commits between two looks for readers that were killed: they keep pages from being used again
PATIENCE = 30.0  # seconds that others may take who write
_MAKING = 30.0  # seconds that another process may take to make the data file
_FORK = 2.0  # seconds that a fork waits for other threads' transactions
_PAUSE = 0.001  # seconds between two looks of who waits for them, or for the fork
_ALWAYS = 2**64 - 1  # a position that nothing reaches

# Locks, or mappings, of files that live on another machine prove nothing about processes here.
_REMOTE = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "fuse",
    "ceph",
    "gluster",
    "lustre",
    "afs",
    "gfs",
    "ocfs",
    "beegfs",
    "gpfs",
)
_LOCAL_FUSE = ("fuseblk",)
_DESCRIPTOR = re.compile(r"/proc/self/fd/\d+")  # directory.name_of(), in messages of LMDB


class Environment:
    """Get it from `open_environment()`."""

    def __init__(self, place: Path, access: Access) -> None:
        self.place = place
        self.access = access
        self._membership = -1  # see domain.py
        self.writer: object = None  # see writer.py
        self._gate = Gate()
        self._is_closed = False
        self._commits = 0
        self._last_commit = -1
        self.epoch = 0
        """Others have written since, or something else than frames, when this is another."""
        self._mapped = 0
        self._vault: Vault | None = None
        self._doorkeeper: Stored | None = None
        self._open()

    def _open(self) -> None:
        with directory.opened(self.place.resolve(), self.access, readable=True) as here:
            membership = domain.enter(here, self.place)
            try:
                environment = self._opened(here)
            except BaseException:
                os.close(membership)
                raise
        self._leave()
        self._membership, self._pid = membership, os.getpid()
        self.move_to(self.place)
        self._environment = environment  # last: other threads of a forked child may wait for it

    def _opened(self, here: Path) -> Any:
        """LMDB's environment, with its tables."""
        environment = _open_lmdb(here, self.access)
        try:
            self.identity = _identity(here / DATA)
            with self._others_kept_out():
                self._tables = {name: environment.open_db(name) for name in form.TABLES}
        except BaseException:
            environment.close()  # LMDB would not let it be opened again
            raise
        return environment

    @binding.contextmanager
    def _others_kept_out(self) -> Iterator[None]:
        """LMDB gives handles of tables to who has its own lock, which has no timeout: not while a process is
        stopped that writes. Without a door nobody is at work. Raises Stalled."""
        door = self._door_of_others() if self._doorkeeper is None else None
        if door is None:
            yield
            return
        with binding.Stored(door, door).entering(_ALWAYS, PATIENCE):
            yield

    def _door_of_others(self) -> NativeLog | None:
        """It is known by its broker's id only when the tables are open; and by the data file."""
        label = f"the door of {self.place}"
        for path in directory.root(self.access).glob(f".*{self._suffix()}/{_DOOR}"):
            with contextlib.suppress(QueueNotFound, LeftOver):
                return binding.attach(str(path), label, StandardCodec(label))
        return None

    def _suffix(self) -> str:
        """Of the directory in shared memory."""
        return "-{:x}-{:x}".format(*self.identity)

    def move_to(self, place: Path) -> None:
        """It is found there."""
        self.place, self._data = place, str(place / DATA)

    def prepare(self, key: Key | None) -> None:
        """Make the broker if it is new, and the door. Raises StorageDamaged, Unsupported, KeyRefused."""
        self.broker = self._find_or_make_broker(key)
        self.shm = directory.root(self.access) / f".{self.broker.id.hex()}{self._suffix()}"
        if self.broker.format == form.SEALED:
            self._vault = Vault(self.broker.id, self.place, self.shm, self.access, self._keys_row, key)
        self._find_door()

    def _find_door(self) -> None:
        self._door = self.find_or_make_door(_DOOR)
        self._door_identity = _identity_of(self.shm / _DOOR)
        self._doorkeeper = binding.Stored(self._door, self._door)

    def _find_or_make_broker(self, key: Key | None) -> form.BrokerRecord:
        with self.read() as transaction:
            value = transaction.get(b"broker", db=self.table(form.META))
            broker = None if value is None else self._decode_broker(value)
        if broker is None:
            broker = self._make_broker(key)
        if broker.format not in (form.FORMAT, form.SEALED):
            raise Unsupported(
                f"{self.place} has storage format {broker.format}, and this version of ringpost reads "
                f"{form.FORMAT} and {form.SEALED}: export it with the version that made it (ringpost export) "
                f"and import it here"
            )
        return broker

    def _make_broker(self, key: Key | None) -> form.BrokerRecord:
        """Unless another process was faster."""
        format_ = form.FORMAT if key is None else form.SEALED
        made = form.BrokerRecord(format_, os.urandom(16), time.time_ns(), 1)
        keys = None if key is None else new_row(made.id, key)
        with self.begin() as transaction:  # LMDB's lock: they may be at it right now
            meta = self.table(form.META)
            if transaction.put(b"broker", form.encode(made), db=meta, overwrite=False) and keys is not None:
                transaction.put(_KEYS, keys, db=meta)
            return self._decode_broker(transaction.get(b"broker", db=meta))

    def _decode_broker(self, value: Any) -> form.BrokerRecord:
        try:
            return form.decode_broker(value)
        except StorageDamaged as problem:
            raise StorageDamaged(f"{self.place}: {problem}; restore a backup") from None

    # ---- keys ----------------------------------------------------------------------------------

    def admit(self, key: Key | None) -> None:
        """Somebody opens it. Raises KeyRefused."""
        if self._vault is not None:
            self._vault.admit(key)
        elif key is not None:
            raise KeyRefused(
                errno.EACCES,
                "it is not sealed, and a key was given: connect without key=, RINGPOST_KEY and "
                "RINGPOST_KEY_FILE; or export it (ringpost export), and import it into a new directory made "
                "with the key",
                str(self.place),
            )

    def values(self, scope: bytes = OF_THE_BROKER) -> Values:
        """How values of a log with this id lie in the tables."""
        return PLAIN if self._vault is None else SealedValues(self._vault, scope)

    def catch_up(self) -> None:
        """Learn of keys that others have changed. Raises KeyRefused."""
        if self._vault is not None:
            self._vault.catch_up()

    def rotate_key(self, key: Key) -> None:
        """Raises Unsupported: it is not sealed; SegmentFull: no room to tell the new key to those who have it
        open. It has the old one then."""
        vault = self._vault
        if vault is None:
            raise Unsupported(f"{self.place} is not sealed: it has no key to rotate")
        with self.alone():
            vault.catch_up()
            row = vault.next_row(key)
            with self.begin() as transaction:
                transaction.put(_KEYS, row, db=self.table(form.META))
            vault.admit(key)

    def _keys_row(self) -> bytes:
        """Empty: there is none."""
        with self.read() as transaction:
            return bytes(transaction.get(_KEYS, default=b"", db=self.table(form.META)))

    # ---- transactions --------------------------------------------------------------------------

    def table(self, name: bytes | None) -> Any:
        """For who has a transaction."""
        return self._tables[name]

    @binding.contextmanager
    def read(self) -> Iterator[Any]:
        """A read transaction; nothing of it is good after it."""
        with self._gate.passing():
            if self._is_closed:
                self._check_there()
            with self._environment.begin(buffers=True) as transaction:
                yield transaction

    def was_read(self, data: Any, size: int) -> None:
        """`size` bytes, `data` the last of them: a long backlog is not to count as memory of who reads it."""
        self._mapped += size
        if self._mapped > _MAPPED:
            self._mapped = 0
            binding.let_go(data)

    def alone(self, timeout: float | None = PATIENCE) -> AbstractContextManager[bool]:
        """`with environment.alone()`: nobody else writes meanwhile. Raises Stalled."""
        if _identity_of(self.shm / _DOOR) != self._door_identity:
            self._find_door()  # somebody removed the shared memory: others meet behind another door now
        assert self._doorkeeper is not None
        return self._doorkeeper.entering(_ALWAYS, timeout)

    @binding.contextmanager
    def begin(self, only_frames: bool = False) -> Iterator[Any]:
        """A write transaction of who is alone: on disk when it ends without an exception, undone else.

        Args:
            only_frames: it changes no log's settings and deletes none.

        Raises StorageFailed. Nothing of it is there then; what LMDB remembers of it in memory is thrown away.
        KeyRefused: somebody has rotated the key, and there is no way to the new one.
        """
        self._commits += 1
        try:
            with self._gate.passing():
                self._check_there()
                if self._commits % _SWEEP == 0:
                    self._environment.reader_check()
                with self._environment.begin(write=True) as transaction:
                    number = transaction.id()
                    self.epoch += not only_frames or number != self._last_commit + 1
                    if self._vault is not None:
                        self._vault.catch_up(transaction.get(_KEYS, default=b"", db=self.table(form.META)))
                    yield transaction
                self._last_commit = number
        except (StorageFailed, KeyRefused):
            raise
        except (lmdb.Error, OSError) as error:
            self._reopen()
            raise failed(self.place, error) from error

    def _check_there(self) -> None:
        """What is committed to a file that nobody will find is lost."""
        try:
            found = None if self._is_closed else os.stat(self._data)
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self.identity:
            raise StorageFailed(
                errno.ENOENT,
                "the broker's directory was moved or deleted while it was open; put it back, or connect() "
                "again",
                str(self.place),
            )

    def _reopen(self) -> None:
        """When no other thread is inside."""
        try:
            if self._gate.shut(_FORK):
                self._environment.close()
                self._environment = _Unopened(self)
        finally:
            self._gate.open()

    def has_transactions(self) -> bool:
        """Of users; decided, and not yet carried out."""
        with self.read() as transaction, transaction.cursor(self.table(form.TRANSACTIONS)) as cursor:
            return bool(cursor.first())

    def size(self) -> int:
        """Bytes in use; the file may be larger, with pages that are free to be used again."""
        with self.read() as transaction:
            return disk.used_by(transaction, self._tables.values())

    def has_room(self, size: int) -> bool:
        """For so many bytes of messages: see disk.py."""
        with self.read() as transaction:
            return self._has_room(size, lambda: disk.used_by(transaction, self._tables.values()) + size)

    def look(self) -> int:
        """The epoch: a new one if others have written since. Who calls is alone."""
        with self.read() as transaction:
            seen, last = transaction.id(), self._environment.info()["last_txnid"]
        if seen != last:  # who committed that died before he had told readers of it: who writes does
            with self.begin(only_frames=True):
                pass
        if last != self._last_commit:
            self.epoch, self._last_commit = self.epoch + 1, last
        return self.epoch

    def turn_over(self) -> None:
        """What the last transactions have freed can be used from now on: LMDB keeps it for readers that began
        before the last one but one. Raises StorageFailed."""
        for _ in range(2):
            with self.begin() as transaction:
                meta = self.table(form.META)
                transaction.put(b"broker", bytes(transaction.get(b"broker", db=meta)), db=meta)

    def had_room(self, size: int, transaction: Any) -> bool:
        """For so many bytes of messages that the transaction has written."""
        return self._has_room(size, lambda: disk.used_by(transaction, self._tables.values()))

    def _has_room(self, size: int, used: Callable[[], int]) -> bool:
        return disk.has_room(self._data, self._environment, size, used)

    def copy(self, place: Path) -> None:
        """A consistent copy, compacted, into an empty directory."""
        with self._gate.passing():
            self._environment.copy(str(place), compact=True)

    # ---- doors ---------------------------------------------------------------------------------

    def find_or_make_door(self, name: str) -> NativeLog:
        return _find_or_make_door(self.shm / name, f"the door of {self.place}", self.access)

    def remove_doors(self) -> None:
        """Who destroys the broker does."""
        for door in self.shm.glob("*.door"):
            binding.remove(str(door))
        for pattern in (f"{LINKS}*", "*.notes"):
            for each in self.shm.glob(pattern):
                each.unlink(missing_ok=True)

    def stored(self, log: NativeLog) -> Stored:
        return binding.Stored(log, self._door)

    def is_there(self) -> bool:
        """Is it still the one that others find?"""
        try:
            self._check_there()
        except StorageFailed:
            return False
        return True

    def close(self) -> None:
        """It was destroyed."""
        self._is_closed = True
        self._environment.close()
        self._leave()

    def _leave(self) -> None:
        if self._membership >= 0:
            with contextlib.suppress(OSError):  # somebody closed it behind our back
                os.close(self._membership)
        self._membership = -1

    def forget_parent(self, may_close: bool) -> None:
        """In a forked child: it opens its own. A child of another pid namespace may have its parent's
        number, and
        LMDB would take the one for the other: what it inherited stays open then."""
        self._gate = Gate()
        self._leave()
        if isinstance(self._environment, _Unusable):
            return
        if not may_close:
            _abandoned.append(self._environment)
            self._environment = _Unusable(self)
            return
        if os.getpid() == self._pid:
            _abandoned.append(self._environment)
        else:
            self._environment.close()
        self._environment = _Unopened(self)


class Gate:
    """Knows transactions, so that a fork can wait until there is none. Who waits looks again and again: it is
    seldom, and nothing is ever locked that a signal handler could leave locked."""

    def __init__(self) -> None:
        self._inside: set[object] = set()
        self._is_shut = False

    @binding.contextmanager
    def passing(self) -> Iterator[None]:
        one = object()
        try:
            self._inside.add(one)
            while self._is_shut:  # looked at after it was added: who shuts looks the other way round
                self._inside.discard(one)
                time.sleep(_PAUSE)
                self._inside.add(one)
            yield
        finally:
            self._inside.discard(one)

    def shut(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        self._is_shut = True
        while self._inside:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
        return True

    def open(self) -> None:
        self._is_shut = False


_open_environments: dict[tuple[int, int], Environment] = {}
_guard = threading.Lock()
_shut: list[Environment] = []
_abandoned: list[Any] = []  # never to be closed


def open_environment(
    place: Path, create: bool = True, key: Key | None = None, access: Access = PRIVATE
) -> Environment:
    """That of the broker in the directory `place`: LMDB forbids opening a file twice in a process.

    Raises NotOurs, Unsupported, KeyRefused, StorageFailed, StorageDamaged, Stalled, QueueNotFound (there is
    none, and `create` is False).
    """
    environment = _find_or_open(place, create, key, access)
    environment.admit(key)
    return environment


def _find_or_open(place: Path, create: bool, key: Key | None, access: Access) -> Environment:
    with holding(_guard):
        _make_directory(place, create, access)
        found = _identity_of(place / DATA)
        known = None if found is None else _open_environments.get(found)
        if known is not None and known.place == place and known.is_there():
            return known
        if known is not None:  # by another name, or moved meanwhile
            if not known.is_there():
                known.move_to(place)
            return known
        if found is None and not create:
            raise QueueNotFound(f"there is no durable broker in {place}")
        try:
            _make_data(place, access)
            environment = Environment(place, access)
        except RingpostError:
            raise
        except (lmdb.Error, OSError) as error:
            raise failed(place, error) from error
        try:
            environment.prepare(key)
        except BaseException:
            environment.close()  # LMDB would not let it be opened again
            raise
        _open_environments[environment.identity] = environment
        return environment


def forget_environment(environment: Environment) -> None:
    """It was destroyed."""
    with holding(_guard):
        _open_environments.pop(environment.identity, None)
        environment.close()
    place = environment.place.resolve()
    if not place.exists():
        return  # somebody else removed it
    with _one_by_one(place, environment.access) as descriptor:
        here = directory.name_of(descriptor)
        for name in (SIDE, NEW):
            directory.remove_tree(here / name)
        for name in (DATA, LOCK, domain.NAME):  # that one last: it is locked
            (here / (name + directory.BEING_MADE)).unlink(missing_ok=True)
            (here / name).unlink(missing_ok=True)
        directory.remove_unfinished(here)


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        return _identity(path)
    except FileNotFoundError:
        return None


def _make_directory(place: Path, create: bool, access: Access) -> None:
    if create and not place.exists():
        try:
            os.makedirs(place.parent, exist_ok=True)
            check_surroundings(place.parent, access.gid)
            directory.make_one(place, access, fill=lambda made: domain.make_file(made, access.file_mode))
        except NotOurs:
            raise
        except (FileExistsError, NotADirectoryError) as error:
            raise StorageFailed(
                errno.ENOTDIR, "not a directory: a durable broker needs one of its own", str(place)
            ) from error
        except OSError as error:
            raise failed(place, error) from error
    try:
        found = os.stat(place)
    except FileNotFoundError:
        raise QueueNotFound(f"there is no durable broker in {place}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise StorageFailed(
            errno.ENOTDIR, "not a directory: a durable broker needs one of its own", str(place)
        )
    check_way(place, access.gid)
    access.check(place.resolve(), shown=str(place), readable=True)
    kind = file_system_of(place)
    if kind not in _LOCAL_FUSE and kind.startswith(_REMOTE):
        raise Unsupported(
            f"{place} is on a network file system ({kind}): its locks and mappings do not hold between "
            f"processes; "
            "use a directory on a local disk"
        )


def _make_data(place: Path, access: Access) -> None:
    """The data file, if there is none; and what is committed to it will be found after a power cut.

    It gets its name when it is complete: of LMDB's first writes a power cut may leave a file that is no
    LMDB file, and nobody could open the broker any more.
    """
    with _one_by_one(place, access) as descriptor:
        here = directory.name_of(descriptor)
        if not os.path.lexists(here / DATA):
            made = here / NEW
            directory.remove_tree(made)  # its maker died
            directory.make_one(made, access)
            directory.make_empty_file(made / DATA, access)
            environment = _open_lmdb(made, access)
            for table in form.TABLES:
                environment.open_db(table)
            environment.close()
            for parent in place.resolve().parents:
                sync_directory(parent)  # perhaps they were made right now
            (made / DATA).rename(here / DATA)
            directory.remove_tree(made)
        _make_lock_file(here, access)
        for name in (DATA, LOCK):
            _check_file(here / name, access, place / name)
        os.fsync(descriptor)  # who gave it its name may have died before


def _make_lock_file(here: Path, access: Access) -> None:
    """LMDB maps it for writing: all of it is to be there, for a full disk would kill who touches a page that
    is not."""
    directory.make_file(here / LOCK, access.file_mode, lambda file: os.posix_fallocate(file, 0, _LOCK_SIZE))


def _check_file(path: Path, access: Access, shown: Path) -> None:
    """LMDB would follow a link, and write to what others write to. Who may open a lock may keep it."""
    found = os.lstat(path)
    closed, what = (0o022, "write") if path.name == DATA else (0o077, "open")
    if access.gid is None:
        is_ours = found.st_uid == os.geteuid() and not found.st_mode & closed
    else:
        is_ours = found.st_gid == access.gid and not found.st_mode & closed & 0o007
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or not is_ours:
        raise NotOurs(
            errno.EACCES,
            f"a durable broker's files are plain files that nobody else may {what} (mode "
            f"{access.file_mode:o}), "
            f"but this {ownership.describe(str(path))}: put it right, or use another directory",
            str(shown),
        )


@binding.contextmanager
def _one_by_one(place: Path, access: Access) -> Iterator[int]:
    """Nobody else makes the broker's files meanwhile. Gives a descriptor of the directory. Raises Stalled,
    NotOurs."""
    here = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        access.check(here, shown=str(place), readable=True)
        lock = _lock_makers(directory.name_of(here), access, place)
        try:
            yield here
        finally:
            domain.unlock_makers(lock)
    finally:
        os.close(here)


def _lock_makers(here: Path, access: Access, place: Path) -> int:
    found, shown = here / domain.NAME, place / domain.NAME
    try:
        lock = domain.lock_makers(here, access.file_mode, place, _MAKING)
    except OSError:
        if os.path.lexists(found):
            _check_file(found, access, shown)  # says why
        raise
    try:
        _check_file(found, access, shown)
    except BaseException:
        domain.unlock_makers(lock)
        raise
    return lock


def sync_directory(path: Path) -> None:
    """One that we may not look into is nobody's that we made."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.ENOTSUP):  # nothing to flush there
            raise
    finally:
        os.close(directory)


def _open_lmdb(place: Path, access: Access) -> Any:
    """As much address space as there is: LMDB does not like to be resized."""
    for size in _MAP_SIZES:
        try:
            return lmdb.open(
                str(place),
                map_size=size,
                max_dbs=len(form.TABLES),
                max_readers=_READERS,
                max_spare_txns=0,  # a forked child would give their slots back, which are its parent's
                mode=access.file_mode,
                lib_version=0,
            )
        except (lmdb.MemoryError, MemoryError):
            if size == _MAP_SIZES[-1]:
                raise
    raise AssertionError("unreachable")


def _find_or_make_door(path: Path, label: str, access: Access) -> NativeLog:
    for _ in range(100):
        try:
            directory.check_if_there(path.parent, access)
            return binding.attach(str(path), label, StandardCodec(label))
        except LeftOver:
            binding.collect(str(path))
        except QueueNotFound:
            directory.make(path.parent, access)
            try:
                return segments.create(path, label, StandardCodec(label), capacity=1 << 17)
            except (FileExistsError, QueueNotFound):
                continue
    raise QueueNotFound(f"{label} was made and removed by others all the time; try again")


def failed(place: Path, error: Exception) -> Exception:
    """What LMDB says, in words."""
    if isinstance(error, StorageFailed):
        return error
    number = getattr(error, "errno", None) or getattr(error, "code", None) or 0
    text = _DESCRIPTOR.sub(str(place), str(error))
    if number == errno.EIO and _is_full(place):
        number = errno.ENOSPC  # LMDB says so of what was written in part
    if isinstance(error, lmdb.MapFullError):
        number, advice = (
            errno.ENOSPC,
            "the storage has reached its largest size; delete queues, or consume messages",
        )
    elif number == errno.ENOSPC or "No space left" in text:
        number, advice = errno.ENOSPC, "the disk is full: make room, and go on"
    elif number == errno.EDQUOT or "quota" in text.lower():
        number, advice = errno.EDQUOT, "the disk quota is reached: make room, and go on"
    elif number == errno.EIO or "Input/output error" in text:
        number, advice = (
            errno.EIO,
            "the disk fails: look at the kernel's log, and restore a backup if need be",
        )
    elif number == errno.EROFS or "Read-only" in text:
        number, advice = (
            errno.EROFS,
            "a durable broker is written by whoever reads it, too: mount it for writing",
        )
    elif isinstance(error, lmdb.VersionMismatchError):
        advice = "the files are of another version of LMDB than this one reads"
    elif isinstance(error, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.PageNotFoundError)):
        advice = "the files are damaged, or not LMDB's; ringpost.verify() says more"
    else:
        number, advice = number or errno.EIO, "nothing of this was stored"
    return StorageFailed(number or errno.EIO, f"storage failed: {text}; {advice}", str(place))


def _is_full(place: Path) -> bool:
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < 1 << 20


def _wait_for_transactions() -> None:
    """Before a fork. Who is inside one itself (a signal handler perhaps) forks all the same."""
    deadline = time.monotonic() + _FORK
    for environment in list(_open_environments.values()):
        if environment._gate.shut(max(deadline - time.monotonic(), 0)):
            _shut.append(environment)


def _go_on() -> None:
    for environment in list(_open_environments.values()):
        environment._gate.open()
    _shut.clear()


def _open_again() -> None:
    """In the child. LMDB wants it to open its own."""
    global _guard
    _guard = threading.Lock()
    for environment in _open_environments.values():
        environment.forget_parent(may_close=environment in _shut)
    _shut.clear()


class _Unopened:
    """Stands for what the parent had open, until it is used."""

    def __init__(self, owner: Environment) -> None:
        self._owner = owner

    def close(self) -> None:
        """It is not open."""

    def __getattr__(self, name: str) -> Any:
        with holding(_guard):
            if self._owner._environment is self:
                self._owner._open()
        return getattr(self._owner._environment, name)


class _Unusable:
    """Stands for what the parent had open within a transaction: LMDB opens it no second time."""

    def __init__(self, owner: Environment) -> None:
        self._owner = owner

    def close(self) -> None:
        """It is not open."""

    def __getattr__(self, name: str) -> Any:
        raise StorageFailed(
            errno.EDEADLK,
            f"this process was forked while its parent had been storing for {_FORK:.0f} seconds or more, and "
            "cannot have the broker: start another one",
            str(self._owner.place),
        )


os.register_at_fork(before=_wait_for_transactions, after_in_parent=_go_on, after_in_child=_open_again)
