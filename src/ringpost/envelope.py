"""What travels beside a message's body: one MessagePack map, absent where nothing was said."""

from __future__ import annotations

from typing import Any

import msgspec

from ringpost.errors import EncodeError


class Envelope(msgspec.Struct, omit_defaults=True, frozen=True):
    """The names are short because they travel."""

    headers: dict[str, Any] | None = msgspec.field(default=None, name="h")
    message_id: str | None = msgspec.field(default=None, name="i")
    correlation_id: str | None = msgspec.field(default=None, name="c")
    reply_to: str | None = msgspec.field(default=None, name="r")
    content_type: str | None = msgspec.field(default=None, name="t")
    key: str | None = msgspec.field(default=None, name="k")
    priority: int = msgspec.field(default=0, name="p")
    transaction: bytes | None = msgspec.field(
        default=None, name="x"
    )  # its id, and which of its messages this is


EMPTY = Envelope()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)


def seal(envelope: Envelope) -> bytes | None:
    """Raises EncodeError, for what nobody could read too: a message_id that is a number, say."""
    if envelope == EMPTY:
        return None
    try:
        sealed = _encoder.encode(envelope)
        _decoder.decode(sealed)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(
            f"these headers cannot be sent: {error}; headers are a dict of str to what MessagePack knows, "
            "ids and keys are str"
        ) from error
    return sealed


def unseal(raw: bytes | None) -> Envelope:
    """What cannot be read was not written by us: it counts as absent."""
    if raw is None:
        return EMPTY
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return EMPTY
