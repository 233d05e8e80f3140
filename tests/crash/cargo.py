"""Messages that say who put them and in which order, and whose every byte can be checked."""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack, unpack_from

HEAD = 8  # bytes


@dataclass(frozen=True)
class Cargo:
    """Messages of these sizes, one after another."""

    sizes: tuple[int, ...] = (HEAD,)

    def make(self, life: int, number: int) -> bytes:
        """Message `number` of producer `life`."""
        filler = self.sizes[number % len(self.sizes)] - HEAD
        return pack("<II", life, number) + bytes([(life + number) & 0xFF]) * filler

    def read(self, message: bytes) -> tuple[int, int]:
        """(life, number). AssertionError for anything that make() did not make."""
        assert len(message) >= HEAD, f"a message of {len(message)} bytes was never put"
        life, number = unpack_from("<II", message)
        assert message == self.make(life, number), f"message {number} of {life} was damaged"
        return life, number
