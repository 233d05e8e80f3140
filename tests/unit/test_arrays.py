"""numpy arrays travel as raw items and come back equal, aligned and read-only."""

from __future__ import annotations

import random
import sys

import msgspec
import numpy
import pytest

import ringpost
from ringpost.codecs import Kind, StandardCodec
from unit.raw import raw_handle

CODEC = StandardCodec("a queue")
ROUNDS = 2_000
LINE = 64  # bytes: where the items start, counted from the body's beginning

GRID = numpy.arange(24, dtype="<i4").reshape(4, 6)
RECORDS = numpy.array(
    [(1, 2.5, [[1, 2], [3, 4]], b"ab"), (3, -1.0, [[5, 6], [7, 8]], b"c")],
    dtype=[("number", "<u2"), ("value", ">f8"), ("grid", "<i4", (2, 2)), ("text", "S4")],
)
OVERLAPPING = numpy.dtype({"names": ["whole", "low"], "formats": ["<u4", "<u2"], "offsets": [0, 0]})
DISORDERED = numpy.dtype(
    {
        "names": ["b", "a", "c"],
        "formats": [("<f8", (2,)), "S3", ">i2"],
        "offsets": [8, 1, 24],
        "titles": ["title of b", None, None],
        "itemsize": 32,
    }
)

ARRAYS = {
    "bool": numpy.array([True, False]),
    **{kind: numpy.array([0, 1, 100], dtype=kind) for kind in "bBhHiIlLqQefdgFDG"},
    "text": numpy.array(["a", "grüße", ""]),
    "octets": numpy.array([b"a", b"bcd"]),
    "void": numpy.array([b"abc", b"def"], dtype="V3"),
    "days": numpy.array(["2024-02-29", "NaT"], dtype="datetime64[D]"),
    "nanoseconds": numpy.array(["2024-02-29T12:00:00.123456789"], dtype="datetime64[ns]"),
    "spans": numpy.array([1, -5], dtype="timedelta64[s]"),
    "units of 25 seconds": numpy.array([1, -5], dtype="timedelta64[25s]"),
    "big-endian": numpy.array([1, 2**40], dtype=">i8"),
    "big-endian text": numpy.array(["ab"], dtype=">U2"),
    "no dimension": numpy.array(3.5),
    "empty": numpy.array([]),
    "empty in the middle": numpy.zeros((3, 0, 2), dtype="i2"),
    "one of each": numpy.ones((1, 1, 1, 1)),
    "many dimensions": numpy.arange(2**12, dtype="u2").reshape((2,) * 12),
    "rows": GRID,
    "columns": numpy.asfortranarray(GRID),
    "transposed": GRID.T,
    "every second": GRID[::2, 1::2],
    "backwards": GRID[::-1, ::-1],
    "repeated": numpy.broadcast_to(numpy.array([1, 2, 3]), (4, 3)),
    "axes exchanged": numpy.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "records": RECORDS,
    "one record": RECORDS[0:1].reshape(()),
    "a field": RECORDS["value"],
    "padded records": numpy.zeros(3, dtype=numpy.dtype([("a", "u1"), ("b", "<f8")], align=True)),
    "nested records": numpy.zeros(2, dtype=[("outer", [("inner", "<f4", (3,)), ("flag", "?")])]),
    "titled records": numpy.zeros(2, dtype=[(("a title", "a"), "<i4")]),
    "unicode field": numpy.zeros(2, dtype=[("größe", "<i4")]),
    "fields in another order": RECORDS[["text", "grid", "number", "value"]],
    "overlapping fields": numpy.array([1, 2**20], "<u4").view(OVERLAPPING),
    "nested, in another order": numpy.zeros(
        2, dtype=[("first", "?"), ("outer", DISORDERED, (2,)), (("a title", "last"), DISORDERED)]
    ),
    "larger than a frame": numpy.arange(100_000, dtype="f8"),
}


def same(back: object, array: numpy.ndarray) -> bool:
    return (
        isinstance(back, numpy.ndarray)
        and back.dtype == array.dtype
        and back.dtype.str == array.dtype.str
        and back.dtype.fields == array.dtype.fields  # with their titles
        and back.shape == array.shape
        and back.tobytes() == array.tobytes()
    )


def body_of(array: numpy.ndarray) -> bytes:
    kind, body = CODEC.encode(array)
    assert kind == Kind.NDARRAY
    return bytes(body)


def body_with_head(head: object, items: bytes = b"") -> bytes:
    encoded = msgspec.msgpack.encode(head)
    start = -(-(4 + len(encoded)) // LINE) * LINE
    return (len(encoded).to_bytes(4, "little") + encoded).ljust(start, b"\0") + items


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_comes_back_equal(queue: ringpost.Queue[object], array: numpy.ndarray) -> None:
    queue.put(array)
    assert same(queue.get_nowait(), array)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_comes_back_equal_inside_of_other_objects(array: numpy.ndarray) -> None:
    kind, body = CODEC.encode({"array": array, "list": [array, 1]})
    assert kind == Kind.MSGPACK
    back = CODEC.decode(kind, bytes(body), 0)
    assert same(back["array"], array)
    assert same(back["list"][0], array)


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_is_read_only(array: numpy.ndarray) -> None:
    back = CODEC.decode(Kind.NDARRAY, body_of(array), 0)
    assert not back.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        back[...] = back
    with pytest.raises(ValueError, match="WRITEABLE"):
        back.flags.writeable = True


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_items_start_on_a_line(array: numpy.ndarray) -> None:
    body = body_of(array)
    before = len(body) - array.nbytes
    assert before % LINE == 0
    assert before >= 4 + int.from_bytes(body[:4], "little")
    assert CODEC.decode(Kind.NDARRAY, body, 0).flags.aligned


@pytest.mark.parametrize(
    ("array", "order"),
    [(GRID, "C"), (GRID.T, "F"), (numpy.asfortranarray(GRID), "F"), (GRID[:, ::2], "C"), (GRID[0], "C")],
    ids=["rows", "transposed", "columns", "every second", "one row"],
)
def test_the_order_in_memory_is_kept(array: numpy.ndarray, order: str) -> None:
    back = CODEC.decode(Kind.NDARRAY, body_of(array), 0)
    assert back.flags["C_CONTIGUOUS" if order == "C" else "F_CONTIGUOUS"]


def test_subclasses_come_back_as_arrays() -> None:
    matrix = numpy.arange(4).view(numpy.recarray)
    assert type(CODEC.decode(Kind.NDARRAY, body_of(matrix), 0)) is numpy.ndarray


METADATA = numpy.dtype("<i4", metadata={"unit": "m"})


@pytest.mark.parametrize(
    "dtype",
    [
        METADATA,
        [("a", METADATA), ("b", [("c", METADATA, (2,))])],
        numpy.dtype([("a", "u1")], metadata={1: 2}),
    ],
    ids=["plain", "of a field", "of records"],
)
def test_metadata_is_lost_without_a_warning(queue: ringpost.Queue[object], dtype: object) -> None:
    """Warnings are errors here."""
    array = numpy.zeros(2, dtype)
    queue.put(array)
    queue.put({"a": array})
    queue.put_many(array if array.dtype.names else [array])
    with queue.producer().loan(2, dtype) as lent:
        lent[...] = array
    backs = [queue.get_nowait(), queue.get_nowait()["a"]]
    while not queue.empty():
        backs.append(queue.get_nowait())
    assert all(back.dtype == array.dtype and back.dtype.metadata is None for back in backs)


def test_a_masked_array_does_not_lose_its_mask(broker: ringpost.Broker) -> None:
    masked = numpy.ma.array([1, 2], mask=[False, True])
    for item in (masked, {"inside": masked}):
        with pytest.raises(ringpost.EncodeError, match=r"mask|MaskedArray"):
            CODEC.encode(item)
    queue = broker.queue("pickled", pickle=True)
    queue.put(masked)
    assert queue.get_nowait().mask.tolist() == [False, True]


def test_the_array_may_change_after_the_put(queue: ringpost.Queue[object]) -> None:
    array = numpy.ones(10_000)
    queue.put(array)
    array[:] = 7
    assert (queue.get_nowait() == 1).all()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (numpy.int64(5), 5),
        (numpy.uint8(200), 200),
        (numpy.float32(0.5), 0.5),
        (numpy.float64(0.1), 0.1),
        (numpy.bool_(True), True),
        (numpy.str_("text"), "text"),
        (numpy.bytes_(b"octets"), b"octets"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_single_numbers_come_back_as_plain_ones(
    queue: ringpost.Queue[object], number: object, expected: object
) -> None:
    queue.put(number)
    queue.put([number])
    alone, inside = queue.get_nowait(), queue.get_nowait()
    assert (alone, inside) == (expected, [expected])
    assert type(alone) is type(inside[0]) is type(expected)


SCALARS = {
    "complex": numpy.complex128(1 + 2j),
    "half a complex": numpy.complex64(1j),
    "long double": numpy.longdouble(1) / 3,
    "long complex": numpy.clongdouble(1j),
    "day": numpy.datetime64("2024-02-29"),
    "nanosecond": numpy.datetime64("2024-02-29T12:00:00.123456789", "ns"),
    "no time": numpy.datetime64("NaT", "s"),
    "span": numpy.timedelta64(-5, "s"),
    "void": numpy.void(b"abc"),
    "record": RECORDS[0],
}


@pytest.mark.parametrize("scalar", SCALARS.values(), ids=SCALARS.keys())
def test_what_python_has_no_number_for_comes_back_as_an_array(
    queue: ringpost.Queue[object], scalar: numpy.generic
) -> None:
    queue.put([scalar, {"a": scalar}])
    first, second = queue.get_nowait()
    backs = [first, second["a"]]
    if scalar.dtype.names is None:  # a lone record comes back as a record
        queue.put(scalar)
        backs.append(queue.get_nowait())
    array = numpy.asarray(scalar)
    if scalar.dtype.char in "gG":  # some of their bytes say nothing
        assert all(back.dtype == array.dtype and back.shape == () and back == array for back in backs)
    else:
        assert all(same(back, array) for back in backs)


def test_a_record_of_objects_is_refused(queue: ringpost.Queue[object]) -> None:
    record = OBJECTS["records of objects"][0]
    for item in (record, [record]):
        with pytest.raises(ringpost.EncodeError, match="Python objects"):
            queue.put(item)


# ---- refused ------------------------------------------------------------------------------------

OBJECTS = {
    "objects": numpy.array([{}, None]),
    "records of objects": numpy.zeros(2, dtype=[("a", "i4"), ("b", object)]),
}


@pytest.mark.parametrize("array", OBJECTS.values(), ids=OBJECTS.keys())
def test_objects_are_refused(queue: ringpost.Queue[object], array: numpy.ndarray) -> None:
    for item in (array, [array]):
        with pytest.raises(ringpost.EncodeError, match=r"into queue 'jobs' of .*pickle=True on both sides"):
            queue.put(item)
    assert queue.empty()


ONE_ITEM = {
    "None": numpy.array([[None]]),
    "a dict": numpy.array([{"k": 1}], dtype=object),
    "a record": numpy.zeros((), dtype=[("a", object)]),
    "a mask": numpy.ma.array([1.5], mask=[True]),
}
if hasattr(numpy, "dtypes") and hasattr(numpy.dtypes, "StringDType"):
    ONE_ITEM["text of any length"] = numpy.array(["x"], dtype=numpy.dtypes.StringDType())


@pytest.mark.parametrize("array", ONE_ITEM.values(), ids=ONE_ITEM.keys())
def test_no_item_takes_the_place_of_its_array(broker: ringpost.Broker, array: numpy.ndarray) -> None:
    for item in (array, [array], {"a": array}):
        with pytest.raises(ringpost.EncodeError, match=r"(the items are|the mask).*pickle=True"):
            broker.queue("jobs").put(item)
        trusting = broker.queue("trusting", pickle=True)
        trusting.put(item)
        back = trusting.get_nowait()
        back = back if item is array else back[0] if isinstance(item, list) else back["a"]
        assert (type(back), back.dtype, back.tolist()) == (type(array), array.dtype, array.tolist())


PLACED_OBJECTS = [
    {"itemsize": 16, "fields": [[8, "b", "<i4"], [0, "a", description]]}
    for description in ("|O", {"itemsize": 8, "fields": [[0, "c", "|O"]]}, [["c", "|O"]])
]


@pytest.mark.filterwarnings("ignore")
def test_types_of_other_libraries_do_not_become_bytes(broker: ringpost.Broker) -> None:
    """As ml_dtypes' bfloat16, here one of numpy's own tests."""
    new = numpy.lib.NumpyVersion(numpy.__version__) >= "2.0.0"
    tests = pytest.importorskip(f"numpy.{'_core' if new else 'core'}._rational_tests")
    array = numpy.array([tests.rational(1, 2)])
    fields = numpy.zeros(1, [("a", [("b", array.dtype, (2,))])])
    queue = broker.queue("jobs")
    for item in (array, [array], array[0], [array[0]], fields, fields[0], [fields[0]]):
        with pytest.raises(ringpost.EncodeError, match="another library"):
            queue.put(item)
    for call in (lambda: queue.producer().loan(3, array.dtype), lambda: queue.put_many(fields)):
        with pytest.raises(ringpost.EncodeError, match="another library"):
            call()
    trusting = broker.queue("trusting", pickle=True)
    trusting.put(array)
    assert trusting.get_nowait().tolist() == array.tolist()


def test_a_head_cannot_ask_for_objects() -> None:
    """Eight bytes of a message taken for a pointer: the worst that a broken head could do."""
    for description in (
        "|O",
        "O",
        "object",
        [["a", "|O"]],
        [["a", [["b", "|O"]]]],
        [["a", "|O", [2]]],
        *PLACED_OBJECTS,
    ):
        with pytest.raises(ringpost.DecodeError):
            CODEC.decode(Kind.NDARRAY, body_with_head([description, [1], "C"], b"\1" * 64), 0)


def by_places(*fields: object, itemsize: object = 8) -> list[object]:
    return [{"itemsize": itemsize, "fields": fields}, [1], "C"]


BROKEN_HEADS = {
    "no fields": [{"itemsize": 8}, [1], "C"],
    "no fields of any place": by_places(),
    "no size": [{"fields": [[0, "a", "<i4"]]}, [1], "C"],
    "fields of no place": by_places(["a", "<i4"]),
    "beyond the item": by_places([5, "a", "<i4"]),
    "far beyond the item": by_places([2**31 - 1, "a", "<i4"]),
    "farther beyond the item": by_places([2**63 - 1, "a", "<i4"]),
    "before the item": by_places([-1, "a", "<i4"]),
    "an array beyond the item": by_places([4, "a", "<i4", [2]]),
    "a negative shape": by_places([4, "a", "<i4", [-1]]),
    "a place of text": by_places(["0", "a", "<i4"]),
    "half a place": by_places([0.5, "a", "<i4"]),
    "a name of another type": by_places([0, 5, "<i4"]),
    "three names": by_places([0, ["a", "b", "c"], "<i4"]),
    "two of one name": by_places([0, "a", "<i4"], [4, "a", "<i4"]),
    "larger than anything": by_places([0, "a", "<i4"], itemsize=2**63 - 1),
    "of negative size": by_places([0, "a", "|V0"], itemsize=-8),
    "nested nonsense": by_places([0, "a", {"itemsize": 4, "fields": [[0, "b", "nonsense"]]}]),
    "nothing": [],
    "a number": 5,
    "too short": ["<i4", [2]],
    "too long": ["<i4", [2], "C", 1],
    "no dtype": ["nonsense", [2], "C"],
    "dtype of another type": [5, [2], "C"],
    "no description": [None, [2], "C"],
    "fields without a type": [[["a"]], [2], "C"],
    "twice the same field": [[["a", "<i4"], ["a", "<i4"]], [1], "C"],
    "negative": ["<i4", [-2], "C"],
    "of text": ["<i4", ["2"], "C"],
    "no shape": ["<i4", None, "C"],
    "more items than there are": ["<i4", [3], "C"],
    "far more items than there are": ["<i4", [2**62], "C"],
    "a product that overflows": ["<i4", [2**32, 2**32], "C"],
    "too many dimensions": ["<i4", [1] * 65, "C"],
    "no order": ["<i4", [2], "?"],
    "an order of another type": ["<i4", [2], 7],
}


@pytest.mark.parametrize("head", BROKEN_HEADS.values(), ids=BROKEN_HEADS.keys())
def test_broken_heads(head: object) -> None:
    body = body_with_head(head, bytes(8))
    with pytest.raises(ringpost.DecodeError) as raised:
        CODEC.decode(Kind.NDARRAY, body, 9)
    assert (raised.value.payload, raised.value.codec, raised.value.sequence) == (body, "ndarray", 9)


def test_a_length_of_the_head_that_lies() -> None:
    body = bytearray(body_of(GRID))
    for length in (0, 1, 3, len(body), 2**32 - 1):
        body[:4] = length.to_bytes(4, "little")
        with pytest.raises(ringpost.DecodeError):
            CODEC.decode(Kind.NDARRAY, bytes(body), 0)


@pytest.mark.parametrize("name", ["rows", "records", "days", "nested records", "fields in another order"])
def test_bodies_cut_anywhere(name: str) -> None:
    body = body_of(ARRAYS[name])
    for end in range(len(body)):
        with pytest.raises(ringpost.DecodeError):
            CODEC.decode(Kind.NDARRAY, body[:end], 0)


@pytest.mark.parametrize("name", ["rows", "records", "days", "text", "nested, in another order"])
@pytest.mark.filterwarnings("ignore")
def test_noise_in_heads(name: str) -> None:
    """Either refused, or an array that lies within the message."""
    chance = random.Random(f"head of {name}")
    body = body_of(ARRAYS[name])
    length = 4 + int.from_bytes(body[:4], "little")
    refused = 0
    for _ in range(ROUNDS):
        noisy = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            noisy[chance.randrange(length)] = chance.randrange(256)
        try:
            array = CODEC.decode(Kind.NDARRAY, bytes(noisy), 0)
        except ringpost.DecodeError:
            refused += 1
        else:
            assert array.nbytes <= len(noisy)
            assert not array.dtype.hasobject
            array.tobytes()
    assert ROUNDS / 4 < refused < ROUNDS


def test_a_broken_array_inside_of_an_object() -> None:
    body = msgspec.msgpack.encode([msgspec.msgpack.Ext(1, body_with_head(["<i4", [99], "C"]))])
    with pytest.raises(ringpost.DecodeError) as raised:
        CODEC.decode(Kind.MSGPACK, body, 0)
    assert raised.value.codec == "msgpack"


def test_a_broken_array_in_a_queue_takes_nothing_with_it(queue: ringpost.Queue[object]) -> None:
    raw_handle(queue).put((Kind.NDARRAY, b"noise"))
    queue.put(GRID)
    with pytest.raises(ringpost.DecodeError, match="queue 'jobs'"):
        queue.get_nowait()
    assert same(queue.get_nowait(), GRID)


# ---- where numpy is missing ---------------------------------------------------------------------


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of numpy fails, as it does where it is not installed."""
    monkeypatch.setitem(sys.modules, "numpy", None)


@pytest.mark.usefixtures("no_numpy")
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside of an object"])
def test_without_numpy_the_message_says_what_to_install(
    queue: ringpost.Queue[object], monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    with monkeypatch.context() as there:
        there.setitem(sys.modules, "numpy", numpy)
        queue.put([GRID] if inside else GRID)
    with pytest.raises(
        ringpost.DecodeError, match=r"queue 'jobs'.*pip install 'ringpost\[numpy\]'"
    ) as raised:
        queue.get_nowait()
    assert GRID.tobytes() in raised.value.payload


@pytest.mark.usefixtures("no_numpy")
def test_without_numpy_calls_that_need_it_say_so(
    broker: ringpost.Broker, queue: ringpost.Queue[object]
) -> None:
    queue.put("x")
    for call in (
        lambda: queue.get_many(as_array=True),
        lambda: queue.producer().loan(3),
        lambda: broker.topic("t").loan(3),
    ):
        with pytest.raises(ImportError, match=r"numpy array: pip install 'ringpost\[numpy\]'"):
            call()
    assert queue.get_nowait() == "x"


@pytest.mark.usefixtures("no_numpy")
def test_without_numpy_everything_else_works(queue: ringpost.Queue[object]) -> None:
    items = [b"x", "é", {"a": [1]}, None]
    queue.put_many(items)
    assert queue.get_many() == items
    with pytest.raises(ringpost.EncodeError):
        queue.put(object())


# ---- DLPack -------------------------------------------------------------------------------------


class Tensor:
    """Another library's array: no buffer protocol, only DLPack."""

    def __init__(self, array: numpy.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Elsewhere(Tensor):
    def __dlpack__(self, **options: object) -> object:
        raise BufferError("this tensor is not in the memory of the CPU")


TENSORS = {name: ARRAYS[name] for name in ("f", "no dimension", "rows", "columns", "every second")}


@pytest.mark.parametrize("array", TENSORS.values(), ids=TENSORS)
def test_tensors_of_other_libraries_travel_as_arrays(
    queue: ringpost.Queue[object], array: numpy.ndarray
) -> None:
    queue.put(Tensor(array))
    queue.put({"inside": [Tensor(array)]})
    assert raw_handle(queue).peek()[0] == Kind.NDARRAY
    assert same(queue.get_nowait(), array)
    assert same(queue.get_nowait()["inside"][0], array)


@pytest.mark.parametrize("item", [Elsewhere(GRID), [Elsewhere(GRID)]], ids=["itself", "inside"])
def test_tensors_that_are_elsewhere_are_refused(queue: ringpost.Queue[object], item: object) -> None:
    with pytest.raises(ringpost.EncodeError, match=r"Elsewhere into queue 'jobs'.*not in the memory"):
        queue.put(item)
    assert queue.empty()


def test_where_pickle_is_opted_in_a_tensor_comes_back_as_one(broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs", pickle=True)
    queue.put(Tensor(GRID))
    back = queue.get_nowait()
    assert type(back) is Tensor
    assert (back.array == GRID).all()
