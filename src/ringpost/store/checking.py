"""verify() and backup(): is everything there, and a copy of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import lmdb.verify

from ringpost._binding.contract import Stored
from ringpost.engines import directory
from ringpost.engines.access import access_found
from ringpost.errors import CorruptLog, QueueNotFound, RingpostError, StorageDamaged, StorageFailed
from ringpost.keys import from_environment, key_of
from ringpost.store import format as form
from ringpost.store.environment import DATA, NEW, SIDE, Environment, open_environment, sync_directory
from ringpost.store.registry import Registry, first_needed, moved
from ringpost.store.values import OF_THE_SIDE_STORE, Values

_Fill = Callable[[Any], bool]
"""Gets a transaction to put what nobody will get in place of what is damaged. False: it cannot."""

_Place = tuple[int, int]  # position, sequence

_HEAD = 1 << 16  # bytes: LMDB's two meta pages, of the largest size that pages have
_LOOKS = 3
_BLOCK_KEY = 12  # bytes; those of payloads are longer
_MOST_MENDED = 1 << 30  # bytes


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
        given_up: what was damaged and is given up now, with skip_damaged=True; not what was stored anew, out
            of shared memory.
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
    damaged: list[tuple[bytes, _Fill]] = field(default_factory=list)  # block or payload, how it is given up


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

    Raises QueueNotFound: there is no durable broker; StorageFailed: it cannot be opened at all; KeyRefused;
    NotOurs: it is another user's.
    """
    place, opener = Path(directory), key_of(key) or from_environment()
    access = access_found(place)  # says whose it is, before anything is read
    if not (place / DATA).exists():
        raise QueueNotFound(f"there is no durable broker in {place}")
    look = _look_at_structure(place)
    if look.problems and not look.was_written:  # opening a damaged file may kill this process: not before
        return look.verification()
    environment = open_environment(place, create=False, key=opener, access=access)
    if look.problems and (look := _look_while_others_write(environment)).problems:
        return look.verification()
    found = _look_at_all(environment)
    given_up = _give_up(environment, found) if skip_damaged and found.damaged else ()
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


def _look_at_all(environment: Environment) -> _Findings:
    found = _Findings()
    for kind, name, record in Registry(environment).all():
        _look_at(environment, kind, name, record, found)
    return found


def _look_at(
    environment: Environment, kind: str, name: str, record: form.LogRecord, found: _Findings
) -> None:
    """In one transaction: others write meanwhile."""
    one = _Looked(environment, record, f"{kind} {name!r}", found)
    with environment.read() as transaction:
        one.look_at_blocks(transaction)
        one.look_at_payloads(transaction)
    found.queues.append(
        StoredQueue(kind, name.replace("\0", " priority "), one.blocks, one.messages, one.size)
    )


class _Looked:
    """A queue or topic, as far as it was looked at."""

    def __init__(self, environment: Environment, record: form.LogRecord, what: str, found: _Findings) -> None:
        self._environment = environment
        self._record = record
        self._prefix, self._values = form.number_key(record.number), environment.values(record.id)
        self._groups = Registry(environment).groups
        self._what = what
        self._found = found
        self._large: dict[int, int] = {}  # messages whose payloads lie elsewhere, and how long these are
        self.blocks = self.messages = self.size = 0

    def _say(self, problem: object, key: bytes, fill: _Fill) -> None:
        self._found.problems.append(f"{self._what}: {problem}")
        self._found.damaged.append((key, fill))

    def look_at_blocks(self, transaction: Any) -> None:
        first, is_first = self._first_needed(), True
        needed = first if self._record.retention is None else None  # of a topic all is stored
        end = first  # behind the last block, or what is needed first; None: nobody knows
        with transaction.cursor(self._environment.table(form.BLOCKS)) as cursor:
            there = cursor.set_range(self._prefix)
            while there and bytes(cursor.key()[:4]) == self._prefix:
                key = bytes(cursor.key())
                try:
                    header, frames = self._values.frames(key, cursor.value())
                    self._environment.was_read(cursor.value(), header.size)
                    if end is not None and (not is_first or end[0] < header.position):
                        self._compare(end, header, needed)
                    self._large.update(form.large_in(frames, header.position))
                    self.blocks, self.messages = self.blocks + 1, self.messages + header.frames
                    self.size, end = self.size + header.size, (header.end, header.end_sequence)
                except StorageDamaged as error:
                    self._say(error, key, partial(_fill_block, self._environment, key, self._values, first))
                    end = None
                is_first, there = False, cursor.next()

    def _first_needed(self) -> _Place | None:
        """What lies before it was perhaps acked by all before it was stored, and then it never is; of a topic
        it may be beyond its retention. None: nobody needs anything, or it cannot be told."""
        try:
            return first_needed(self._groups(self._record))
        except StorageDamaged as error:
            self._found.problems.append(f"{self._what}: {error}")
        return None

    def _compare(self, end: _Place, header: form.Header, needed: _Place | None) -> None:
        """With what is there up to `end`. Raises StorageDamaged: this block cannot be the next one."""
        position, sequence = end
        size, count = header.position - position, header.sequence - sequence
        if size == count == 0:
            return
        if size <= 0 or count <= 0:
            raise StorageDamaged(
                f"block {form.describe(form.block_key(self._record.number, header.position))} contradicts "
                f"the one before it, which ends at {position} with message {sequence - 1}"
            )
        if needed is None or needed[0] < header.position:
            self._say(
                f"what lies between positions {position} and {header.position} is missing: messages "
                f"{sequence} to {header.sequence - 1}",
                form.block_key(self._record.number, position),
                partial(_fill_gap, self._environment, self._record.number, end, size, count, self._values),
            )

    def look_at_payloads(self, transaction: Any) -> None:
        there_of, damaged = dict[int, int](), set[int]()
        with transaction.cursor(self._environment.table(form.PAYLOADS)) as cursor:
            there = cursor.set_range(self._prefix)
            while there and bytes(cursor.key()[:4]) == self._prefix:
                key = bytes(cursor.key())
                sequence = form.position_of(key)
                try:
                    part = self._values.piece(key, cursor.value())
                    there_of[sequence] = there_of.get(sequence, 0) + len(part)
                    self.size += len(part)
                    self._environment.was_read(cursor.value(), len(part))
                except StorageDamaged as error:
                    damaged.add(sequence)
                    self._say(error, key, partial(_fill_part, self._environment, key, self._values))
                there = cursor.next()
        for sequence, length in self._large.items():
            if sequence not in damaged and there_of.get(sequence, 0) != length:
                key = form.payload_key(self._record.number, sequence, 0)
                self._say(
                    f"payload {form.describe(key)} is damaged: {there_of.get(sequence, 0)} of {length} bytes "
                    "are there",
                    key,
                    partial(_fill_payload, self._environment, key, length, self._values),
                )


# ---- giving up ----------------------------------------------------------------------------------


def _give_up(environment: Environment, found: _Findings) -> tuple[str, ...]:
    """Messages that are expired take the place of damaged ones: whoever comes to them passes over them, and
    positions and sequences stay what they are."""
    given_up = []
    rings = _store_rings(environment, [key for key, _ in found.damaged])
    if rings:
        found = _look_at_all(environment)  # something was mended, or is gone, with what was acked
    for key, fill in found.damaged:
        with environment.alone(), environment.begin() as transaction:
            if fill(transaction):
                given_up.append(form.describe(key))
                if key[:4] in rings:
                    _forget_ring(environment, key[:4], rings[key[:4]], transaction)
    return tuple(given_up)


def _store_rings(environment: Environment, damaged: list[bytes]) -> dict[bytes, Values]:
    """What is in the shared memory of these logs, if it is still there: groups stand in it as well, and those
    that are stored count only when it is made anew. Of which logs that can be done."""
    from ringpost.engines.durable import DurableEngine

    engine, rings = DurableEngine.of(environment), dict[bytes, Values]()
    for kind, name, record in Registry(environment).all():
        number, values = form.number_key(record.number), environment.values(record.id)
        keys = [key for key in damaged if key[:4] == number]
        with contextlib.suppress(CorruptLog):  # then it stays, with what it has
            storage = engine.storage_of_ring(kind, name) if keys else None
            if storage is not None:
                if record.retention is None or not record.retention.compact:
                    _mend(environment, keys, values, storage.stored)
                storage.noted = True  # who acked may be dead: its groups are stored in any case
                storage.flush()
                rings[number] = values
    return rings


def _mend(environment: Environment, keys: list[bytes], values: Values, stored: Stored) -> None:
    """Blocks that are damaged, or missing, and are still in shared memory: up to those behind them."""
    table = environment.table(form.BLOCKS)
    for key in [each for each in keys if len(each) == _BLOCK_KEY]:
        with environment.alone(), environment.begin() as transaction:
            with transaction.cursor(table) as cursor:
                there = cursor.set_range(key) and (bytes(cursor.key()) != key or cursor.next())
                is_last = not there or bytes(cursor.key()[:4]) != key[:4]
                end = stored.durable() if is_last else form.position_of(cursor.key())
            size = end - form.position_of(key)
            frames = stored.copy(form.position_of(key), size) if 0 < size <= _MOST_MENDED else None
            if frames is not None and len(frames) == size:
                _put_blocks(environment, key, frames, values, transaction)


def _put_blocks(
    environment: Environment, key: bytes, frames: bytes, values: Values, transaction: Any
) -> _Place:
    """From there on, in blocks. Where they end."""
    position, sequence = form.position_of(key), next(form.frames_in(frames, 0)).sequence
    for some, count in form.in_blocks(frames, values.most_frames):
        header = form.header_for(some, position, sequence, count)
        row = form.block_key(int.from_bytes(key[:4], "big"), position)
        transaction.put(row, values.block(row, header, some), db=environment.table(form.BLOCKS))
        position, sequence = header.end, header.end_sequence
    return position, sequence


def _forget_ring(environment: Environment, number: bytes, values: Values, transaction: Any) -> None:
    """Whoever opens the log makes another one."""
    table = environment.table(form.PROGRESS)
    noted = form.Progress.unpack(values.open(form.PROGRESS, number, transaction.get(number, db=table)))
    sealed = values.seal(form.PROGRESS, number, noted._replace(ring=0).pack())
    transaction.put(number, sealed, db=table)


def _fill_block(
    environment: Environment, key: bytes, values: Values, needed: _Place | None, transaction: Any
) -> bool:
    """False: nobody knows how many messages it had."""
    table = environment.table(form.BLOCKS)
    with transaction.cursor(table) as cursor:
        found = _stretch_of(cursor, key, needed)
    if found is None:
        return False
    at, size, count = found
    if not form.FRAME_HEADER * count <= size <= form.MOST_SPARSE:
        return False
    number = int.from_bytes(key[:4], "big")
    is_filled = _fill_gap(environment, number, at, size, count, values, transaction)
    if is_filled and at[0] != form.position_of(key):
        transaction.delete(key, db=table)
    return is_filled


def _stretch_of(cursor: Any, key: bytes, needed: _Place | None) -> tuple[_Place, int, int] | None:
    """What a damaged block stands for, as its neighbours say, or its header, or else who needs some of it:
    where that begins, its size, and how many messages it is."""
    position = form.position_of(key)
    before, own, after = (_header_at(cursor, key, step) for step in (-1, 0, +1))
    if before is not None and before.end == position and after is not None:
        at = (position, before.end_sequence)
    elif own is not None:
        return (position, own.sequence), own.size, own.frames
    elif needed is not None and after is not None and position <= needed[0] < after.position:
        at = needed
    else:
        return None
    return at, after.position - at[0], after.sequence - at[1]


def _header_at(cursor: Any, key: bytes, step: int) -> form.Header | None:
    """Of the block with this key, or the one before or behind it. None: there is none, or it is nonsense."""
    cursor.set_key(key)
    if step and not (cursor.next() if step > 0 else cursor.prev()):
        return None
    try:
        header = form.header_of(cursor.value()) if bytes(cursor.key()[:4]) == key[:4] else None
    except ValueError:
        return None
    return header if header is not None and header.position == form.position_of(cursor.key()) else None


def _fill_gap(
    environment: Environment,
    number: int,
    at: _Place,
    size: int,
    count: int,
    values: Values,
    transaction: Any,
) -> bool:
    """Where a block is missing, or damaged. False: so many messages cannot have had this size."""
    try:
        frames = form.void_frames(at[1], count, size)
    except ValueError:
        return False
    end = _put_blocks(environment, form.block_key(number, at[0]), frames, values, transaction)
    _move_groups(environment, number, at, end, values, transaction)
    return True


def _move_groups(
    environment: Environment, number: int, start: _Place, end: _Place, values: Values, transaction: Any
) -> None:
    """To the end of what was filled: frames lie elsewhere in it than they did, and whoever stood at one of
    them finds none there."""
    table, prefix = environment.table(form.GROUPS), form.number_key(number)
    with transaction.cursor(table) as cursor:
        there, rows = cursor.set_range(prefix), list[tuple[bytes, bytes]]()
        while there and bytes(cursor.key()[:4]) == prefix:
            rows.append((bytes(cursor.key()), bytes(cursor.value())))
            there = cursor.next()
    for key, value in rows:
        with contextlib.suppress(StorageDamaged):  # that was said, and nobody can stand there
            group = form.decode_group(bytes(values.open(form.GROUPS, key, value)))
            sealed = values.seal(form.GROUPS, key, form.encode(moved(group, start, end)))
            transaction.put(key, sealed, db=table)


def _fill_part(environment: Environment, key: bytes, values: Values, transaction: Any) -> bool:
    """Zeros, and its message is expired from now on."""
    table = environment.table(form.PAYLOADS)
    around = len(values.part(key, memoryview(b"")))
    size = max(len(transaction.get(key, db=table)) - around, 0)
    _expire(environment, key, values, transaction)
    transaction.put(key, values.part(key, memoryview(bytes(size))), db=table)
    return True


def _fill_payload(
    environment: Environment, key: bytes, length: int, values: Values, transaction: Any
) -> bool:
    """The same of a payload of which parts are missing."""
    table, rows = environment.table(form.PAYLOADS), key[:12]
    with transaction.cursor(table) as cursor:
        there = cursor.set_range(rows)
        while there and bytes(cursor.key()).startswith(rows):
            there = cursor.delete() and bool(cursor.key())
    for part in range(-(-length // values.most_part)):
        row = rows + part.to_bytes(4, "big")
        zeros = bytes(min(values.most_part, length - part * values.most_part))
        transaction.put(row, values.part(row, memoryview(zeros)), db=table)
    _expire(environment, key, values, transaction)
    return True


def _expire(environment: Environment, key: bytes, values: Values, transaction: Any) -> None:
    """The message that this is a payload of."""
    sequence = form.position_of(key)
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


# ---- backup -------------------------------------------------------------------------------------


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
