"""Payloads that a receiver can check: sender and number inside, the rest random and different in each.

Senders go through a short cycle of prepared messages, so that making them is not part of what is measured
and the cache holds them. Receivers know the cycle: a lost, doubled, swapped or damaged message differs from
the expected one, and the count is checked by receiving exactly as many as were sent.
"""

from __future__ import annotations

import random
from typing import Any

SMALL = 64
LARGE = 1 << 20
BATCH = 256

_CYCLE = 16 * BATCH
_CYCLE_BYTES = _CYCLE * SMALL
_SHORTEST_CYCLE = 8
_HEADER = 8
_PAGE = 4096


class Corrupt(Exception):
    """A message did not arrive as it was sent, or not when it was its turn."""


def cycle_of(sender: int, size: int) -> list[bytes]:
    """The messages that `sender` repeats: byte 0 is the sender, bytes 1 to 7 the number."""
    length = max(_SHORTEST_CYCLE, min(_CYCLE, _CYCLE_BYTES // size))
    filler = random.Random(sender)  # both sides come to the same
    return [_header(sender, number) + filler.randbytes(size - _HEADER) for number in range(length)]


def _header(sender: int, number: int) -> bytes:
    return bytes([sender]) + number.to_bytes(_HEADER - 1, "little")


def page_stamps(message: Any) -> bytes:
    """One byte of each page: touches all of a large message, whatever buffer it comes in, cheaply."""
    with memoryview(message) as view:
        return view[::_PAGE].tobytes()


def corrupt(got: Any, expected: bytes) -> Corrupt:
    """The exception that says what came instead of what."""
    return Corrupt(f"got {_describe(got)} instead of {_describe(expected)}")


def _describe(message: Any) -> str:
    data = bytes(message)
    number = int.from_bytes(data[1:_HEADER], "little")
    return f"{len(data)} bytes, sender {data[:1].hex()}, number {number}"
