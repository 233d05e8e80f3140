"""Atomic consume-and-produce: acks and messages of several logs, all or nothing, whoever dies whenever.

    T1  hold what is to be acked, so that nobody else gets it
    T2  commit a record of everything, and what its logs have so far: the transaction is decided
    T3  ack; put the messages, each of which names the transaction and its number in it
    T4  commit what T3 did, and the record's end

A death before T2 has done nothing. After it, whoever comes next carries it out: acks what was not yet
acked, in whosever hands it is; looks through what was put since T2, and puts the messages that it does not
find. What was put will be found, for a record keeps it where it is: see decided.py. A consumer that gets a
message again looks for such records first: what a transaction has acked nobody gets once more.

One transaction at a time, behind a door of their own: its process may need the other one on the way.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

from ringpost._binding import binding
from ringpost._binding.contract import NativeGroup, NativeLog, Stored
from ringpost.envelope import unseal
from ringpost.errors import (
    Empty,
    Full,
    QueueDeleted,
    QueueNotFound,
    RingpostError,
    ShutDown,
    Stalled,
    StorageDamaged,
    StorageFailed,
)
from ringpost.store import format as form
from ringpost.store.decided import Acks, Record, Sends, Sent, encode
from ringpost.store.environment import Environment
from ringpost.store.later import DECIDED, Patience
from ringpost.store.log import ALL, StoredLog
from ringpost.store.writer import Writer

_DOOR = "transactions.door"
_FRAME = struct.Struct("<IBBHQQII")  # rp_frame
_LARGE = 1  # RP_FRAME_LARGE
_AT_ONCE = 256
_ENOUGH = 5.0  # seconds for a step of what was decided, before it is left to whoever comes next
_BRIEFLY = 0.1  # seconds

_log = logging.getLogger("ringpost")

OpenLog = Callable[[str, str, "float | None"], NativeLog]  # kind, name, timeout
_Left = dict["tuple[str, str] | None", Exception]  # by kind and name

_NOTHING = Record([], [])


def new_id() -> bytes:
    return os.urandom(12)


def mark(transaction: bytes, number: int) -> bytes:
    """What a message says of the transaction that it belongs to."""
    return transaction + number.to_bytes(4, "big")


class Transactions:
    """Of one environment, in this process."""

    def __init__(self, environment: Environment, writer: Writer, open_log: OpenLog) -> None:
        self._environment = environment
        self._writer = writer
        self._open_log = open_log
        self._door: Stored | None = None
        self._said: set[str] = set()

    def _alone(self, timeout: float | None) -> contextlib.AbstractContextManager[bool]:
        if self._door is None:
            log = self._environment.find_or_make_door(_DOOR)
            self._door = binding.Stored(log, log)
        return self._door.entering(ALL, timeout)

    # ---- one of ours ---------------------------------------------------------------------------

    def carry_out(
        self,
        transaction: bytes,
        acks: list[Acks],
        sends: list[tuple[str, str, NativeLog, list[Sent]]],
        acked: list[StoredLog],
        settle: Callable[[], None],
        timeout: float | None,
    ) -> None:
        """T2 to T4; `settle` acks, in `acked`. Raises StorageFailed, StorageDamaged, QueueDeleted, Stalled:
        nothing of it was done."""
        patience = Patience(timeout)
        with self._alone(patience.left()):
            self._finish_all()
            logs = [storage_of(log) for _, _, log, _ in sends]
            self._writer.check_room(_size_of(sends), patience.left())
            try:
                self._decide(transaction, acks, sends, logs, acked, patience)
            except StorageFailed as error:
                if error.errno != errno.ENOSPC:
                    raise
                self._writer.make_room(patience.left())
                self._decide(transaction, acks, sends, logs, acked, patience)
            with self._or_later():
                settle()
                for (_, _, log, messages), storage in zip(sends, logs, strict=True):
                    _put(log, messages, storage.label)
                self._end(transaction, [*logs, *acked])

    def _decide(
        self,
        transaction: bytes,
        acks: list[Acks],
        sends: list[tuple[str, str, NativeLog, list[Sent]]],
        logs: list[StoredLog],
        acked: list[StoredLog],
        patience: Patience,
    ) -> None:
        """T2. With what all these logs have so far: after a reboot none of them ends before it does now. So
        what is put is always found behind that, and nothing else gets the number of what is acked."""
        environment = self._environment

        def put(writing: Any, ends: dict[StoredLog, int]) -> None:
            to = [
                Sends(kind, name, ends[storage], messages)
                for (kind, name, _, messages), storage in zip(sends, logs, strict=True)
            ]
            sealed = environment.values().seal(form.TRANSACTIONS, transaction, encode(Record(acks, to)))
            writing.put(transaction, sealed, db=environment.table(form.TRANSACTIONS))

        with _decided(), environment.alone(patience.left()):
            self._writer.write(*dict.fromkeys([*logs, *acked]), then=put)

    @binding.contextmanager
    def _or_later(self) -> Iterator[None]:
        """It is decided: what fails now is done by whoever comes next, and nobody is told that it failed."""
        try:
            yield
        except Exception as error:
            _log.warning("a transaction was decided, and is carried out later: %s", error)
            self._writer.finish_later()
        except BaseException:
            self._writer.finish_later()
            raise

    def _end(self, transaction: bytes, logs: list[StoredLog], left: Record = _NOTHING) -> None:
        """What was done is stored, and its record goes, but for what is left to do."""
        environment = self._environment

        def end(writing: Any, _: dict[StoredLog, int]) -> None:
            table = environment.table(form.TRANSACTIONS)
            if left == _NOTHING:
                writing.delete(transaction, db=table)
            else:
                sealed = environment.values().seal(form.TRANSACTIONS, transaction, encode(left))
                writing.put(transaction, sealed, db=table)

        with _decided() as patience, environment.alone(patience.left()):
            self._writer.write(*dict.fromkeys(logs), then=end)

    # ---- those of the dead ---------------------------------------------------------------------

    def finish_those_of_the_dead(self, timeout: float | None, opened: tuple[str, str] | None = None) -> None:
        """Carry out what others decided and did not live to do.

        Args:
            opened: kind and name of the log that is opened.

        Raises Stalled: one who is not dead does not do it within `timeout`. StorageDamaged: the log that is
        opened is so damaged that nobody can tell what was put into it; others are not.
        """
        if self._environment.has_transactions():
            with self._alone(timeout):
                left = self._finish_all()
            problem = left.get(opened)
            if isinstance(problem, StorageDamaged):
                raise problem

    def without_acked(self, identity: tuple[str, str], group: NativeGroup, messages: list[Any]) -> list[Any]:
        """Without what somebody has decided to ack: he may be dead, and is not waited for if he is not."""
        if DECIDED.get() is not None:
            return messages  # who carries it out has asked for them
        try:
            self.finish_those_of_the_dead(_BRIEFLY)
        except (RingpostError, ShutDown):
            self._writer.finish_later()
        where = (*identity, group.info()["name"])
        acked = {
            sequence
            for _, record in self._writer.decided.records()
            for acks in record.acks
            if (acks.kind, acks.name, acks.group) == where
            for sequence in acks.sequences
        }
        group.settle([one for one in messages if one.sequence in acked])
        return [one for one in messages if group.holds(one)]

    def _finish_all(self) -> _Left:
        """Why what is left to do could not be done, by log. Raises if something that was acked may be handed
        out again."""
        left: _Left = {}
        for transaction, record in self._writer.decided.records():
            logs: list[StoredLog] = []
            acks = [one for one in record.acks if not self._has_acked(one, logs, left)]
            sends = [one for one in record.sends if not self._has_sent(transaction, one, logs, left)]
            if (acks, sends) != (record.acks, record.sends):
                self._end_if_it_can(transaction, logs, Record(acks, sends))
        if left:
            self._writer.finish_later()
        return left

    def _end_if_it_can(self, transaction: bytes, logs: list[StoredLog], left: Record) -> None:
        try:
            self._end(transaction, logs, left)
        except (StorageDamaged, StorageFailed, Stalled, QueueDeleted) as error:
            self._warn("the end of a transaction cannot be stored", error)  # and is all done
            self._writer.finish_later()

    def _has_acked(self, acks: Acks, logs: list[StoredLog], left: _Left) -> bool:
        try:
            log = self._open_log(acks.kind, acks.name, _ENOUGH)
            _discard_all(log, acks)
        except (QueueNotFound, QueueDeleted):
            return True  # deleted right after it
        except StorageDamaged as error:
            left[acks.kind, acks.name] = error
            self._warn("what a transaction has acked cannot be found", error)
            return False
        logs.append(storage_of(log))  # stored with the record's end: else a reboot undoes it
        return True

    def _has_sent(self, transaction: bytes, sends: Sends, logs: list[StoredLog], left: _Left) -> bool:
        try:
            log = self._open_log(sends.kind, sends.name, _ENOUGH)
            self._send_missing(log, transaction, sends)
        except (QueueNotFound, QueueDeleted):
            return True
        except (StorageDamaged, StorageFailed, Full) as error:  # Stalled is a Full
            left[sends.kind, sends.name] = error
            self._warn("what a transaction has sent cannot be put", error)
            return False
        logs.append(storage_of(log))
        return True

    def _warn(self, what: str, error: Exception) -> None:
        """Once: it is tried again and again."""
        text = f"{what}: {error}"
        if text not in self._said:
            self._said.add(text)
            _log.warning("%s", text)

    def _send_missing(self, log: NativeLog, transaction: bytes, sends: Sends) -> None:
        storage = storage_of(log)
        with _decided() as patience, self._environment.alone(patience.left()):
            self._writer.write(storage)  # payloads of large messages are found in storage
        there = set(_marks_since(storage, sends.position))
        missing = [one for one in sends.messages if mark(transaction, one.number) not in there]
        _put(log, missing, storage.label)


def _size_of(sends: list[tuple[str, str, NativeLog, list[Sent]]]) -> int:
    """Bytes that these take: in the record, and then in their logs."""
    return 2 * sum(len(one.payload) + len(one.headers or b"") for *_, messages in sends for one in messages)


@binding.contextmanager
def _decided() -> Iterator[Patience]:
    """For a step of what was decided: it is to come to an end, for nobody else can do anything meanwhile."""
    patience = Patience(_ENOUGH)
    before = DECIDED.get()
    try:
        DECIDED.set(patience)  # within: a signal handler may raise right behind it
        yield patience
    finally:
        DECIDED.set(before)


def storage_of(log: NativeLog) -> StoredLog:
    storage = log.storage
    assert isinstance(storage, StoredLog)
    return storage


def _put(log: NativeLog, messages: list[Sent], label: str) -> None:
    """It is decided: it goes beyond the queue's maxsize. Who deleted the queue meanwhile, or shut it down,
    did so right after it came."""
    for one in messages:
        parts = one.kind, one.payload, one.subject, one.headers, one.ttl_ms
        try:
            with _decided() as patience:
                log.send_raw(*parts, timeout=patience.left(), durability="memory", beyond=True)
        except (ShutDown, QueueDeleted):
            _log.warning("%s was shut down or deleted while a transaction was carried out", label)
            return


def _discard_all(log: NativeLog, acks: Acks) -> None:
    group = _group_of(log, acks.group)
    if group is None:
        return
    not_yet = {sequence for sequence in acks.sequences if group.discard(sequence) is None}
    if not_yet:
        with _decided():  # what is received here nobody looks for in records once more
            _take(group, not_yet)


def _take(group: NativeGroup, sequences: set[int]) -> None:
    """Ack what was not handed out yet: after a reboot."""
    last, others = max(sequences), list[Any]()
    try:
        while sequences:
            messages: list[Any] = group.receive(_AT_ONCE, 0, False, None, binding.Delivery)
            group.settle([one for one in messages if one.sequence in sequences])
            others += [one for one in messages if one.sequence not in sequences]
            if any(one.sequence >= last for one in messages):
                break  # all of them were handed out
            sequences = sequences - {one.sequence for one in messages}
    except Stalled:
        raise
    except (Empty, ShutDown):
        pass
    finally:
        group.give_back(others, 0, True)


def _group_of(log: NativeLog, name: str) -> NativeGroup | None:
    if not name:
        return log.group()
    for each in log.groups():
        if each["name"] == name:
            return log.open_group(name, each["pattern"], policy=each["policy"], lossy=each["lossy"])[0]
    return None


def _marks_since(storage: StoredLog, position: int) -> Iterator[bytes]:
    """Of the messages that were put at `position` and behind it."""
    end = storage.stored.tail()
    while position < end:
        found = storage.frames(position)
        if found is None:  # while there is a record nothing is deleted
            raise StorageDamaged(
                f"{storage.label}: what a transaction put into it cannot be told: the block with position "
                f"{position} is missing; restore a backup, or delete it"
            )
        data, start = found
        at = position - start
        while at < len(data):
            size, _, flags, subject_len, sequence, _, headers_len, _ = _frame_at(data, at, storage.label)
            parts = data[at + _FRAME.size : at + size]
            if flags & _LARGE:
                parts = storage.payload(sequence) or b""
            said = unseal(parts[subject_len : subject_len + headers_len] if headers_len else None).transaction
            if said is not None:
                yield said
            at += -(-size // 16) * 16
        position = start + len(data)


def _frame_at(data: bytes, at: int, label: str) -> tuple[int, ...]:
    """Raises StorageDamaged."""
    left = len(data) - at
    if left >= _FRAME.size:
        frame = _FRAME.unpack_from(data, at)
        if _FRAME.size <= frame[0] <= left:
            return frame
    raise StorageDamaged(
        f"{label}: what a transaction put into it cannot be told: no message begins where one should; "
        "restore a backup, or delete it"
    )
