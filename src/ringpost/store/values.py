"""How values lie in the tables: as they are, with checksums where messages are; or sealed.

Sealed means: encrypted, and bound to the broker, the log, the table and the key that they lie at, so that
none can be changed, or take another one's place. What a user named (a subject, a message's key or id) does
not lie in the table's keys either, but a keyed hash of it.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import TYPE_CHECKING, Any

from ringpost.errors import StorageDamaged
from ringpost.store import format as form

if TYPE_CHECKING:
    from ringpost.store.vault import Vault

OF_THE_BROKER = bytes(16)  # instead of a log's id
OF_THE_SIDE_STORE = b"side store".ljust(16, b"\0")

_NUMBER = struct.Struct("<I")
_NONCE = 24  # xaes.NONCE, without the library that it needs
_BLOCKS = b"blocks"  # the table without a name
_HIDDEN = 24  # bytes of a hash


class Values:
    """As they are."""

    most_frames = form.MOST_FRAMES
    most_part = form.MOST_PART

    def seal(self, table: bytes, key: bytes, value: bytes) -> bytes:
        return value

    def open(self, table: bytes, key: bytes, value: Any) -> Any:
        """Raises StorageDamaged."""
        return value

    def hide(self, text: bytes, within: bytes = b"") -> bytes:
        """What stands for it in a key; another one `within` something else."""
        return text

    def block(self, key: bytes, header: form.Header, body: Any) -> bytes:
        return form.pack_block(header, body)

    def body(self, key: bytes, value: Any) -> tuple[form.Header, Any]:
        """Of a block, as pack_block() got it. Raises StorageDamaged."""
        header = header_of(key, value)
        try:
            form.check_block(value)
        except ValueError as problem:
            raise damaged_block(key, problem) from None
        return _in_its_place(key, header), memoryview(value)[form.HEADER :]

    def frames(self, key: bytes, value: Any) -> tuple[form.Header, Any]:
        """Of a block, all of them. Raises StorageDamaged."""
        return _all_frames(key, *self.body(key, value))

    def part(self, key: bytes, piece: memoryview) -> bytes:
        """Of a large message."""
        return form.pack_part(piece)

    def piece(self, key: bytes, value: Any) -> memoryview | bytes:
        """What part() got. Raises StorageDamaged."""
        try:
            return form.unpack_part(value)
        except (ValueError, struct.error) as problem:
            raise _damaged_part(key, problem) from None


PLAIN = Values()


class SealedValues(Values):
    """Of one log, or of what belongs to none: `scope` is its id."""

    most_frames = form.MOST_FRAMES - form.SEAL
    most_part = form.PAGES - _NUMBER.size - form.SEAL

    def __init__(self, vault: Vault, scope: bytes) -> None:
        self._vault = vault
        self._scope = b"ringpost" + vault.broker_id + scope

    def _place(self, table: bytes, key: bytes) -> bytes:
        return b"".join((self._scope, bytes((len(table),)), table, key))

    def seal(self, table: bytes, key: bytes, value: bytes | memoryview) -> bytes:
        number, cipher = self._vault.current()
        nonce = os.urandom(_NONCE)
        return b"".join((_NUMBER.pack(number), nonce, cipher.encrypt(nonce, value, self._place(table, key))))

    def open(self, table: bytes, key: bytes, value: Any) -> bytes:
        opened = self._opened(table, key, value)
        if opened is None:
            raise StorageDamaged(
                f"entry {key.hex()} of table {table.decode()} is damaged: its seal is broken"
            )
        return opened

    def _opened(self, table: bytes, key: bytes, value: Any) -> bytes | None:
        if len(value) < _NUMBER.size + form.SEAL:
            return None
        cipher = self._vault.cipher(_NUMBER.unpack_from(value)[0])
        if cipher is None:
            return None
        at = _NUMBER.size + _NONCE
        nonce, sealed = bytes(value[_NUMBER.size : at]), memoryview(value)[at:]
        return cipher.decrypt(nonce, sealed, self._place(table, key))

    def hide(self, text: bytes, within: bytes = b"") -> bytes:
        keyed = hashlib.blake2b(self._scope + within, key=self._vault.index, digest_size=_HIDDEN)
        keyed.update(text)
        return keyed.digest()

    def block(self, key: bytes, header: form.Header, body: Any) -> bytes:
        number, cipher = self._vault.current()
        packed, nonce = form.pack_header(header, key=number), os.urandom(_NONCE)
        return b"".join((packed, nonce, cipher.encrypt(nonce, body, self._place(_BLOCKS, key) + packed)))

    def body(self, key: bytes, value: Any) -> tuple[form.Header, Any]:
        header = header_of(key, value)
        cipher = self._vault.cipher(form.key_number(value))
        packed, at = bytes(value[: form.HEADER]), form.HEADER + _NONCE
        nonce, sealed = bytes(value[form.HEADER : at]), memoryview(value)[at:]
        body = cipher and cipher.decrypt(nonce, sealed, self._place(_BLOCKS, key) + packed)
        if body is None:
            raise damaged_block(key, "its seal is broken")
        return _in_its_place(key, header), body

    def part(self, key: bytes, piece: memoryview) -> bytes:
        return self.seal(form.PAYLOADS, key, piece)

    def piece(self, key: bytes, value: Any) -> memoryview | bytes:
        piece = self._opened(form.PAYLOADS, key, value)
        if piece is None:
            raise _damaged_part(key, "its seal is broken")
        return piece


def header_of(key: bytes, value: Any) -> form.Header:
    """Of a block, sealed or not, without looking at its frames. Raises StorageDamaged."""
    try:
        return form.header_of(value)
    except ValueError as problem:
        raise damaged_block(key, problem) from None


def _in_its_place(key: bytes, header: form.Header) -> form.Header:
    if header.position != form.position_of(key):
        raise damaged_block(key, "it lies in another one's place")
    return header


def _all_frames(key: bytes, header: form.Header, body: Any) -> tuple[form.Header, Any]:
    if header.kept is None:
        return header, body
    try:
        return header, form.filled(header, body)
    except (ValueError, struct.error) as problem:
        raise damaged_block(key, problem) from None


def damaged_block(key: bytes, problem: object) -> StorageDamaged:
    return StorageDamaged(f"block {form.describe(key)} is damaged: {problem}")


def _damaged_part(key: bytes, problem: object) -> StorageDamaged:
    return StorageDamaged(f"part {key[12:].hex()} of payload {form.describe(key)} is damaged: {problem}")
