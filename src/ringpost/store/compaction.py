"""Compaction: of each key a topic keeps the last message, whatever else it keeps.

Every transaction that stores frames notes, for each key, where its last message lies (KEYS), and, for each
block, which of its messages are superseded (SUPERSEDED). A block of which half is superseded is written anew
without them: a sparse block (see format.py), in which positions and sequences stay what they are, also of
what is gone, for somebody may stand there. So writing costs at most twice as much, and a block without
messages is a few bytes; such neighbours become one.

The idea is Kafka's; what differs is that there is no cleaner that comes round later.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ringpost.envelope import unseal
from ringpost.errors import StorageDamaged
from ringpost.store import format as form
from ringpost.store.values import header_of

if TYPE_CHECKING:
    from ringpost.store.environment import Environment
    from ringpost.store.values import Values

_AT_ONCE = 64  # blocks
_LONGEST = 400  # bytes of a key; LMDB's have 511


class Compaction:
    """Of one log."""

    def __init__(self, environment: Environment, number: int, values: Values) -> None:
        self._environment = environment
        self._values = values
        self._prefix = form.number_key(number)

    def note(
        self,
        transaction: Any,
        header: form.Header,
        frames: Any,
        payload_of: Callable[[int], Any],
        floor: int | None = None,
    ) -> None:
        """A block was written. What it supersedes goes.

        Args:
            payload_of: the payload of the large message with this sequence, or its beginning.
            floor: blocks that end behind it are not written anew before there is no floor any more.
        """
        superseded: dict[int, list[int]] = {}  # by the block's position
        keys = self._environment.table(form.KEYS)
        for frame in form.frames_in(frames, header.position):
            key = _key_of(frame, frames, header.position, payload_of)
            if key is None:
                continue
            row = self._row(key)
            before = transaction.get(row, db=keys)
            if before is not None:
                position, sequence = form.unpack_place(self._values.open(form.KEYS, row, before))
                superseded.setdefault(self._block_of(transaction, position), []).append(sequence)
            place = form.pack_place(frame.position, frame.sequence)
            transaction.put(row, self._values.seal(form.KEYS, row, place), db=keys)
        for position, sequences in superseded.items():
            self._supersede(transaction, position, sequences, floor)
        if floor is None:
            self._make_up(transaction)

    def forget(self, transaction: Any, block_key: bytes, payload_of: Callable[[Any, int], Any]) -> None:
        """The block is about to be deleted: what is the last of its key there is the last no more."""
        keys = self._environment.table(form.KEYS)
        header, frames = self._values.frames(
            block_key, transaction.get(block_key, db=self._environment.table(form.BLOCKS))
        )
        for frame in form.frames_in(frames, header.position):
            key = _key_of(frame, frames, header.position, partial(payload_of, transaction))
            if key is None:
                continue
            row, place = self._row(key), form.pack_place(frame.position, frame.sequence)
            last = transaction.get(row, db=keys)
            if last is not None and self._values.open(form.KEYS, row, last) == place:
                transaction.delete(row, db=keys)
        transaction.delete(block_key, db=self._environment.table(form.SUPERSEDED))

    def _row(self, key: bytes) -> bytes:
        return self._prefix + self._values.hide(key)

    def _block_of(self, transaction: Any, position: int) -> int:
        """The position of the block that has it; -1: it was deleted."""
        found = self._last_up_to(transaction, position)
        return found.position if found is not None and found.end > position else -1

    def _supersede(
        self, transaction: Any, position: int, sequences: list[int], floor: int | None = None
    ) -> None:
        if position < 0:
            return
        table, key = self._environment.table(form.SUPERSEDED), self._prefix + position.to_bytes(8, "big")
        noted = transaction.get(key, db=table)
        before = b"" if noted is None else self._values.open(form.SUPERSEDED, key, noted)
        gone = form.unpack_sequences(before) + sequences
        value = transaction.get(key, db=self._environment.table(form.BLOCKS))
        header = header_of(key, value)
        is_due, is_free = 2 * len(gone) >= form.kept_in(header), floor is None or header.end <= floor
        if is_due and not is_free:
            self._put_off(transaction, position)
        if not (is_due and is_free):
            packed = form.pack_sequences(gone)
            transaction.put(key, self._values.seal(form.SUPERSEDED, key, packed), db=table)
            return
        transaction.delete(key, db=table)
        header, frames = self._values.frames(key, value)
        self._write_without(transaction, header, frames, set(gone))

    def _put_off(self, transaction: Any, position: int) -> None:
        """To write the block that begins there anew: perhaps nothing in it is superseded any more that would
        remind of it."""
        row = self._prefix + form.PUT_OFF + position.to_bytes(8, "big")
        table, sealed = self._environment.table(form.SUPERSEDED), self._values.seal(form.SUPERSEDED, row, b"")
        transaction.put(row, sealed, db=table)

    def _make_up(self, transaction: Any) -> None:
        """For what was put off, some of it each time."""
        table = self._environment.table(form.SUPERSEDED)
        first = self._prefix + form.PUT_OFF
        rows: list[bytes] = []
        with transaction.cursor(table) as cursor:
            found = cursor.set_range(first)
            while found and bytes(cursor.key()).startswith(first) and len(rows) < _AT_ONCE:
                rows.append(bytes(cursor.key()))
                found = cursor.next()
        for row in rows:
            transaction.delete(row, db=table)
            position = row[len(first) :]
            if transaction.get(self._prefix + position, db=table) is not None:  # else retention took it
                self._supersede(transaction, int.from_bytes(position, "big"), [])

    def _write_without(self, transaction: Any, header: form.Header, frames: Any, gone: set[int]) -> None:
        left: list[tuple[int, bytes | None]] = []
        for frame in form.frames_in(frames, header.position):
            start, is_gone = frame.position - header.position, frame.sequence in gone
            if is_gone:
                self._delete_payload(transaction, frame)
            is_void = is_gone or frame.flags & form.VOID
            left.append((frame.span, None if is_void else bytes(frames[start : start + frame.span])))
        self._delete_block(transaction, header)  # a smaller value in its place would keep all its pages
        sparse = _sparse(header, left)
        header, body = sparse if sparse[0].kept else self._with_neighbours(transaction, *sparse)
        key = self._prefix + header.position.to_bytes(8, "big")
        block = self._values.block(key, header, body)
        transaction.put(key, block, db=self._environment.table(form.BLOCKS))

    def _with_neighbours(
        self, transaction: Any, empty: form.Header, body: bytes
    ) -> tuple[form.Header, bytes]:
        """What the block is one with from now on: the one behind it, if that is empty, too; the one before
        it, if that is sparse."""
        behind = self._at(transaction, empty.end)
        if behind is not None and behind.kept == 0 and empty.size + behind.size <= form.MOST_SPARSE:
            both = _joined(empty, body, behind, self._body(transaction, behind))
            if both is not None:
                self._delete_block(transaction, behind)
                empty, body = both
        before = self._last_up_to(transaction, empty.position - 1) if empty.position else None
        if (
            before is None
            or before.kept is None
            or before.end != empty.position
            or (before.size + empty.size > form.MOST_SPARSE)
        ):
            return empty, body
        return _joined(before, self._body(transaction, before), empty, body) or (empty, body)

    def _body(self, transaction: Any, header: form.Header) -> Any:
        key = self._prefix + header.position.to_bytes(8, "big")
        return self._values.body(key, transaction.get(key, db=self._environment.table(form.BLOCKS)))[1]

    def _delete_block(self, transaction: Any, header: form.Header) -> None:
        key = self._prefix + header.position.to_bytes(8, "big")
        transaction.delete(key, db=self._environment.table(form.BLOCKS))

    def _at(self, transaction: Any, position: int) -> form.Header | None:
        key = self._prefix + position.to_bytes(8, "big")
        value = transaction.get(key, db=self._environment.table(form.BLOCKS))
        return None if value is None else header_of(key, value)

    def _last_up_to(self, transaction: Any, position: int) -> form.Header | None:
        with transaction.cursor(self._environment.table(form.BLOCKS)) as cursor:
            key = self._prefix + position.to_bytes(8, "big")
            found = cursor.set_range(key)
            if not found or bytes(cursor.key()) != key:
                found = cursor.prev() if found else cursor.last()
            if not found or bytes(cursor.key()[:4]) != self._prefix:
                return None
            return header_of(bytes(cursor.key()), cursor.value())

    def _delete_payload(self, transaction: Any, frame: form.Frame) -> None:
        if not frame.flags & form.LARGE:
            return
        table = self._environment.table(form.PAYLOADS)
        prefix = self._prefix + frame.sequence.to_bytes(8, "big")
        with transaction.cursor(table) as cursor:
            found = cursor.set_range(prefix)
            keys = []
            while found and bytes(cursor.key()[:12]) == prefix:
                keys.append(bytes(cursor.key()))
                found = cursor.next()
        for key in keys:
            transaction.delete(key, db=table)


def _sparse(header: form.Header, frames: list[tuple[int, bytes | None]]) -> tuple[form.Header, bytes]:
    """Raises StorageDamaged."""
    try:
        body = form.pack_sparse(frames)
    except (ValueError, struct.error) as problem:
        raise StorageDamaged(f"the block at {header.position} is damaged: {problem}") from None
    return header._replace(kept=sum(frame is not None for _, frame in frames)), body


def _joined(
    first: form.Header, body: Any, second: form.Header, empty: Any
) -> tuple[form.Header, bytes] | None:
    """Raises StorageDamaged."""
    try:
        return form.joined(first, body, second, empty)
    except struct.error as problem:
        raise StorageDamaged(f"the block at {first.position} is damaged: {problem}") from None


def _key_of(frame: form.Frame, frames: Any, start: int, payload_of: Callable[[int], Any]) -> bytes | None:
    """The message's key, else its subject. None: it has neither."""
    if not frame.subject_length and not frame.headers_length:
        return None
    if frame.flags & form.LARGE:
        parts: Any = payload_of(frame.sequence)
    else:
        at = frame.position - start + form.FRAME_HEADER
        parts = memoryview(frames)[at : at + frame.subject_length + frame.headers_length]
    subject = bytes(parts[: frame.subject_length])
    headers = bytes(parts[frame.subject_length : frame.subject_length + frame.headers_length])
    key = unseal(headers).key if headers else None
    if key is not None:
        found = b"k" + key.encode("utf-8", "surrogatepass")
    elif subject:
        found = b"s" + subject
    else:
        return None
    return found if len(found) <= _LONGEST else b"h" + hashlib.sha256(found).digest()
