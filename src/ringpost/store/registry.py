"""Which logs a durable broker has, and their rings: made anew where shared memory was lost.

All of it happens behind the door, so nobody sees a ring that is half restored; and a ring counts only if
storage names it (Progress.ring), so one that its maker died over is made again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringpost._binding import binding
from ringpost._binding.contract import NativeLog
from ringpost.errors import LeftOver, QueueNotFound, StorageDamaged, Unsupported
from ringpost.store import format as form
from ringpost.store.blocks import AT_ONCE, Blocks
from ringpost.store.environment import Environment

_LAST = (1 << 32) - 1  # of a broker's logs there are so many numbers
QUEUE, LEVEL = "queue", "level"  # engines.Kind


class Registry:
    """Of one environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._values = environment.values()

    # ---- records -------------------------------------------------------------------------------

    def find(self, kind: str, name: str) -> form.LogRecord | None:
        key = form.log_key(kind, name)
        with self._environment.read() as transaction:
            value = transaction.get(key, db=self._environment.table(form.LOGS))
            return None if value is None else form.decode_log(self._values.open(form.LOGS, key, value))

    def all(self) -> list[tuple[str, str, form.LogRecord]]:
        """(kind, name, record) of each."""
        environment, found = self._environment, []
        with environment.read() as transaction, transaction.cursor(environment.table(form.LOGS)) as cursor:
            for row, value in cursor:
                key = bytes(row)
                record = form.decode_log(self._values.open(form.LOGS, key, value))
                found.append((*form.kind_and_name(key), record))
        return found

    def names(self, kind: str) -> list[str]:
        prefix = form.log_key(kind, "")
        found = []
        environment = self._environment
        with environment.read() as transaction, transaction.cursor(environment.table(form.LOGS)) as cursor:
            there = cursor.set_range(prefix)
            while there and bytes(cursor.key()[: len(prefix)]) == prefix:
                found.append(form.kind_and_name(bytes(cursor.key()))[1])
                there = cursor.next()
        return found

    def add(self, kind: str, name: str, **settings: Any) -> form.LogRecord:
        """Who calls is alone."""
        environment = self._environment
        with environment.begin() as transaction:
            for key in self._levels_in(transaction, kind, name):
                self._bury(transaction, key)  # left over from one that was deleted: it is not this one's
            meta = environment.table(form.META)
            broker = form.decode_broker(transaction.get(b"broker", db=meta))
            if broker.next_number == _LAST:
                raise Unsupported(
                    f"{environment.place} has had {_LAST} queues and topics, and can have no more: export it "
                    "(ringpost export), and import it into a new directory"
                )
            record = form.LogRecord(number=broker.next_number, id=os.urandom(16), **settings)
            following = form.BrokerRecord(broker.format, broker.id, broker.made_ns, broker.next_number + 1)
            transaction.put(b"broker", form.encode(following), db=meta)
            key = form.log_key(kind, name)
            sealed = self._values.seal(form.LOGS, key, form.encode(record))
            transaction.put(key, sealed, db=environment.table(form.LOGS))
        return record

    def _levels_in(self, transaction: Any, kind: str, name: str) -> list[bytes]:
        """Keys of the records of a queue's levels."""
        prefix, found = form.log_key(LEVEL, name + "\0"), []
        if kind != QUEUE:
            return []
        with transaction.cursor(self._environment.table(form.LOGS)) as cursor:
            there = cursor.set_range(prefix)
            while there and bytes(cursor.key()).startswith(prefix):
                found.append(bytes(cursor.key()))
                there = cursor.next()
        return found

    # ---- removal -------------------------------------------------------------------------------

    def remove(self, kind: str, name: str) -> bool:
        """Its record, and those of its levels, in one transaction; it notes that what they stored is to go.
        Who calls is alone. False: there was none."""
        key, environment = form.log_key(kind, name), self._environment
        with environment.begin() as transaction:
            if transaction.get(key, db=environment.table(form.LOGS)) is None:
                return False
            for each in (key, *self._levels_in(transaction, kind, name)):
                self._bury(transaction, each)
        return True

    def _bury(self, transaction: Any, key: bytes) -> None:
        environment, logs = self._environment, self._environment.table(form.LOGS)
        record = form.decode_log(self._values.open(form.LOGS, key, transaction.get(key, db=logs)))
        transaction.delete(key, db=logs)
        number = form.number_key(record.number)
        transaction.delete(number, db=environment.table(form.PROGRESS))
        row, removed = form.REMOVED + number, form.encode(form.RemovedRecord(key, record.id))
        sealed = self._values.seal(form.META, row, removed)
        transaction.put(row, sealed, db=environment.table(form.META))

    def removed(self) -> list[tuple[bytes, form.RemovedRecord]]:
        """Those of which something is left, with their numbers; without damaged notes."""
        environment, found = self._environment, []
        with environment.read() as transaction, transaction.cursor(environment.table(form.META)) as cursor:
            there = cursor.set_range(form.REMOVED)
            while there and bytes(cursor.key()).startswith(form.REMOVED):
                row = bytes(cursor.key())
                with contextlib.suppress(StorageDamaged):
                    value = self._values.open(form.META, row, cursor.value())
                    found.append((row[len(form.REMOVED) :], form.decode_removed(value)))
                there = cursor.next()
        return found

    def delete_some(self, number: bytes) -> bool:
        """Of what a removed log has stored; at last the note of it. Who calls is alone. False: nothing is
        left."""
        environment, left = self._environment, AT_ONCE
        with environment.begin() as transaction:
            for name in (form.BLOCKS, form.PAYLOADS, form.GROUPS, form.KEYS, form.SUPERSEDED):
                table = environment.table(name)
                rows = _rows_of(transaction, table, number, left)
                for row in rows:
                    transaction.delete(row, db=table)
                left -= len(rows)
            if left:
                transaction.delete(form.REMOVED + number, db=environment.table(form.META))
        return not left

    # ---- rings ---------------------------------------------------------------------------------

    def open_ring(
        self,
        record: form.LogRecord,
        path: Path,
        attach: Callable[[], NativeLog],
        create: Callable[[dict[str, Any]], NativeLog],
    ) -> tuple[NativeLog, bool]:
        """The ring of a log, and whether it was made anew. Who calls is alone."""
        progress = self._progress(record)
        try:
            log = attach()
            if (
                progress is not None
                and log.info()["created_ns"] == progress.ring
                and not log.info()["deleted"]
            ):
                self._catch_up(log, progress)
                return log, False
            binding.remove(str(path))  # its maker died over it, or it is another directory's
        except LeftOver:
            binding.collect(str(path))
        except QueueNotFound:
            pass
        return self._make_ring(record, progress, create), True

    def _progress(self, record: form.LogRecord) -> form.Progress | None:
        with self._environment.read() as transaction:
            return self.blocks(record).progress(transaction)

    def _catch_up(self, log: NativeLog, progress: form.Progress) -> None:
        """A writer may have died between its commit and its word of it."""
        stored = self._environment.stored(log)
        if stored.durable() < progress.position <= stored.tail():
            stored.set_durable(progress.position)

    def _make_ring(
        self,
        record: form.LogRecord,
        progress: form.Progress | None,
        create: Callable[[dict[str, Any]], NativeLog],
    ) -> NativeLog:
        position, sequence = (0, 0) if progress is None else (progress.position, progress.sequence)
        groups = [clip(one, position, sequence) for one in self.groups(record)]
        unfinished = _unfinished(groups, sequence)
        if not 0 <= unfinished <= sequence:
            raise StorageDamaged(
                f"{self._environment.place}: what is stored of a group of log {record.number} contradicts "
                "what is stored of its messages: restore a backup, or delete the log"
            )
        log = create(
            {
                "log_id": record.id,
                "first_position": position,
                "first_sequence": sequence,
                "first_done": sequence - unfinished,
            }
        )
        stored = self._environment.stored(log)
        for one in groups:
            stored.restore_group(
                one.name, one.pattern, one.policy, one.read, one.sequence, one.acked, one.held
            )
        made = form.Progress(position, sequence, log.info()["created_ns"])
        with self._environment.begin() as transaction:
            key = form.number_key(record.number)
            sealed = self.blocks(record).values.seal(form.PROGRESS, key, made.pack())
            transaction.put(key, sealed, db=self._environment.table(form.PROGRESS))
        return log

    def groups(self, record: form.LogRecord) -> list[form.GroupRecord]:
        with self._environment.read() as transaction:
            return self.blocks(record).groups(transaction)

    def blocks(self, record: form.LogRecord) -> Blocks:
        return Blocks(self._environment, record)


def _rows_of(transaction: Any, table: Any, number: bytes, most: int) -> list[bytes]:
    rows: list[bytes] = []
    with transaction.cursor(table) as cursor:
        found = cursor.set_range(number)
        while found and len(rows) < most and bytes(cursor.key()).startswith(number):
            rows.append(bytes(cursor.key()))
            found = cursor.next()
    return rows


def clip(group: form.GroupRecord, position: int, sequence: int) -> form.GroupRecord:
    """What was taken before it was stored is not there any more."""
    held = [each for each in _held_of(group.held) if each[0] < position]
    kept = b"".join(
        _pack_held(at, first, pending & _bits_below(first, sequence), rest)
        for at, first, pending, rest in held
    )
    read, there = (group.read, group.sequence) if group.read <= position else (position, sequence)
    return form.GroupRecord(
        group.name, group.pattern, group.policy, read, there, min(group.acked, read), kept
    )


def moved(group: form.GroupRecord, start: tuple[int, int], end: tuple[int, int]) -> form.GroupRecord:
    """As if it were done with all messages from one (position, sequence) to another: it stands within them no
    more, and holds none of them."""
    held = b"".join(_pack_held(*_moved_lease(start, end, *each)) for each in _held_of(group.held))
    is_within = start[0] <= group.read < end[0]
    read, sequence = end if is_within else (group.read, group.sequence)
    acked = end[0] if start[0] <= group.acked < end[0] else group.acked
    return form.GroupRecord(group.name, group.pattern, group.policy, read, sequence, acked, held)


def _moved_lease(
    start: tuple[int, int], end: tuple[int, int], at: int, first: int, pending: int, rest: bytes
) -> tuple[int, int, int, bytes]:
    pending &= _bits_below(first, start[1]) | ~_bits_below(first, end[1])
    if start[0] <= at < end[0]:
        return *end, pending >> max(end[1] - first, 0), rest
    return at, first, pending, rest


def first_needed(groups: list[form.GroupRecord]) -> tuple[int, int] | None:
    """(position, sequence) of the first message that somebody may still get. None: there is nobody."""
    reading = [(one.read, one.sequence) for one in groups]
    held = [(at, first) for one in groups for at, first, pending, _ in _held_of(one.held) if pending]
    return min(reading + held, default=None)


def _held_of(held: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    for at in range(0, len(held), form.HELD):
        numbers = [int.from_bytes(held[at + i : at + i + 8], "little") for i in (0, 8, 16)]
        found.append((numbers[0], numbers[1], numbers[2], held[at + 24 : at + form.HELD]))
    return found


def _pack_held(position: int, sequence: int, pending: int, rest: bytes) -> bytes:
    if not pending:
        return b""
    return b"".join(each.to_bytes(8, "little") for each in (position, sequence, pending)) + rest


def _bits_below(first: int, sequence: int) -> int:
    return (1 << min(max(sequence - first, 0), 64)) - 1


def _unfinished(groups: list[form.GroupRecord], sequence: int) -> int:
    """Tasks of a queue that somebody must still finish: what was not taken, and what was not acked."""
    for one in groups:
        if one.name == b"":
            held = sum(bits.bit_count() for _, _, bits, _ in _held_of(one.held))
            return sequence - one.sequence + held
    return sequence
