"""Atomic consume-and-produce: acks and messages of several logs, all or nothing, whoever dies whenever.

    T1  hold what is to be acked, so that nobody else gets it
    T2  commit a record of everything: the transaction is decided
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
import logging
import os
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ringpost._binding import binding
from ringpost._binding.contract import NativeGroup, NativeLog, Stored
from ringpost.envelope import unseal
from ringpost.errors import Empty, QueueDeleted, QueueNotFound, ShutDown, StorageDamaged, StorageFailed
from ringpost.store import format as form
from ringpost.store.decided import Acks, Record, Sends, Sent, encode
from ringpost.store.environment import Environment
from ringpost.store.log import ALL, StoredLog
from ringpost.store.writer import Writer

_DOOR = "transactions.door"
_FRAME = struct.Struct("<IBBHQQII")  # rp_frame
_LARGE = 1  # RP_FRAME_LARGE
_AT_ONCE = 256

_log = logging.getLogger("ringpost")

OpenLog = Callable[[str, str], NativeLog]  # kind, name
_Damaged = dict["tuple[str, str] | None", StorageDamaged]  # by kind and name

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

    @contextlib.contextmanager
    def _alone(self, timeout: float | None) -> Iterator[None]:
        if self._door is None:
            log = self._environment.find_or_make_door(_DOOR)
            self._door = binding.Stored(log, log)
        self._door.enter(ALL, timeout)
        try:
            yield
        finally:
            self._door.leave()

    # ---- one of ours ---------------------------------------------------------------------------

    def carry_out(
        self,
        transaction: bytes,
        acks: list[Acks],
        sends: list[tuple[str, str, NativeLog, list[Sent]]],
        settle: Callable[[], None],
        timeout: float | None,
    ) -> None:
        """T2 to T4; `settle` acks. Raises StorageFailed, Stalled: nothing of it was done."""
        with self._alone(timeout):
            self._finish_all()
            logs = [storage_of(log) for _, _, log, _ in sends]
            with self._environment.alone(timeout):
                record = Record(
                    acks,
                    [
                        Sends(kind, name, storage.stored.tail(), messages)
                        for (kind, name, _, messages), storage in zip(sends, logs, strict=True)
                    ],
                )
                with self._environment.begin() as writing:
                    sealed = self._environment.values().seal(form.TRANSACTIONS, transaction, encode(record))
                    writing.put(transaction, sealed, db=self._environment.table(form.TRANSACTIONS))
            settle()
            for (_, _, log, messages), storage in zip(sends, logs, strict=True):
                _put(log, messages, storage.label)
            with contextlib.suppress(StorageFailed):  # it is decided: whoever comes next finds all of it done
                self._end(transaction, logs)

    def _end(self, transaction: bytes, logs: list[StoredLog], left: Record = _NOTHING) -> None:
        """What was done is stored, and its record goes, but for what is left to do."""
        environment = self._environment
        table = environment.table(form.TRANSACTIONS)

        def end(writing: Any) -> None:
            if left == _NOTHING:
                writing.delete(transaction, db=table)
            else:
                sealed = environment.values().seal(form.TRANSACTIONS, transaction, encode(left))
                writing.put(transaction, sealed, db=table)

        with environment.alone():
            self._writer.write(*dict.fromkeys(logs), then=end)

    # ---- those of the dead ---------------------------------------------------------------------

    def finish_those_of_the_dead(
        self, timeout: float | None = None, opened: tuple[str, str] | None = None
    ) -> None:
        """Carry out what others decided and did not live to do.

        Args:
            opened: kind and name of the log that is opened.

        Raises StorageDamaged: it is so damaged that nobody can tell what was put into it; others are not.
        """
        if self._environment.has_transactions():
            with self._alone(timeout):
                damaged = self._finish_all()
            if opened in damaged:
                raise damaged[opened]

    def _finish_all(self) -> _Damaged:
        """Which logs are too damaged for it: their part of it is left."""
        damaged: _Damaged = {}
        for transaction, record in self._writer.decided.records():
            logs: list[StoredLog] = []
            acks = [one for one in record.acks if not self._tried(self._ack, one, logs, damaged)]
            carry_out = partial(self._send_missing, transaction)
            sends = [one for one in record.sends if not self._tried(carry_out, one, logs, damaged)]
            left = Record(acks, sends)
            if left != record:
                try:
                    self._end(transaction, logs, left)
                except StorageDamaged as error:  # the next one finds out which of its logs it is
                    _log.warning("a transaction cannot be ended: %s", error)
        return damaged

    def _tried(
        self,
        carry_out: Callable[[NativeLog, Any], None],
        part: Acks | Sends,
        logs: list[StoredLog],
        damaged: _Damaged,
    ) -> bool:
        """False: it is left to do."""
        try:
            log = self._open_log(part.kind, part.name)
            carry_out(log, part)
        except (QueueNotFound, QueueDeleted):
            return True  # right after it was carried out
        except StorageDamaged as error:
            _log.warning("a transaction cannot be carried out: %s", error)
            damaged[part.kind, part.name] = error
            return False
        logs.append(storage_of(log))  # stored with the record's end: else a reboot undoes what was done
        return True

    def _ack(self, log: NativeLog, acks: Acks) -> None:
        _discard_all(log, acks)

    def _send_missing(self, transaction: bytes, log: NativeLog, sends: Sends) -> None:
        storage = storage_of(log)
        with self._environment.alone():
            self._writer.write(storage)  # payloads of large messages are found in storage
        there = set(_marks_since(storage, sends.position))
        missing = [one for one in sends.messages if mark(transaction, one.number) not in there]
        _put(log, missing, storage.label)


def storage_of(log: NativeLog) -> StoredLog:
    storage = log.storage
    assert isinstance(storage, StoredLog)
    return storage


def _put(log: NativeLog, messages: list[Sent], label: str) -> None:
    """It is decided: who deleted the queue meanwhile, or shut it down, did so right after it came."""
    for one in messages:
        try:
            log.send_raw(one.kind, one.payload, one.subject, one.headers, one.ttl_ms, durability="memory")
        except (ShutDown, QueueDeleted):
            _log.warning("%s was shut down or deleted while a transaction was carried out", label)
            return


def _discard_all(log: NativeLog, acks: Acks) -> None:
    group = _group_of(log, acks.group)
    if group is None:
        return
    not_yet = {sequence for sequence in acks.sequences if group.discard(sequence) is None}
    while not_yet:  # after a reboot: they are to be handed out first
        try:
            messages: list[Any] = group.receive(_AT_ONCE, 0, False, None, binding.Delivery)
        except (Empty, ShutDown):
            return
        group.settle([one for one in messages if one.sequence in not_yet])
        not_yet -= {one.sequence for one in messages}
        group.give_back([one for one in messages if not one.settled], 0, True)


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
            size, _, flags, subject_len, sequence, _, headers_len, _ = _FRAME.unpack_from(data, at)
            parts = data[at + _FRAME.size : at + size]
            if flags & _LARGE:
                parts = storage.payload(sequence) or b""
            said = unseal(parts[subject_len : subject_len + headers_len] if headers_len else None).transaction
            if said is not None:
                yield said
            at += -(-size // 16) * 16
        position = start + len(data)
