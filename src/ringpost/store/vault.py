"""The keys of a sealed broker.

Values are sealed with *data keys*: one is drawn when the broker is made, another one by each rotation; their
numbers stand beside what they sealed. All of them together, the *key ring*, lie in the table `meta`, sealed
with a key that is made of the user's.

A rotation writes the key ring anew, for the new user's key, in one transaction. Processes that have the
broker open know only the old one. For them the new key ring lies in shared memory as well (a *link*), sealed
with the data key that they have. It goes with the messages there, at a reboot, and never to disk: there it
would lead who has the old key, and a copy from then, from one data key to the next.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from ringpost.engines import directory
from ringpost.engines.access import Access
from ringpost.errors import KeyRefused, Status, StorageDamaged, Unsupported, failure
from ringpost.keys import SIZE, Key, Scrypt, new_scrypt

if TYPE_CHECKING:
    from ringpost.store.xaes import Xaes256Gcm

LINKS = "keys."  # how their files' names begin

_NONCE, _CHECK = 24, 16  # bytes


class KeysRecord(msgspec.Struct, array_like=True, frozen=True):
    """In the table meta.

    Attributes:
        generation: how many rotations there were.
        check: says whether a user's key is the right one.
        ring: a KeyRing, sealed with it.
    """

    generation: Annotated[int, msgspec.Meta(ge=0, lt=(1 << 63) - 1)]
    check: Annotated[bytes, msgspec.Meta(min_length=_CHECK, max_length=_CHECK)]
    scrypt: Scrypt | None
    ring: bytes


class KeyRing(msgspec.Struct, array_like=True, frozen=True):
    index: bytes  # hashes in tables' keys; always the same, for they are to be found again
    data: dict[int, bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode_record = msgspec.msgpack.Decoder(KeysRecord).decode
_decode_ring = msgspec.msgpack.Decoder(KeyRing).decode


class Vault:
    """The keys, in a process that has opened it."""

    def __init__(
        self,
        broker_id: bytes,
        place: Path,
        shm: Path,
        access: Access,
        read_row: Callable[[], bytes],
        key: Key | None,
    ) -> None:
        """`read_row` gives what lies in the table meta; `shm` is the broker's directory in shared memory, for
        those with `access`. Raises KeyRefused, StorageDamaged, Unsupported."""
        self.broker_id = broker_id
        self._place = place
        self._shm = shm
        self._access = access
        self._read_row = read_row
        self._openers: list[Key] = []
        self._ciphers: dict[int, Xaes256Gcm] = {}
        self._row = b""
        self.admit(key)

    # ---- for values.py -------------------------------------------------------------------------------

    def current(self) -> tuple[int, Xaes256Gcm]:
        """What is written now is sealed with this one."""
        return self._number, self._ciphers[self._number]

    def cipher(self, number: int) -> Xaes256Gcm | None:
        """None: there is none with this number. Raises KeyRefused."""
        if number not in self._ciphers:
            self.catch_up()  # another process has rotated the key, and written since
        return self._ciphers.get(number)

    # ---- who comes in --------------------------------------------------------------------------------

    def admit(self, key: Key | None) -> None:
        """Somebody connects. Raises KeyRefused."""
        if key is None:
            raise self._refusal(
                "it is sealed: connect(..., key=), or set RINGPOST_KEY or RINGPOST_KEY_FILE. Without its key "
                "nobody can read what is in it"
            )
        row = self._read_row()
        if row == self._row and any(key.is_same(one) for one in self._openers):
            return
        ring = self._unlocked(row, key)
        self._adopt(row, ring)
        self._openers.append(key)

    def catch_up(self, row: bytes | None = None) -> None:
        """Somebody may have rotated the key; `row`: what lies there now, if it is known. Raises KeyRefused,
        StorageDamaged."""
        row = self._read_row() if row is None else row
        if row == self._row:
            return
        wanted = self._record(row)
        generation, ring = self._generation, None
        if generation >= wanted.generation:
            raise self._damage()
        while generation < wanted.generation:
            generation += 1
            ring = self._linked(generation, max(self._data) if ring is None else max(ring.data), ring)
            if ring is None:
                raise self._refusal(
                    "its key was changed with rotate_key(), and the shared memory that would tell the new "
                    "one is gone: connect() again, with the new key"
                )
        assert ring is not None
        self._adopt(row, ring)

    def _adopt(self, row: bytes, ring: KeyRing) -> None:
        """In this order, for other threads are at work."""
        if row != self._row:
            self._openers = []
        known = self._ciphers
        self._ciphers = {number: known.get(number) or _cipher(key) for number, key in ring.data.items()}
        self._data, self.index, self._number = ring.data, ring.index, max(ring.data)
        self._generation = self._record(row).generation
        self._row = row

    # ---- rotation ------------------------------------------------------------------------------------

    def next_row(self, key: Key) -> bytes:
        """The key ring with one more data key, for this user's key. It waits in shared memory for who has the
        broker open, until it is in the table. Raises SegmentFull."""
        ring = KeyRing(self.index, {**self._data, self._number + 1: os.urandom(SIZE)})
        generation = self._generation + 1
        self._link(generation, ring)
        return _locked(self.broker_id, generation, ring, key)

    def _link(self, generation: int, ring: KeyRing) -> None:
        """Raises SegmentFull."""
        directory.make(self._shm, self._access)
        path = self._link_path(generation)
        sealed = _seal(self._data[self._number], _encode(ring), self._context(generation))
        path.unlink(missing_ok=True)  # of a rotation that came to nothing
        try:
            directory.make_file(path, self._access.file_mode, lambda file: directory.write(file, sealed))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise failure(Status.NO_SPACE, "keep", "the new key", path=str(path)) from error

    def _linked(self, generation: int, number: int, ring: KeyRing | None) -> KeyRing | None:
        """The key ring of that generation, if it is there for who has the data key with this number."""
        key = (self._data if ring is None else ring.data)[number]
        try:
            directory.check_if_there(self._shm, self._access)
            sealed = self._link_path(generation).read_bytes()
        except FileNotFoundError:
            return None
        opened = _unseal(key, sealed, self._context(generation))
        return None if opened is None else _decode_ring(opened)

    def _link_path(self, generation: int) -> Path:
        return self._shm / f"{LINKS}{generation}.link"

    def _context(self, generation: int) -> bytes:
        return b"ringpost link" + self.broker_id + generation.to_bytes(8, "big")

    # ---- the row -------------------------------------------------------------------------------------

    def _record(self, row: bytes) -> KeysRecord:
        try:
            return _decode_record(row)
        except msgspec.MsgspecError:
            raise self._damage() from None

    def _unlocked(self, row: bytes, key: Key) -> KeyRing:
        record = self._record(row)
        try:
            secret = key.secret(record.scrypt)
        except ValueError:
            raise self._damage() from None
        if secret is None:
            wants, has = "a passphrase", f"a key of {SIZE} bytes"
            if record.scrypt is None:
                wants, has = has, wants
            raise self._refusal(f"it is sealed with {wants}, and this is {has}")
        lock, check = _lock_of(secret, self.broker_id)
        if check != record.check:
            raise self._refusal(
                "it is sealed with another key than this one (was it changed with rotate_key()?)"
            )
        opened = _unseal(lock, record.ring, _header(self.broker_id, record.generation))
        if opened is None:
            raise self._damage()
        return _decode_ring(opened)

    def _refusal(self, why: str) -> KeyRefused:
        return KeyRefused(errno.EACCES, why, str(self._place))

    def _damage(self) -> StorageDamaged:
        return StorageDamaged(f"the keys of {self._place} are damaged: restore a backup")


def new_row(broker_id: bytes, key: Key) -> bytes:
    """For a new broker. Raises Unsupported."""
    return _locked(broker_id, 0, KeyRing(os.urandom(SIZE), {1: os.urandom(SIZE)}), key)


def _locked(broker_id: bytes, generation: int, ring: KeyRing, key: Key) -> bytes:
    scrypt = new_scrypt() if key.is_passphrase else None
    secret = key.secret(scrypt)
    assert secret is not None
    lock, check = _lock_of(secret, broker_id)
    sealed = _seal(lock, _encode(ring), _header(broker_id, generation))
    return _encode(KeysRecord(generation, check, scrypt, sealed))


def _lock_of(secret: bytes, broker_id: bytes) -> tuple[bytes, bytes]:
    """What seals the key ring, and what says that it is the right one. No two brokers have the same."""
    _cipher(secret)  # says what is missing
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    made = HKDF(SHA256(), SIZE + _CHECK, salt=broker_id, info=b"ringpost key ring").derive(secret)
    return made[:SIZE], made[SIZE:]


def _header(broker_id: bytes, generation: int) -> bytes:
    return b"ringpost keys" + broker_id + generation.to_bytes(8, "big")


def _seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + _cipher(key).encrypt(nonce, plain, context)


def _unseal(key: bytes, sealed: bytes, context: bytes) -> bytes | None:
    if len(sealed) < _NONCE:
        return None
    return _cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], context)


def _cipher(key: bytes) -> Xaes256Gcm:
    try:
        from ringpost.store.xaes import Xaes256Gcm
    except ImportError as error:
        raise Unsupported(
            "a key needs the package cryptography: pip install 'ringpost[encryption]'"
        ) from error
    return Xaes256Gcm(key)
