"""Transactions of users that were decided and are not yet carried out: their records, and what these keep.

Whoever carries one out for the dead looks for what they put, from the position on where a log ended when it
was decided. So long as there is a record, nothing from there on is left out of storage, deleted or rewritten.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import msgspec

from ringpost.errors import StorageDamaged
from ringpost.store import format as form
from ringpost.store.environment import Environment

_log = logging.getLogger("ringpost")


class Acks(msgspec.Struct, array_like=True, frozen=True):
    """Of one group."""

    kind: str
    name: str
    group: str
    sequences: list[int]


class Sent(msgspec.Struct, array_like=True, frozen=True):
    """One message: what Log.send_raw() takes."""

    number: int
    kind: int
    payload: bytes
    subject: bytes | None
    headers: bytes | None
    ttl_ms: int


class Sends(msgspec.Struct, array_like=True, frozen=True):
    """To one log, which ended at this position when it was decided."""

    kind: str
    name: str
    position: int
    messages: list[Sent]


class Record(msgspec.Struct, array_like=True, frozen=True):
    acks: list[Acks]
    sends: list[Sends]


_Floors = dict[tuple[str, str], int]

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Decided:
    """Of one environment, in this process."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.are_some = False  # as the last look at the floor of a log found
        self._floors: dict[bytes, _Floors | None] = {}  # of the records that there are; None: it is damaged

    def records(self) -> list[tuple[bytes, Record]]:
        """Without damaged ones."""
        found = []
        with self._environment.read() as reading:
            for key, value in self._rows(reading):
                with contextlib.suppress(StorageDamaged):
                    found.append((key, self._opened(key, value)))
        return found

    def floor(self, identity: tuple[str, str], transaction: Any = None) -> int | None:
        """The position from which on the log with this kind and name is to stay as it is. None: nowhere.

        Args:
            transaction: of LMDB, to look in.
        """
        if transaction is None:
            with self._environment.read() as reading:
                return self.floor(identity, reading)
        found = {key: self._floors_of(key, value) for key, value in self._rows(transaction)}
        self._floors = found
        self.are_some |= bool(found)
        floors = [0 if each is None else each.get(identity) for each in found.values()]
        return min((each for each in floors if each is not None), default=None)

    def _rows(self, transaction: Any) -> Iterator[tuple[bytes, Any]]:
        with transaction.cursor(self._environment.table(form.TRANSACTIONS)) as cursor:
            for key, value in cursor:
                yield bytes(key), value

    def _floors_of(self, key: bytes, value: Any) -> _Floors | None:
        """Decoded once: records have payloads, and are looked at in each commit."""
        if key in self._floors:
            return self._floors[key]
        try:
            record = self._opened(key, value)
        except StorageDamaged as error:
            _log.warning("%s: nothing can be deleted any more; restore a backup", error)
            return None
        return {(each.kind, each.name): each.position for each in record.sends}

    def _opened(self, key: bytes, value: Any) -> Record:
        """Raises StorageDamaged."""
        try:
            return _decode(self._environment.values().open(form.TRANSACTIONS, key, value))
        except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
            raise StorageDamaged(f"transaction {key.hex()} is damaged: {problem}") from None
