"""A message as the side store keeps it."""

from __future__ import annotations

from typing import Any

import msgspec


class Stored(msgspec.Struct, array_like=True, frozen=True):
    """Its body is encoded already."""

    kind: int
    payload: bytes
    subject: bytes | None
    headers: bytes | None
    ttl_ms: int
    sent_ns: int  # CLOCK_REALTIME
    priority: int = 0


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Stored)


def pack(stored: Stored) -> bytes:
    return _encoder.encode(stored)


def unpack(value: Any) -> Stored:
    return _decoder.decode(value)
