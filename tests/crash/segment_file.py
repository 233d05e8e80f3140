"""A queue's file, read and written by hand: what native/src/layout.h says, in Python."""

from __future__ import annotations

import mmap
import os
from struct import pack_into, unpack_from

import ringpost

SUPER_SIZE = 512
GUARDED_FROM = 20  # the checksum covers the superblock from here on
CHECKSUM_AT = 16
FIELDS = {  # offset, format
    "magic": (0, "<Q"),
    "layout": (8, "<I"),
    "abi": (12, "<I"),
    "flags": (20, "<I"),
    "boot_id": (40, "16s"),
    "file_size": (64, "<Q"),
    "ring_offset": (72, "<Q"),
    "ring_size": (80, "<Q"),
    "pool_offset": (88, "<Q"),
    "pool_size": (96, "<Q"),
    "groups_offset": (104, "<Q"),
    "slots_offset": (112, "<Q"),
    "leases_offset": (120, "<Q"),
    "chunks_offset": (128, "<Q"),
    "group_count": (136, "<I"),
    "slot_count": (140, "<I"),
    "lease_count": (144, "<I"),
    "chunk_count": (148, "<I"),
    "max_messages": (152, "<Q"),
    # of the rest of the first page
    "lock": (512, "<I"),
    "limit": (520, "<Q"),
    "tail": (640, "<Q"),
    "oldest": (768, "<Q"),
    "state": (912, "<I"),
    "pool_lock": (1024, "<I"),
    "pool_hint": (1028, "<I"),
    "done": (1152, "<Q"),
}
GROUP = {"lock": (0, "<I"), "read": (8, "<Q"), "acked": (16, "<Q"), "seen": (24, "<Q")}
GROUP_SIZE = 768
SLOT_SIZE = 64
CHUNK_SIZE = 16
LEASE_SIZE = 64
ORPHAN = 0x7FF
LOANED, PUBLISHED = 1, 2


def path_of(queue: ringpost.Queue) -> str:
    """Where the queue's file is."""
    return queue._log.path


def checksum(superblock: bytes) -> int:
    """FNV-1a."""
    value = 2166136261
    for byte in superblock[GUARDED_FROM:SUPER_SIZE]:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return value


class SegmentFile:
    """The mapped file. Fields of the first page by name; those of group 0 through `group`."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)

    def __getitem__(self, name: str) -> int:
        offset, form = FIELDS[name]
        return unpack_from(form, self.memory, offset)[0]

    def __setitem__(self, name: str, value: int | bytes) -> None:
        offset, form = FIELDS[name]
        pack_into(form, self.memory, offset, value)
        if GUARDED_FROM <= offset < SUPER_SIZE:
            self.sign()

    def sign(self) -> None:
        """Make the superblock's checksum right again."""
        pack_into("<I", self.memory, CHECKSUM_AT, checksum(self.memory[:SUPER_SIZE]))

    def group(self, name: str) -> int:
        offset, form = GROUP[name]
        return unpack_from(form, self.memory, self["groups_offset"] + offset)[0]

    def set_group(self, name: str, value: int) -> None:
        offset, form = GROUP[name]
        pack_into(form, self.memory, self["groups_offset"] + offset, value)

    def owner(self, pid: int) -> int:
        """The word that names the participant `pid` in locks and chunks."""
        for slot in range(self["slot_count"]):
            at = self["slots_offset"] + slot * SLOT_SIZE
            _, generation, found = unpack_from("<III", self.memory, at)
            if found == pid:
                return generation << 11 | slot + 1
        raise LookupError(f"process {pid} takes no part")

    def chunk(self, index: int) -> tuple[int, int, int]:
        """(state, granules, owner) of the pool's run that starts at `index`."""
        word = unpack_from("<Q", self.memory, self["chunks_offset"] + index * CHUNK_SIZE)[0]
        return word >> 62, word >> 31 & 0x7FFFFFFF, word & 0x7FFFFFFF

    def set_chunk(self, index: int, state: int, granules: int, owner: int, position: int) -> None:
        word = state << 62 | granules << 31 | owner
        pack_into("<QQ", self.memory, self["chunks_offset"] + index * CHUNK_SIZE, word, position)

    def ring(self) -> tuple[int, int]:
        """Where the ring starts and ends."""
        return self["ring_offset"], self["ring_offset"] + self["ring_size"]

    def snapshot(self) -> list[bytes]:
        """All that processes tell one another, but for payloads in the pool."""
        return [self.memory[start:end] for start, end in self._telling()]

    def restore(self, snapshot: list[bytes]) -> None:
        for (start, end), content in zip(self._telling(), snapshot, strict=True):
            self.memory[start:end] = content

    def pool(self) -> slice:
        return slice(self["pool_offset"], self["pool_offset"] + self["pool_size"])

    def _telling(self) -> list[tuple[int, int]]:
        chunks, slots, leases = self["chunks_offset"], self["slots_offset"], self["leases_offset"]
        return [
            (SUPER_SIZE, self["groups_offset"] + GROUP_SIZE),
            (slots, slots + 16 * SLOT_SIZE),
            (leases, leases + 16 * LEASE_SIZE),
            (chunks, chunks + self["chunk_count"] * CHUNK_SIZE),
            self.ring(),
        ]


def make_file(path: str, content: bytes, mode: int = 0o600) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
