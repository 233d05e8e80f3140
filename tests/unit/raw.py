"""A handle of a queue that puts and gets message bodies as they are, of any kind."""

from __future__ import annotations

import ringpost
from ringpost._binding import binding
from ringpost._binding.contract import Log


class RawCodec:
    """Items are (kind, body)."""

    def encode(self, item: tuple[int, bytes]) -> tuple[int, bytes]:
        return item

    def decode(self, kind: int, body: bytes, sequence: int) -> tuple[int, bytes]:
        return kind, body


def raw_handle(queue: ringpost.Queue[object]) -> Log:
    return binding.attach(queue._log.path, "a raw handle", RawCodec())
