"""One log's storage, in this process: what native/src/stored.h asks for, and what its users wait for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ringpost._binding import binding
from ringpost._binding.contract import NativeGroup, NativeLog
from ringpost.errors import StorageDamaged
from ringpost.store import format as form
from ringpost.store.blocks import Blocks
from ringpost.store.later import DECIDED, LATER

if TYPE_CHECKING:
    from ringpost.store.environment import Environment
    from ringpost.store.writer import Writer

LEVELS = ("memory", "interval", "commit")

ALL = 2**64 - 1  # behind every position

_AHEAD = 4 << 20  # bytes of frames read from storage at once
_TOGETHER = 64  # frames of one lease
_PATIENCE = 30.0  # seconds for the door, where there is no timeout to go by
_AGAIN = 1000  # looks at storage and ring, which move


def check_durability(level: object) -> str:
    """Raises ValueError."""
    if level not in LEVELS:
        raise ValueError(f"'durability' is {', '.join(map(repr, LEVELS))}, not {level!r}")
    return str(level)


class StoredLog:
    """The storage of one log: contract.Storage."""

    def __init__(
        self,
        log: NativeLog,
        record: form.LogRecord,
        label: str,
        identity: tuple[str, str],
        writer: Writer,
    ) -> None:
        self.record = record
        self.label = label
        self.identity = identity  # kind, name
        self.stored = writer.environment.stored(log)
        compact = record.retention is not None and record.retention.compact
        self.blocks = Blocks(writer.environment, record, compact)
        self.ring = int(log.info()["created_ns"])
        self.has_blocks = True
        self.known_groups: dict[bytes, form.GroupRecord] = {}  # as they are stored
        self.stored_to = 0  # -1: the log was deleted, or has another ring by now
        self.looked_in = -1  # the epoch in which these three were so
        self.noted = False  # the committer will come
        self.in_flight = 0  # commits on their way of what was noted
        self.is_spoilt = False  # what is stored is damaged: it is left to its own users to hear of
        self._writer = writer
        self._level = record.durability
        self._read: tuple[bytes, int, int] = (
            b"",
            0,
            0,
        )  # frames, their position, up to where they are enough

    # ---- after a put, or an ack ----------------------------------------------------------------

    def after_put(self, durability: str | None, timeout: float | None) -> None:
        level = self._level if durability is None else check_durability(durability)
        if level == "commit":
            later = LATER.get()
            if later is None:
                self._confirm(timeout)
            else:
                later.add(self)
        elif level == "interval" and not self.noted:
            self._writer.note(self, soon=True)

    def _confirm(self, timeout: float | None) -> None:
        try:
            self.commit_until(self.stored.tail(), timeout)
        except BaseException as error:
            error.put = 1  # type: ignore[attr-defined]  # see errors.was_put(); who put many says how many
            raise

    def after_settle(self) -> None:
        if not self.noted:
            self._writer.note(self, soon=False)

    def after_group(self) -> None:
        """One was made, or closed: so it is found after a reboot. Raises StorageFailed, Stalled."""
        self._writer.note(self, soon=True)
        if self._level == "commit":
            with self.stored.entering(ALL, _PATIENCE):
                self._writer.write(self)

    def handed_out_again(self, group: NativeGroup, messages: list[Any]) -> list[Any]:
        """Without what a transaction has acked whose process died before it was carried out."""
        transactions = self._writer.transactions
        if transactions is None or not self._writer.environment.has_transactions():
            return messages
        return transactions.without_acked(self.identity, group, messages)

    def make_room(self) -> bool:
        """Store what keeps the ring full. False: everything is stored."""
        tail = self.stored.tail()
        if self.stored.durable() >= tail:
            return False
        later = LATER.get()
        if later is not None:
            later.add(self)
            return False
        patience = DECIDED.get()
        self.commit_until(tail, None if patience is None else patience.left())
        return True

    def commit_until(self, position: int, timeout: float | None) -> None:
        """Everything below `position` is on disk, by whoever writes it. Raises Stalled, StorageFailed."""
        while True:
            with self.stored.entering(position, timeout) as lead:
                if not lead:
                    return
                self._writer.write(self)

    def flush(self, timeout: float | None = None) -> None:
        """With the acks of this process."""
        if self.noted or self.in_flight:
            with self.stored.entering(ALL, timeout):
                self._writer.write(self, for_good=True)
        self.commit_until(self.stored.tail(), timeout)

    # ---- reading -------------------------------------------------------------------------------

    def frames(self, position: int) -> tuple[bytes, int] | None:
        """None: nobody needs them any more, another consumer was faster. Raises StorageDamaged."""
        data, start, enough = self._read
        if start <= position < enough:
            return data, start
        data, start = self._read_from(position)
        end = start + len(data)
        if end <= position:
            if self._is_needed(position):
                raise self._missing(position)
            return None
        # A lease that begins where that many follow ends in here, too. Others may go on behind it, as soon as
        # the log does: for those it is good for this time only.
        try:
            behind = binding.frames_from_end(data, _TOGETHER)
        except ValueError as problem:
            raise StorageDamaged(f"what is stored from {start} on is damaged: {problem}") from None
        self._read = (data, start, start + behind)
        return data, start

    def _is_needed(self, position: int) -> bool:
        needed = self.stored.needed()
        return needed is not None and needed <= position

    def _read_from(self, position: int) -> tuple[bytes, int]:
        """Out of storage, and what is not yet there out of the ring."""
        pieces: list[bytes] = []
        start = end = position
        for _ in range(_AGAIN):
            found = self.blocks.read(end, _AHEAD - (end - start))
            if found is not None and (not pieces or found[1] == end):
                if not pieces:
                    start = found[1]
                pieces += found[0]
                end = found[2]
            if pieces and end - start >= _AHEAD:
                break
            in_ring = self.stored.copy(end, _AHEAD)
            if in_ring is not None:
                pieces.append(in_ring)
                break
            if found is None and not self._will_come(end):
                break
        return b"".join(pieces), start

    def _will_come(self, position: int) -> bool:
        """Another process stores it right now: the ring had it when storage was looked at, and not any
        more."""
        return self.stored.durable() >= position and self.blocks.read(position, 1) is not None

    def _missing(self, position: int) -> StorageDamaged:
        following = self.blocks.next_behind(position)
        then = "nothing follows it" if following is None else f"the next one has message {following[1]}"
        return StorageDamaged(
            f"{self.label}: the block with position {position} is missing in "
            f"{self._writer.environment.place}; "
            f"{then}. Restore a backup"
        )

    def payload(self, sequence: int, length: int | None = None) -> bytes | None:
        """None: nobody needs it any more, another consumer was faster. Empty: compaction took it, after the
        frame was read. Raises StorageDamaged, also if it has another length."""
        found = self.blocks.payload(sequence)
        if found is not None and length is not None and len(found) != length:
            raise StorageDamaged(
                f"{self.label}: the payload of message {sequence} is damaged: {len(found)} of {length} bytes "
                "are there"
            )
        if found is None:
            frame = self.blocks.find(sequence, 0)
            if frame is not None and frame[1] == sequence and self._is_needed(frame[0]):
                if self.blocks.is_gone(*frame):
                    self._read = (b"", 0, 0)  # others in it are perhaps gone, too
                    return b""
                raise self.missing_payload(sequence)
        return found

    def missing_payload(self, sequence: int) -> Exception:
        return StorageDamaged(f"{self.label}: the payload of message {sequence} is missing in storage")

    def find(self, sequence: int, time_ns: int) -> tuple[int, int]:
        """Where storage ends, if it has no such frame."""
        found = self.blocks.find(sequence, time_ns)
        if found is not None:
            return found
        ends = self.blocks.ends()
        if ends is None:
            return self.stored.durable(), sequence
        return ends[1].end, ends[1].end_sequence

    @binding.contextmanager
    def keeping_first(self) -> Iterator[tuple[int, int] | None]:
        """Of a topic: its oldest stored frame, which nobody deletes meanwhile. None: there is none; or it
        is a queue: its consumers know. Raises Stalled."""
        if self.record.retention is None:
            yield None
            return
        with self.stored.entering(ALL, _PATIENCE):  # who deletes looks at the groups first, behind this door
            ends = self.blocks.ends()
            yield None if ends is None else (ends[0].position, ends[0].sequence)

    def is_of(self, environment: Environment) -> bool:
        return self._writer.environment is environment

    # ---- for the writer ------------------------------------------------------------------------

    def look(self, transaction: Any, epoch: int) -> None:
        """What is stored of it, unless it is known."""
        if self.looked_in == epoch:
            return
        progress = self.blocks.progress(transaction)
        is_ours = progress is not None and progress.ring == self.ring
        self.stored_to = progress.position if progress is not None and is_ours else -1
        self.has_blocks = self.blocks.last_in(transaction) is not None
        self.known_groups = {one.name: one for one in self.blocks.groups(transaction)}
        self.looked_in = epoch

    def forget(self) -> None:
        """What is known of what is stored."""
        self.looked_in = -1

    def is_pending(self) -> bool:
        """Something of it shall be stored, and is not yet."""
        return self._level != "memory" and self.stored.durable() < self.stored.tail()

    def expiry_ns(self) -> int | None:
        """What was put before is older than the log's retention."""
        retention = self.record.retention
        if retention is None or retention.seconds is None:
            return None
        return time.time_ns() - int(retention.seconds * 1e9)
