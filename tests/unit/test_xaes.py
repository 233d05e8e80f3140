"""XAES-256-GCM is what its spec says: https://c2sp.org/XAES-256-GCM."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("cryptography", reason="needs cryptography")

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode

from ringpost.store.xaes import NONCE, TAG, Xaes256Gcm

NONCE_OF_THE_SPEC = b"ABCDEFGHIJKLMNOPQRSTUVWX"
VECTORS = {
    "without a carry": (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
    "with a carry": (
        3,
        b"c2sp.org/XAES-256-GCM",
        "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
    ),
}
ACCUMULATED = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"  # of 10,000 rounds


@pytest.mark.parametrize(("byte", "associated", "expected"), VECTORS.values(), ids=VECTORS)
def test_vectors_of_the_spec(byte: int, associated: bytes, expected: str) -> None:
    cipher = Xaes256Gcm(bytes([byte]) * 32)
    sealed = cipher.encrypt(NONCE_OF_THE_SPEC, b"XAES-256-GCM", associated)
    assert sealed.hex() == expected
    assert cipher.decrypt(NONCE_OF_THE_SPEC, sealed, associated) == b"XAES-256-GCM"
    assert cipher.decrypt(NONCE_OF_THE_SPEC, sealed, associated + b"x") is None


class Shake:
    """The generator of the spec: SHAKE-128 of nothing."""

    def __init__(self, size: int) -> None:
        self._stream, self._at = hashlib.shake_128(b"").digest(size), 0

    def read(self, size: int) -> bytes:
        self._at += size
        return self._stream[self._at - size : self._at]


def test_accumulated_vectors_of_the_spec() -> None:
    random, accumulated = Shake(10_000 * (32 + 24 + 2 * 256)), hashlib.shake_128()
    for _ in range(10_000):
        key, nonce = random.read(32), random.read(24)
        plain, associated = (random.read(random.read(1)[0]) for _ in range(2))
        accumulated.update(Xaes256Gcm(key).encrypt(nonce, plain, associated))
    assert accumulated.digest(32).hex() == ACCUMULATED


def test_its_keys_are_those_of_the_standard_kdf() -> None:
    for number in range(50):
        key, nonce = hashlib.sha256(b"%d" % number).digest(), hashlib.sha512(b"%d" % number).digest()[:NONCE]
        kdf = KBKDFCMAC(
            algorithm=AES, mode=Mode.CounterMode, length=32, rlen=2, llen=None,
            location=CounterLocation.BeforeFixed, label=None, context=None, fixed=b"X\0" + nonce[:12],
        )  # fmt: skip
        expected = AESGCM(kdf.derive(key)).encrypt(nonce[12:], b"text", b"place")
        assert Xaes256Gcm(key).encrypt(nonce, b"text", b"place") == expected
        assert len(expected) == 4 + TAG


def test_threads_share_one() -> None:
    cipher = Xaes256Gcm(bytes(32))

    def work(number: int) -> bool:
        nonce = bytes([number]) * NONCE
        return all(
            cipher.decrypt(nonce, cipher.encrypt(nonce, b"%d" % n, b""), b"") == b"%d" % n for n in range(500)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8), timeout=60))
