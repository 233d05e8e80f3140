"""Typed messages, and codecs of one's own: queues and topics whose messages are all of one kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from ringpost._binding.contract import Codec
from ringpost.codecs import Buffer, Kind, StandardCodec, kind_name, undecodable
from ringpost.errors import EncodeError

T = TypeVar("T")
MakeCodec = Callable[[str], Codec]  # of a label, for errors


class OwnCodec(Protocol[T]):
    """What `codec=` takes: two methods. Whatever they raise becomes an EncodeError or a DecodeError."""

    def encode(self, item: T, /) -> bytes:
        """Any bytes-like object."""

    def decode(self, data: bytes, /) -> T: ...


def codec_for(type_: Any, own: OwnCodec[Any] | None, pickle: bool) -> MakeCodec:
    """Raises ValueError for settings that do not go together, TypeError for what is no type or codec."""
    if (type_ is not None) + (own is not None) + pickle > 1:
        raise ValueError("type=, codec= and pickle=True exclude one another: use one of them")
    if own is not None:
        if not (callable(getattr(own, "encode", None)) and callable(getattr(own, "decode", None))):
            raise TypeError(f"a codec has the methods encode(item) and decode(data); {own!r} has not")
        return lambda label: _Own(label, own)
    if type_ is not None:
        return _typed(type_)
    return lambda label: StandardCodec(label, pickle=pickle)


def _typed(type_: Any) -> MakeCodec:
    try:
        decoder = msgspec.msgpack.Decoder(type_)
    except TypeError as error:
        raise TypeError(f"messages cannot be of type {type_!r}: {error}") from None
    return lambda label: _Typed(label, type_, decoder)


class _Typed(StandardCodec):
    """Speaks MessagePack as the others do, so that anybody can read it; checks what it reads."""

    plain = False

    def __init__(self, label: str, type_: Any, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        super().__init__(label)
        self._type = type_
        self._typed_decoder = decoder
        # of other types (dict[str, int], a TypedDict, a union) only decoding says whether they fit
        self._class = type_ if _has_instances(type_) else object

    def encode(self, item: object) -> tuple[int, Buffer]:
        if not isinstance(item, self._class):
            raise EncodeError(
                f"cannot put a {type(item).__qualname__} into {self._label}: its messages are of type "
                f"{self._type.__qualname__}"
            )
        kind, body = super().encode(item)
        if kind == Kind.NDARRAY:
            raise EncodeError(
                f"cannot put an array into {self._label}: its messages are of type {self._type}"
            )
        return kind, body

    def decode(self, kind: int, body: bytes, sequence: int) -> Any:
        why = f"it is no {_name(self._type)}"
        try:
            if kind == Kind.MSGPACK:
                return self._typed_decoder.decode(body)
            if kind in (Kind.TEXT, Kind.BYTES):
                return msgspec.convert(super().decode(kind, body, sequence), self._type)
        except msgspec.MsgspecError as error:
            raise undecodable(self._label, kind, body, sequence, f"{why}: {error}") from error
        raise undecodable(self._label, kind, body, sequence, f"{why}: its codec is {kind_name(kind)}")


class _Own:
    plain = False

    def __init__(self, label: str, own: OwnCodec[Any]) -> None:
        self._label = label
        self._own = own

    def encode(self, item: object) -> tuple[int, Buffer]:
        try:
            return Kind.OWN, memoryview(self._own.encode(item)).cast("B")
        except Exception as error:
            raise EncodeError(
                f"cannot put a {type(item).__qualname__} into {self._label}: its codec says {error!r}"
            ) from error

    def decode(self, kind: int, body: bytes, sequence: int) -> Any:
        if kind != Kind.OWN:
            why = "it was put through a handle without codec="
            raise undecodable(self._label, kind, body, sequence, why)
        try:
            return self._own.decode(body)
        except Exception as error:
            raise undecodable(self._label, kind, body, sequence, f"its codec says {error!r}") from error


def _has_instances(type_: Any) -> bool:
    return isinstance(type_, type) and (issubclass(type_, msgspec.Struct) or is_dataclass(type_))


def _name(type_: Any) -> str:
    return getattr(type_, "__qualname__", None) or str(type_)
