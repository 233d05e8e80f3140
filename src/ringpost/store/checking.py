"""verify() and backup(): is everything there, and a copy of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import lmdb.verify

from ringpost.engines import directory
from ringpost.engines.access import access_found
from ringpost.errors import QueueNotFound, RingpostError, StorageDamaged, StorageFailed
from ringpost.keys import from_environment, key_of
from ringpost.store import format as form
from ringpost.store.environment import DATA, NEW, SIDE, Environment, open_environment, sync_directory
from ringpost.store.registry import Registry
from ringpost.store.values import OF_THE_SIDE_STORE, Values

_HEAD = 1 << 16  # bytes: LMDB's two meta pages, of the largest size that pages have
_LOOKS = 3


@dataclass(frozen=True)
class StoredQueue:
    """One queue or topic, as verify() found it.

    Attributes:
        kind, name: what it is called; kind is "queue", "topic", or "level" (of a queue with priorities).
        blocks, messages: what is stored, in the shared memory of running programs there may be more.
        bytes: of messages, with their frames.
    """

    kind: str
    name: str
    blocks: int
    messages: int
    bytes: int


@dataclass(frozen=True)
class Verification:
    """What verify() found.

    Attributes:
        problems: in words; empty: everything is as it was written.
        queues: what is there.
        given_up: what was damaged and is given up now, with skip_damaged=True.
    """

    problems: tuple[str, ...]
    queues: tuple[StoredQueue, ...]
    given_up: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list)
    queues: list[StoredQueue] = field(default_factory=list)
    damaged: list[tuple[bytes | None, bytes, Values]] = field(default_factory=list)  # table, key


def verify(
    directory: str | os.PathLike[str], *, skip_damaged: bool = False, key: bytes | str | None = None
) -> Verification:
    """Look at everything that a durable broker has stored: LMDB's structure, each block, each large payload.

    Programs may use the broker meanwhile. It takes as long as reading the files does, and what they delete in
    this time leaves no room for what they write.

    Args:
        skip_damaged: give up messages that are damaged, so that consumers pass over them, as if they had
            expired. Nobody may use the broker meanwhile.
        key: of a sealed one, as for connect(); default: $RINGPOST_KEY, or the file $RINGPOST_KEY_FILE.

    Raises QueueNotFound: there is no durable broker; StorageFailed: it cannot be opened at all; KeyRefused.
    """
    place, opener = Path(directory), key_of(key) or from_environment()
    if not (place / DATA).exists():
        raise QueueNotFound(f"there is no durable broker in {place}")
    look = _look_at_structure(place)
    if look.problems and not look.was_written:  # opening a damaged file may kill this process: not before
        return look.verification()
    environment = open_environment(place, create=False, key=opener, access=access_found(place))
    if look.problems and (look := _look_while_others_write(environment)).problems:
        return look.verification()
    found = _Findings()
    for kind, name, record in Registry(environment).all():
        _look_at(environment, kind, name, record, found)
    given_up = _give_up(environment, found) if skip_damaged else ()
    return Verification(tuple(found.problems), tuple(found.queues), given_up)


@dataclass(frozen=True)
class _Look:
    """At LMDB's pages. Where somebody wrote meanwhile, pages were perhaps used again before they were looked
    at, and are no damage."""

    place: Path
    problems: tuple[str, ...]
    was_written: bool
    cannot_begin: Exception | None = None

    def verification(self) -> Verification:
        """Raises StorageFailed."""
        if self.cannot_begin is not None:
            raise StorageFailed(
                errno.EIO, f"{self.cannot_begin}; restore a backup", str(self.place)
            ) from self.cannot_begin
        return Verification(self.problems, ())


def _look_at_structure(place: Path) -> _Look:
    before, problems, cannot_begin = _head(place), [], None
    try:
        problems = list(lmdb.verify.verify(str(place)))  # type: ignore[no-untyped-call]
    except lmdb.verify.VerifyError as error:
        problems, cannot_begin = [str(error)], error
    return _Look(place, tuple(problems), _head(place) != before, cannot_begin)


def _head(place: Path) -> bytes:
    """Each commit changes it."""
    with (place / DATA).open("rb") as file:
        return file.read(_HEAD)


def _look_while_others_write(environment: Environment) -> _Look:
    """What a reader may still read is not used again. Only between the sizes that are read first, of the file
    and of what is in it, somebody may commit: that is not there when looked for again."""
    for _ in range(_LOOKS):
        with environment.read():
            look = _look_at_structure(environment.place)
        if not look.problems or not look.was_written:
            break
    return look


def _look_at(
    environment: Environment, kind: str, name: str, record: form.LogRecord, found: _Findings
) -> None:
    prefix, values = form.number_key(record.number), environment.values(record.id)
    blocks = messages = size = behind = 0
    with environment.read() as transaction, transaction.cursor(environment.table(form.BLOCKS)) as cursor:
        there = cursor.set_range(prefix)
        while there and bytes(cursor.key()[:4]) == prefix:
            try:
                header, _ = values.frames(bytes(cursor.key()), cursor.value())
                environment.was_read(cursor.value(), header.size)
                if header.sequence < behind:
                    raise StorageDamaged(
                        f"block {form.describe(bytes(cursor.key()))} repeats messages before {behind}"
                    )
                behind = header.end_sequence
                blocks, messages, size = blocks + 1, messages + header.frames, size + header.size
            except StorageDamaged as error:
                found.problems.append(f"{kind} {name!r}: {error}")
                found.damaged.append((form.BLOCKS, bytes(cursor.key()), values))
            there = cursor.next()
    size += _look_at_payloads(environment, prefix, values, f"{kind} {name!r}", found)
    found.queues.append(StoredQueue(kind, name.replace("\0", " priority "), blocks, messages, size))


def _look_at_payloads(
    environment: Environment, prefix: bytes, values: Values, what: str, found: _Findings
) -> int:
    size = 0
    with environment.read() as transaction, transaction.cursor(environment.table(form.PAYLOADS)) as cursor:
        there = cursor.set_range(prefix)
        while there and bytes(cursor.key()[:4]) == prefix:
            try:
                part = values.piece(bytes(cursor.key()), cursor.value())
                size += len(part)
                environment.was_read(cursor.value(), len(part))
            except StorageDamaged as error:
                found.problems.append(f"{what}: {error}")
                found.damaged.append((form.PAYLOADS, bytes(cursor.key()), values))
            there = cursor.next()
    return size


def _give_up(environment: Environment, found: _Findings) -> tuple[str, ...]:
    """Messages that are expired take the place of damaged ones: whoever comes to them passes over them, and
    positions and sequences stay what they are."""
    given_up = []
    for table, key, values in found.damaged:
        with environment.alone(), environment.begin() as transaction:
            if table == form.BLOCKS:
                value = _fill_block(environment, transaction, key, values)
            else:
                value = _fill_payload(environment, transaction, key, values)
            if value is None:
                continue
            transaction.put(key, value, db=environment.table(table))
        given_up.append(form.describe(key))
    return tuple(given_up)


def _fill_block(environment: Environment, transaction: Any, key: bytes, values: Values) -> bytes | None:
    """None: nobody knows how many messages it had."""
    position = form.position_of(key)
    with transaction.cursor(environment.table(form.BLOCKS)) as cursor:
        cursor.set_key(key)
        try:
            header = form.header_of(cursor.value())
        except ValueError:
            header = None
        before = _neighbour(cursor, key, -1)
        after = _neighbour(cursor, key, +1)
    if before is not None and before.end == position and after is not None:
        size, sequence, count = (
            after.position - position,
            before.end_sequence,
            after.sequence - before.end_sequence,
        )
    elif header is not None and header.position == position:
        size, sequence, count = header.size, header.sequence, header.frames
    else:
        return None
    if not 32 * count <= size <= form.MOST_FRAMES:
        return None
    frames = form.void_frames(sequence, count, size)
    return values.block(key, form.header_for(frames, position, sequence, count), frames)


def _neighbour(cursor: Any, key: bytes, step: int) -> form.Header | None:
    cursor.set_key(key)
    if not (cursor.next() if step > 0 else cursor.prev()) or bytes(cursor.key()[:4]) != key[:4]:
        return None
    try:
        return form.header_of(cursor.value())
    except ValueError:
        return None


def _fill_payload(environment: Environment, transaction: Any, key: bytes, values: Values) -> bytes:
    """Zeros, and its message is expired from now on."""
    sequence, size = form.position_of(key), len(transaction.get(key, db=environment.table(form.PAYLOADS)))
    around = len(values.part(key, memoryview(b"")))
    with transaction.cursor(environment.table(form.BLOCKS)) as cursor:
        there = cursor.set_range(key[:4])
        while there and bytes(cursor.key()[:4]) == key[:4]:
            header = form.header_of(cursor.value())
            if header.sequence <= sequence < header.end_sequence:
                at = bytes(cursor.key())
                header, frames = values.frames(at, cursor.value())
                changed = form.with_expired(frames, sequence)
                made = form.header_for(changed, header.position, header.sequence, header.frames)
                transaction.put(at, values.block(at, made, changed), db=environment.table(form.BLOCKS))
                break
            there = cursor.next()
    return values.part(key, memoryview(bytes(max(size - around, 0))))


def backup(environment: Environment, to: Path, flush: Callable[[], object]) -> None:
    """A copy that a broker can be opened from.

    The side store comes first: what leaves it for a queue from then on is in the queue as well when that is
    copied, and once more delivered by the copy. The other way round it would be in neither. So it is with ids
    of messages, which are remembered when the message is in its queue, and with rotated keys, which are in
    the table `meta`.

    The copy gets its name when it is complete: nobody opens what a death leaves of it.

    Args:
        flush: stores what is not stored yet.

    Raises FileExistsError, StorageFailed, Stalled.
    """
    is_new = not to.exists()
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(to.iterdir()):
        raise FileExistsError(errno.EEXIST, "a backup goes into a new or empty directory", str(to))
    made = to / NEW
    try:
        made.mkdir(mode=0o700)
        _copy_side_store(environment, made / SIDE)
        flush()
        environment.copy(made)
        _make_durable(made)
        _give_names(made, to)
    except BaseException as error:
        directory.remove_tree(made)
        if is_new:
            with contextlib.suppress(OSError):  # somebody else puts something into it
                to.rmdir()
        if isinstance(error, (lmdb.Error, OSError)) and not isinstance(error, RingpostError):
            number = getattr(error, "code", None) or getattr(error, "errno", None) or errno.EIO
            raise StorageFailed(number, f"no backup was made: {error}", str(to)) from error
        raise


def _copy_side_store(environment: Environment, to: Path) -> None:
    source = environment.place / SIDE
    if not source.exists():
        return
    from ringpost.sidestore import durable_side_store

    to.mkdir(mode=0o700)
    values = environment.values(OF_THE_SIDE_STORE)
    durable_side_store(source, environment.access, values, environment.shm).copy(to)


def _make_durable(made: Path) -> None:
    for each in made.rglob("*.mdb"):
        each.chmod(stat.S_IRUSR | stat.S_IWUSR)
        _sync(each)
    if (made / SIDE).exists():
        sync_directory(made / SIDE)


def _give_names(made: Path, to: Path) -> None:
    """The data file last: without it nothing is there."""
    for each in to.resolve().parents:
        sync_directory(each)  # perhaps they were made right now
    given: list[Path] = []
    try:
        for name in (SIDE, DATA):
            if (made / name).exists():
                given.append((made / name).rename(to / name))
                sync_directory(to)
        made.rmdir()
    except BaseException:
        for each in reversed(given):
            directory.remove_tree(each) if each.is_dir() else each.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    opened: Any = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
