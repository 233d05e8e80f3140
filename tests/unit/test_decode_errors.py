"""Messages that cannot be decoded raise DecodeError, which carries them: never a crash, never a loss."""

from __future__ import annotations

import pickle
import random

import msgspec
import pytest

import ringpost
from ringpost.codecs import Kind, PickleCodec, StandardCodec
from unit.raw import raw_handle

ROUNDS = 2_000
TRUSTING = StandardCodec("a queue", pickle=True)
VALID = {
    Kind.TEXT: "grüße".encode(),
    Kind.MSGPACK: msgspec.msgpack.encode({"a": [1, -2.5, None, b"x"], "b": msgspec.msgpack.Ext(5, b"yy")}),
    Kind.PICKLE: pickle.dumps({"a": [1, -2.5, None, b"x"], "b": (1j, {2})}),
}
BROKEN = {
    "text": (Kind.TEXT, b"\xff\xfe"),
    "text cut": (Kind.TEXT, "é".encode()[:1]),
    "surrogate": (Kind.TEXT, b"\xed\xa0\x80"),
    "large text": (Kind.TEXT, b"x" * 30_000 + b"\xff"),
    "msgpack": (Kind.MSGPACK, b"\xc1"),
    "msgpack cut": (Kind.MSGPACK, VALID[Kind.MSGPACK][:-1]),
    "msgpack and more": (Kind.MSGPACK, VALID[Kind.MSGPACK] + b"\0"),
    "msgpack empty": (Kind.MSGPACK, b""),
    "msgpack that claims 4 GiB": (Kind.MSGPACK, b"\xc6\xff\xff\xff\xff"),
    "msgpack that claims 2**32 items": (Kind.MSGPACK, b"\xdd\xff\xff\xff\xff"),
    "msgpack too deep": (Kind.MSGPACK, b"\x91" * 10_000),
    "msgpack with a map as key": (Kind.MSGPACK, b"\x81\x80\x01"),
    "pickle": (Kind.PICKLE, b"."),
    "pickle cut": (Kind.PICKLE, VALID[Kind.PICKLE][:-1]),
    "pickle empty": (Kind.PICKLE, b""),
    "pickle of a name that is not there": (Kind.PICKLE, b"cnowhere\nnothing\n."),
    "pickle that raises": (Kind.PICKLE, b"cbuiltins\nint\n(S'x'\ntR."),
    "array": (Kind.NDARRAY, b"\x03\0\0\0abc"),
    "array empty": (Kind.NDARRAY, b""),
    "an unknown kind": (77, b"from the future"),
}


@pytest.mark.parametrize(("kind", "body"), BROKEN.values(), ids=BROKEN.keys())
def test_it_carries_the_message(queue: ringpost.Queue[object], kind: int, body: bytes) -> None:
    raw = raw_handle(queue)
    queue.put("before")
    raw.put((kind, body))
    queue.put("after")
    assert queue.get_nowait() == "before"
    with pytest.raises(ringpost.DecodeError) as raised:
        queue.get_nowait()
    error = raised.value
    assert error.payload == body
    assert error.codec == (Kind(kind).name.lower() if kind != 77 else "kind 77")
    assert error.sequence == 1
    assert str(error).startswith(
        f"message 1 of {queue._log.label} ({error.codec}, {len(body)} bytes) cannot be"
    )
    assert ".payload" in str(error)
    assert queue.get_nowait() == "after"


@pytest.mark.parametrize(("kind", "body"), BROKEN.values(), ids=BROKEN.keys())
def test_a_handle_that_trusts_pickles_says_the_same(kind: int, body: bytes) -> None:
    with pytest.raises(ringpost.DecodeError) as raised:
        TRUSTING.decode(kind, body, 2**40)
    assert (raised.value.payload, raised.value.sequence) == (body, 2**40)


def test_an_unknown_kind_says_that_a_newer_version_put_it(queue: ringpost.Queue[object]) -> None:
    raw_handle(queue).put((200, b"x"))
    with pytest.raises(ringpost.DecodeError, match="newer ringpost"):
        queue.get_nowait()


def test_get_many_loses_nothing_that_came_with_it(queue: ringpost.Queue[object]) -> None:
    raw = raw_handle(queue)
    for number in range(3):
        queue.put(number)
        raw.put((Kind.MSGPACK, b"\xc1"))
    with pytest.raises(ringpost.DecodeError) as raised:
        queue.get_many()
    assert raised.value.items == [0, 1, 2]
    assert [raised.value.sequence, *(error.sequence for error in raised.value.more)] == [1, 3, 5]
    assert queue.empty()


def mutations(body: bytes, chance: random.Random) -> bytes:
    """A valid body with a few bytes changed, removed or added."""
    mutant = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(mutant) + 1)
        mutant[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
    return bytes(mutant)


def decoded_or_refused(codec: object, kind: int, body: bytes) -> bool:
    """True if it was refused; anything but a DecodeError fails the test."""
    try:
        codec.decode(kind, body, 0)
    except ringpost.DecodeError as error:
        carried = error.payload
    else:
        return False
    assert carried is body
    return True


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.MSGPACK])
def test_noise(kind: Kind) -> None:
    chance = random.Random(f"noise {kind}")
    refused = sum(
        decoded_or_refused(TRUSTING, kind, chance.randbytes(chance.randint(1, 60))) for _ in range(ROUNDS)
    )
    assert ROUNDS / 2 < refused < ROUNDS


@pytest.mark.parametrize("kind", [Kind.TEXT, Kind.MSGPACK])
def test_messages_with_a_few_wrong_bytes(kind: Kind) -> None:
    chance = random.Random(f"mutations {kind}")
    refused = sum(decoded_or_refused(TRUSTING, kind, mutations(VALID[kind], chance)) for _ in range(ROUNDS))
    assert ROUNDS / 10 < refused < ROUNDS


def test_pickles_of_noise() -> None:
    """Without the opcode that makes room for as many gigabytes as its argument says."""
    chance = random.Random("pickles of noise")
    for _ in range(ROUNDS):
        body = chance.randbytes(chance.randint(1, 60)).replace(b"r", b"")
        assert decoded_or_refused(PickleCodec("a queue"), Kind.PICKLE, body) in (True, False)


def test_pickles_cut_anywhere() -> None:
    body = VALID[Kind.PICKLE]
    for end in range(len(body)):
        assert decoded_or_refused(PickleCodec("a queue"), Kind.PICKLE, body[:end])


def test_every_kind_that_a_byte_can_hold() -> None:
    for kind in range(256):
        if kind in (Kind.BYTES, Kind.TEXT):
            assert not decoded_or_refused(TRUSTING, kind, b"text")
        else:
            assert decoded_or_refused(TRUSTING, kind, b"text")


def test_text_that_the_binding_itself_cannot_decode(queue: ringpost.Queue[object]) -> None:
    """In a batch and alone, small and large."""
    raw = raw_handle(queue)
    for body in (b"\xff", b"x" * 20_000 + b"\xff"):
        raw.put((Kind.TEXT, body))
        raw.put((Kind.TEXT, body))
        with pytest.raises(ringpost.DecodeError) as alone:
            queue.get_nowait()
        with pytest.raises(ringpost.DecodeError) as in_batch:
            queue.get_many(block=False)
        assert alone.value.payload == in_batch.value.payload == body
        assert isinstance(alone.value.__cause__, UnicodeDecodeError)
