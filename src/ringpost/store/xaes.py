"""XAES-256-GCM (https://c2sp.org/XAES-256-GCM): AES-256-GCM whose nonces of 192 bits may be drawn at random.

Nonces must be drawn: what was undone is written again, with other contents in the same place. But after 2**32
messages two nonces of 96 bits may be the same, and a durable queue gets there; ChaCha20-Poly1305 and
AES-GCM-SIV, which `cryptography` has too, have nonces as short. So each message gets a GCM key of its own,
made of the key and half of the nonce: by the KDF of NIST SP 800-108 with AES-CMAC, which for one block of
input comes down to encrypting it.
"""

from __future__ import annotations

import threading
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 24  # bytes
TAG = 16

_HALF = 12
_FIRST, _SECOND = b"\0\1X\0", b"\0\2X\0"  # counter, label, separator


class Xaes256Gcm:
    """Of one key of 32 bytes. Threads may share it."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(algorithms.AES(key), modes.ECB())
        self._encryptors = threading.local()  # making one takes longer than all that it does here
        doubled = int.from_bytes(self._encrypt_blocks(bytes(16)), "big") << 1
        if doubled >> 128:
            doubled ^= 1 << 128 | 0b10000111
        self._mask = int.from_bytes(doubled.to_bytes(16, "big") * 2, "big")

    def encrypt(self, nonce: bytes, data: Any, associated: bytes) -> bytes:
        return self._gcm(nonce).encrypt(nonce[_HALF:], data, associated)

    def decrypt(self, nonce: bytes, data: Any, associated: bytes) -> bytes | None:
        """None: this is not what was encrypted with this nonce and this associated data."""
        try:
            return self._gcm(nonce).decrypt(nonce[_HALF:], data, associated)
        except InvalidTag:
            return None

    def _gcm(self, nonce: bytes) -> AESGCM:
        half = nonce[:_HALF]
        blocks = int.from_bytes(_FIRST + half + _SECOND + half, "big") ^ self._mask
        return AESGCM(self._encrypt_blocks(blocks.to_bytes(32, "big")))

    def _encrypt_blocks(self, blocks: bytes) -> bytes:
        encryptor = getattr(self._encryptors, "mine", None)
        if encryptor is None:
            encryptor = self._encryptors.mine = self._cipher.encryptor()
        return bytes(encryptor.update(blocks))
