"""Keys that users give: connect(key=), $RINGPOST_KEY, $RINGPOST_KEY_FILE. What they open: store/vault.py.

A key is shown to nobody: not by repr(), nor in an error, nor in a pickle, but one for a process that is being
started, which goes through a pipe to it (as multiprocessing does with its own).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

SIZE = 32  # bytes
_TEXT = "base64:"  # how a text begins that is a key, and no passphrase
_MOST_MEMORY, _MOST_ROUNDS = 1 << 30, 16  # for a passphrase


class Scrypt(msgspec.Struct, array_like=True, frozen=True):
    """How a key is made of a passphrase. What is stored may have been tampered with: hence the bounds.
    Key.secret() has another one."""

    salt: Annotated[bytes, msgspec.Meta(min_length=1)]
    n: Annotated[int, msgspec.Meta(ge=2, le=_MOST_MEMORY)]
    r: Annotated[int, msgspec.Meta(ge=1, le=_MOST_MEMORY)]
    p: Annotated[int, msgspec.Meta(ge=1, le=_MOST_ROUNDS)]


def new_scrypt() -> Scrypt:
    return Scrypt(os.urandom(16), 1 << 16, 8, 2)  # 64 MiB, a few tenths of a second


class Key:
    """What a sealed broker is opened with."""

    __slots__ = ("_is_passphrase", "_secret")

    def __init__(self, given: bytes | str) -> None:
        """Raises TypeError, ValueError."""
        self._is_passphrase = False
        if isinstance(given, (bytes, bytearray, memoryview)):
            self._secret = bytes(given)
        elif not isinstance(given, str):
            raise TypeError(f"'key' is {SIZE} bytes, or a str, not {type(given).__qualname__}")
        elif given.startswith(_TEXT):
            self._secret = _from_base64(given[len(_TEXT) :])
        else:
            self._secret, self._is_passphrase = given.encode("utf-8", "surrogatepass"), True
        if self._is_passphrase and not self._secret:
            raise ValueError("'key' is empty")
        if not self._is_passphrase and len(self._secret) != SIZE:
            raise ValueError(f"'key' has {len(self._secret)} bytes, not {SIZE}; a passphrase is a str")

    @property
    def is_passphrase(self) -> bool:
        return self._is_passphrase

    def secret(self, how: Scrypt | None) -> bytes | None:
        """32 bytes. None: it is not of this kind. Raises ValueError."""
        if (how is not None) != self._is_passphrase:
            return None
        if how is None:
            return self._secret
        if 128 * how.n * how.r > _MOST_MEMORY:
            raise ValueError("it asks for more memory than passphrases take")
        return hashlib.scrypt(
            self._secret, salt=how.salt, n=how.n, r=how.r, p=how.p, maxmem=2 * _MOST_MEMORY - 1, dklen=SIZE
        )

    def is_same(self, other: Key) -> bool:
        same = hmac.compare_digest(self._secret, other._secret)
        return same and self._is_passphrase == other._is_passphrase

    def __repr__(self) -> str:
        return "<ringpost key>"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if not is_starting_a_process():
            raise TypeError("a key is pickled for a process that is being started, and for nobody else")
        return _again, (self._secret, self._is_passphrase)


def is_starting_a_process() -> bool:
    """What is pickled now is multiprocessing's, on its way to a child."""
    from multiprocessing.context import get_spawning_popen

    return get_spawning_popen() is not None


def _again(secret: bytes, is_passphrase: bool) -> Key:
    key = Key.__new__(Key)
    key._secret, key._is_passphrase = secret, is_passphrase
    return key


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"'key' begins with {_TEXT!r}, and what follows is no base64") from None


def key_of(given: bytes | str | Key | None) -> Key | None:
    """Raises TypeError, ValueError."""
    return given if given is None or isinstance(given, Key) else Key(given)


def from_environment() -> Key | None:
    """$RINGPOST_KEY, or what $RINGPOST_KEY_FILE names. None: neither is set. Raises as the next one."""
    text = text_from_environment("RINGPOST_KEY")
    return None if text is None else Key(text)


def text_from_environment(variable: str) -> str | None:
    """What this variable says, or the first line of the file that VARIABLE_FILE names. None: neither is set.

    Raises ValueError; OSError: the file cannot be read.
    """
    text, file = os.environ.get(variable), os.environ.get(variable + "_FILE")
    if text and file:
        raise ValueError(f"${variable} and ${variable}_FILE are both set: which is the key?")
    if file:
        with open(file) as lines:
            text = lines.readline().rstrip("\r\n")
        if not text:
            raise ValueError(
                f"{file}, which ${variable}_FILE names, is empty, or begins with an empty line: the key is "
                "its first line"
            )
    return text or None


# ---- what this process has opened ------------------------------------------------------------------------

_remembered: dict[str, Key] = {}  # by URL


def remember(url: str, key: Key | None) -> None:
    """For handles that come out of a pickle, which has no key in it."""
    if key is not None:
        _remembered[url] = key


def remembered(url: str) -> Key | None:
    return _remembered.get(url)
