"""Blocks of frames: copied as they lie in the ring, found again by position, deleted from the front.

A block is one value of at most sixteen pages; most are of that size, so that what one leaves another one
fits into. The payload of a large message lies beside it, in parts of that size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ringpost._binding import binding
from ringpost._binding.contract import Stored
from ringpost.store import format as form
from ringpost.store.compaction import Compaction
from ringpost.store.environment import Environment
from ringpost.store.values import damaged_block, header_of

AT_ONCE = 512  # blocks deleted in one transaction


class Blocks:
    """Of one log."""

    def __init__(self, environment: Environment, record: form.LogRecord, compact: bool = False) -> None:
        self.values = environment.values(record.id)
        self._environment = environment
        self._number = record.number
        self._compaction = Compaction(environment, record.number, self.values) if compact else None
        self._prefix = form.number_key(record.number)
        self._first_end = 0  # no block ends before it, but those that nobody needs

    # ---- writing -------------------------------------------------------------------------------

    def write(self, transaction: Any, stored: Stored, start: int, end: int, floor: int | None = None) -> int:
        """Frames from `start` to `end` of the ring. How many bytes that were.

        Args:
            floor: compaction leaves blocks that end behind it as they are, for now.
        """
        environment, values, written = self._environment, self.values, 0
        table = environment.table(form.BLOCKS)
        while start < end:
            found = stored.range(start, min(values.most_frames, end - start))
            if found is None:
                break
            frames, after, sequence, count, _ = found
            frames = memoryview(bytes(frames))  # others can write to the ring: what is checked is stored
            payloads = dict(stored.payloads(frames))
            for number, payload in payloads.items():
                written += self._write_payload(transaction, number, payload)
            key, header = form.block_key(self._number, start), form.header_for(frames, start, sequence, count)
            transaction.put(key, values.block(key, header, frames), db=table)
            if self._compaction is not None:
                self._compaction.note(transaction, header, frames, payloads.__getitem__, floor)
            written += after - start
            start = after
        return written

    def _write_payload(self, transaction: Any, sequence: int, payload: memoryview) -> int:
        table, most = self._environment.table(form.PAYLOADS), self.values.most_part
        for part in range(-(-len(payload) // most)):
            key = form.payload_key(self._number, sequence, part)
            transaction.put(key, self.values.part(key, payload[part * most : (part + 1) * most]), db=table)
        return len(payload)

    def progress(self, transaction: Any) -> form.Progress | None:
        """How far the log is stored: behind its last block, or as far as is noted where there is none.
        None: it was deleted."""
        value = transaction.get(self._prefix, db=self._environment.table(form.PROGRESS))
        if value is None:
            return None
        noted = form.Progress.unpack(self.values.open(form.PROGRESS, self._prefix, value))
        last = self.last_in(transaction)
        if last is None or last.end <= noted.position:
            return noted
        return form.Progress(last.end, last.end_sequence, noted.ring)

    def groups(self, transaction: Any) -> list[form.GroupRecord]:
        """As they are stored."""
        table, found = self._environment.table(form.GROUPS), []
        with transaction.cursor(table) as cursor:
            there = cursor.set_range(self._prefix)
            while there and bytes(cursor.key()[:4]) == self._prefix:
                opened = self.values.open(form.GROUPS, bytes(cursor.key()), cursor.value())
                found.append(form.decode_group(bytes(opened)))
                there = cursor.next()
        return found

    @binding.contextmanager
    def _reading(self, table: bytes | None) -> Iterator[Any]:
        environment = self._environment
        with environment.read() as transaction, transaction.cursor(environment.table(table)) as cursor:
            yield cursor

    # ---- reading -------------------------------------------------------------------------------

    def read(self, position: int, enough: int) -> tuple[list[bytes], int, int] | None:
        """Blocks one behind another, from the one that has `position` on, about `enough` bytes of frames:
        (frames, position of the first, position behind the last). None: it is not stored.

        Raises StorageDamaged.
        """
        pieces: list[bytes] = []
        with self._reading(form.BLOCKS) as cursor:
            if not self._go_to(cursor, position):
                return None
            value = cursor.value()
            header, frames = self.values.frames(bytes(cursor.key()), value)
            if not header.position <= position < header.end:
                return None
            start, end, total = header.position, header.end, header.size
            pieces.append(bytes(frames))
            while total < enough and self._next(cursor) and form.position_of(cursor.key()) == end:
                value = cursor.value()
                header, frames = self.values.frames(bytes(cursor.key()), value)
                pieces.append(bytes(frames))
                end, total = header.end, total + header.size
            self._environment.was_read(value, total)
        return pieces, start, end

    def payload(self, sequence: int) -> bytes | None:
        """None: it is not stored. Raises StorageDamaged."""
        pieces = []
        prefix = form.payload_key(self._number, sequence, 0)[:12]
        with self._reading(form.PAYLOADS) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()[:12]) == prefix:
                pieces.append(bytes(self.values.piece(bytes(cursor.key()), cursor.value())))
                self._environment.was_read(cursor.value(), len(pieces[-1]))
                found = cursor.next()
        return b"".join(pieces) if pieces else None

    def _payload_in(self, transaction: Any, sequence: int) -> Any:
        """The first part of it."""
        key = form.payload_key(self._number, sequence, 0)
        return self.values.piece(key, transaction.get(key, db=self._environment.table(form.PAYLOADS)))

    def find(self, sequence: int, time_ns: int) -> tuple[int, int] | None:
        """(position, sequence) of the first stored frame with at least these. None: there is none."""
        with self._reading(form.BLOCKS) as cursor:
            low = self._last_before(cursor, sequence, time_ns)
            found = low is not None and self._go_to(cursor, low)
            while found:
                header, frames = self.values.frames(bytes(cursor.key()), cursor.value())
                try:
                    frame = binding.find_frame(frames, sequence, time_ns)
                except ValueError as problem:
                    raise damaged_block(bytes(cursor.key()), problem) from None
                if frame is not None:
                    return header.position + frame[0], frame[1]
                found = self._next(cursor)
        return None

    def is_gone(self, position: int, sequence: int) -> bool:
        """Compaction took the message whose frame was there."""
        found = self.read(position, 1)
        if found is None:
            return False
        pieces, start, _ = found
        frames = form.frames_in(pieces[0], start)
        return any(frame.sequence == sequence and frame.flags & form.VOID for frame in frames)

    def _last_before(self, cursor: Any, sequence: int, time_ns: int) -> int | None:
        """The position of the last block that begins at or before either; else of the first. None: there is
        none."""
        low, high = self._ends(cursor)
        while low < high:
            middle = low + (high - low + 1) // 2
            self._go_to(cursor, middle)
            is_alone = form.position_of(cursor.key()) <= low  # there is no other up to the middle
            if is_alone and (not self._next(cursor) or form.position_of(cursor.key()) > high):
                break
            header = self._header(cursor)
            if header.sequence <= sequence or header.time_ns <= time_ns:
                low = header.position
            elif header.position > middle:
                break
            else:
                high = header.position - 1
        return None if low < 0 else low

    def _ends(self, cursor: Any) -> tuple[int, int]:
        """Positions of the first and the last block; (-1, -1): there is none."""
        if not cursor.set_range(self._prefix) or bytes(cursor.key()[:4]) != self._prefix:
            return -1, -1
        first = form.position_of(cursor.key())
        self._go_to(cursor, 2**64 - 1)
        return first, form.position_of(cursor.key())

    def ends(self) -> tuple[form.Header, form.Header] | None:
        """Of the first and the last block. None: there is none."""
        with self._reading(form.BLOCKS) as cursor:
            first, last = self._ends(cursor)
            if first < 0:
                return None
            self._go_to(cursor, first)
            head = self._header(cursor)
            self._go_to(cursor, last)
            return head, self._header(cursor)

    def last_in(self, transaction: Any) -> form.Header | None:
        """The last block's. None: there is none."""
        with transaction.cursor(self._environment.table(form.BLOCKS)) as cursor:
            found = self._go_to(cursor, 2**64 - 1)
            return self._header(cursor) if found else None

    def start_of(self, transaction: Any, sequence: int, time_ns: int) -> int:
        """The position of the last block that begins at or before either; 0: none does."""
        with transaction.cursor(self._environment.table(form.BLOCKS)) as cursor:
            return self._last_before(cursor, sequence, time_ns) or 0

    def _header(self, cursor: Any) -> form.Header:
        return header_of(bytes(cursor.key()), cursor.value())

    def _go_to(self, cursor: Any, position: int) -> bool:
        """To the last block that begins at or before it; else the first one behind it."""
        key = form.block_key(self._number, position)
        if cursor.set_range(key) and bytes(cursor.key()) == key:
            return True
        there = bool(cursor.key())
        if (cursor.prev() if there else cursor.last()) and bytes(cursor.key()[:4]) == self._prefix:
            return True
        return bool(cursor.set_range(self._prefix)) and bytes(cursor.key()[:4]) == self._prefix

    def _next(self, cursor: Any) -> bool:
        return bool(cursor.next()) and bytes(cursor.key()[:4]) == self._prefix

    def next_behind(self, position: int) -> tuple[int, int] | None:
        """(position, sequence) of the first block that begins behind it."""
        with self._reading(form.BLOCKS) as cursor:
            if not cursor.set_range(form.block_key(self._number, position + 1)):
                return None
            if bytes(cursor.key()[:4]) != self._prefix:
                return None
            header = self._header(cursor)
            return header.position, header.sequence

    # ---- deleting ------------------------------------------------------------------------------

    def delete_before(self, transaction: Any, position: int, most: int = AT_ONCE) -> bool:
        """Blocks that end at or before `position`, the oldest first. False: none is left."""
        if position < self._first_end:
            return True
        table = self._environment.table(form.BLOCKS)
        keys: list[bytes] = []
        first_kept, are_left = 0, False
        with transaction.cursor(table) as cursor:
            found = cursor.set_range(self._prefix) and bytes(cursor.key()[:4]) == self._prefix
            while found and len(keys) < most:
                header = self._header(cursor)
                if header.end > position:
                    self._first_end = header.end
                    break
                keys.append(bytes(cursor.key()))
                first_kept = header.end_sequence
                found = self._next(cursor)
            are_left = found
        for key in keys:
            if self._compaction is not None:
                self._compaction.forget(transaction, key, self._payload_in)
            transaction.delete(key, db=table)
        if keys:
            self._delete_payloads(transaction, first_kept)
        return are_left

    def _delete_payloads(self, transaction: Any, sequence: int) -> None:
        """Of messages before this one."""
        table = self._environment.table(form.PAYLOADS)
        keys = []
        with transaction.cursor(table) as cursor:
            found = cursor.set_range(self._prefix)
            end = form.payload_key(self._number, sequence, 0)
            while found and bytes(cursor.key()) < end:
                keys.append(bytes(cursor.key()))
                found = cursor.next()
        for key in keys:
            transaction.delete(key, db=table)
