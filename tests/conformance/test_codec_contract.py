"""What a binding asks the codec for, what it does by itself, and how it bears a codec that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringpost.codecs import Kind
from ringpost.errors import DecodeError

LARGE = 20_000


class Recorder:
    """Items are (kind, body), and what was asked is written down."""

    def __init__(self) -> None:
        self.encoded: list[object] = []
        self.decoded: list[tuple[int, object, int]] = []
        self.fails: BaseException | None = None

    def encode(self, item: Any) -> Any:
        self.encoded.append(item)
        if isinstance(item, (bytes, bytearray, str)):
            return 77, bytes(item, "utf-8") if isinstance(item, str) else bytes(item)
        return item

    def decode(self, kind: int, body: bytes, sequence: int) -> Any:
        self.decoded.append((kind, body, sequence))
        if self.fails is not None:
            raise self.fails
        return kind, body


class Words(str):
    __slots__ = ()


class Octets(bytes):
    __slots__ = ()


@pytest.fixture
def codec() -> Recorder:
    return Recorder()


@pytest.fixture
def log(binding: Any, shm_dir: Path, codec: Recorder) -> Iterator[Any]:
    path = str(shm_dir / "codec-contract")
    yield binding.create(path, "a log", codec, capacity=1 << 20)
    binding.remove(path)


def put(log: Any, item: object) -> None:
    log.put(item)


def put_as_batch(log: Any, item: object) -> None:
    log.put_many([item])


def get_of_batch(log: Any) -> Any:
    (item,) = log.get_many(1)
    return item


ways_in = pytest.mark.parametrize("put_in", [put, put_as_batch])
ways_out = pytest.mark.parametrize("take", [lambda log: log.get(), get_of_batch], ids=["get", "get_many"])


@ways_in
@ways_out
@pytest.mark.parametrize(
    "item", [b"", b"\xff", b"x" * 1000, "", "ASCII", "x" * 1000], ids=lambda i: repr(i[:9])
)
def test_bytes_and_ascii_need_no_codec(
    log: Any, codec: Recorder, put_in: Callable[..., None], take: Callable[[Any], object], item: Any
) -> None:
    put_in(log, item)
    got = take(log)
    assert (got, type(got)) == (item, type(item))
    assert (codec.encoded, codec.decoded) == ([], [])


@ways_in
@pytest.mark.parametrize(
    "item",
    ["é", bytearray(b"x"), Octets(b"x"), Words("x"), (Kind.MSGPACK, b"x")],
    ids=lambda i: type(i).__name__,
)
def test_everything_else_asks_it(log: Any, codec: Recorder, put_in: Callable[..., None], item: Any) -> None:
    put_in(log, item)
    log.get()
    assert len(codec.encoded) == 1
    assert codec.encoded[0] is item
    assert len(codec.decoded) == 1


@ways_in
@ways_out
@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, LARGE])
@pytest.mark.parametrize("kind", [2, 3, 4, 77, 255])
def test_kind_and_body_come_through(
    log: Any, put_in: Callable[..., None], take: Callable[[Any], object], kind: int, size: int
) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    put_in(log, (kind, body[:size]))
    assert take(log) == (kind, body[:size])


def test_bodies_are_bytes_and_sequences_are_dense(log: Any, codec: Recorder) -> None:
    log.put_many([(9, b"a"), (9, bytes(LARGE)), (9, b"b")])
    log.put((9, b"c"))
    log.get()
    log.get()
    log.get_many()
    assert [sequence for _, _, sequence in codec.decoded] == [0, 1, 2, 3]
    assert {type(body) for _, body, _ in codec.decoded} == {bytes}


@ways_in
def test_a_body_is_any_buffer(log: Any, put_in: Callable[..., None]) -> None:
    body = bytearray(b"body")
    put_in(log, (9, body))
    body.append(0)  # fails as long as a buffer of it is exported
    put_in(log, (9, memoryview(b"-body-")[1:5]))
    assert [log.get(), log.get()] == [(9, b"body")] * 2


@ways_in
@ways_out
@pytest.mark.parametrize("sizes", [(), (0,), (1, 0, 2), (LARGE,), (3, LARGE, 0, LARGE)], ids=str)
@pytest.mark.parametrize("kind", [Kind.PICKLE_BUFFERS, 77])
def test_a_body_is_a_tuple_of_buffers_too(
    log: Any, put_in: Callable[..., None], take: Callable[[Any], object], sizes: tuple[int, ...], kind: int
) -> None:
    parts = tuple(bytearray([65 + number]) * size for number, size in enumerate(sizes))
    assert log.encode((kind, parts)) == (kind, b"".join(parts))
    log.send((kind, parts), b"subject", b"headers")
    put_in(log, (kind, parts))
    for part in parts:
        part.append(0)  # fails as long as a buffer of it is exported
    expected = b"".join(bytes(part[:-1]) for part in parts)
    for _ in range(2):
        taken_kind, body = take(log)
        assert (taken_kind, bytes(body)) == (kind, expected)


def test_text_that_is_no_utf8_is_the_codecs_business(log: Any, codec: Recorder) -> None:
    log.put((Kind.TEXT, b"\xff"))
    assert log.get() == (Kind.TEXT, b"\xff")
    log.put_many([(Kind.TEXT, b"\xff"), "text"])
    assert log.get_many() == [(Kind.TEXT, b"\xff"), "text"]


BROKEN: dict[str, Any] = {
    "no pair": (1, b"x", "more"),
    "None": None,
    "a kind beyond a byte": (256, b"x"),
    "a negative kind": (-1, b"x"),
    "a kind of no number": ("x", b"x"),
    "a body of no bytes": (9, "text"),
    "a body with gaps": (9, memoryview(b"abcdef")[::2]),
    "a tuple of no buffers": (9, (b"x", "text")),
    "a tuple of buffers with gaps": (9, (b"x", memoryview(b"abcdef")[::2])),
}


@ways_in
@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_encoder_that_answers_nonsense(log: Any, put_in: Callable[..., None], answer: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError, BufferError)):
        put_in(log, answer)
    assert log.size() == 0
    log.put("goes on")
    assert log.get() == "goes on"


@ways_out
@pytest.mark.parametrize("size", [1, LARGE])
@pytest.mark.parametrize(
    "error", [ZeroDivisionError("no"), KeyboardInterrupt(), DecodeError("no", b"", "c", 0)]
)
def test_a_decoder_that_fails(
    log: Any, codec: Recorder, take: Callable[[Any], object], size: int, error: BaseException
) -> None:
    """The message was taken; the next one comes as ever."""
    codec.fails = error
    log.put((9, bytes(size)))
    with pytest.raises(type(error)) as raised:
        take(log)
    assert raised.value is error
    codec.fails = None
    assert log.size() == 0
    log.put("goes on")
    assert log.get() == "goes on"


def test_one_that_cannot_be_decoded_takes_no_other_with_it(log: Any, codec: Recorder) -> None:
    codec.fails = error = DecodeError("no", b"x", "c", 1)
    log.put_many(["before", (9, b"x"), "after"])
    with pytest.raises(DecodeError) as raised:
        log.get_many()
    assert raised.value is error
    assert error.items == ["before", "after"]


def test_an_interrupted_batch_carries_all_of_it(log: Any, codec: Recorder) -> None:
    codec.fails = KeyboardInterrupt()
    log.put_many(["before", (9, b"x"), b"after"])
    with pytest.raises(KeyboardInterrupt) as raised:
        log.get_many()
    assert raised.value.items == ["before"]  # type: ignore[attr-defined]
    assert raised.value.payloads == [b"x", b"after"]  # type: ignore[attr-defined]


def test_a_codec_may_use_the_log(binding: Any, log: Any) -> None:
    class Nested(Recorder):
        def encode(self, item: Any) -> Any:
            log.put("from within")
            return item

        def decode(self, kind: int, body: bytes, sequence: int) -> Any:
            return kind, body, log.get()

    nested = binding.attach(log.path, "nested", Nested())
    nested.put((9, b"outer"))
    assert log.get() == "from within"
    log.put("inner")
    assert nested.get() == (9, b"outer", "inner")
