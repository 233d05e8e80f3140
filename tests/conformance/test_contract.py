"""Names and promises of a binding: _binding/contract.py."""

from __future__ import annotations

import collections
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import ringpost
from ringpost._binding import contract
from ringpost.codecs import PickleCodec
from ringpost.errors import Status

PROTOCOLS = [
    each
    for _, each in inspect.getmembers(contract, inspect.isclass)
    if getattr(each, "_is_protocol", False) and each.__module__ == contract.__name__
]


def members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


def test_every_name_is_there(binding: Any) -> None:
    for name in contract.NAMES:
        assert hasattr(binding, name), name


@pytest.mark.parametrize(
    "protocol",
    [each for each in PROTOCOLS if each.__name__ not in ("Binding", "Codec", "Storage")],
    ids=lambda p: p.__name__,
)
def test_every_class_has_its_members(binding: Any, protocol: type) -> None:
    made = getattr(binding, protocol.__name__.removeprefix("Native"))
    for name in members(protocol):
        assert hasattr(made, name), name


def test_it_names_itself(binding: Any) -> None:
    from ringpost import _binding

    assert binding.NAME in _binding._MODULES
    assert binding.layout_version() >= 1


def test_every_status_has_a_text(binding: Any) -> None:
    texts = [binding.status_text(status) for status in Status]
    assert all(texts)
    assert len(set(texts)) == len(texts)
    assert binding.status_text(9999) not in texts


@pytest.fixture
def place(shm_dir: Path) -> Path:
    place = shm_dir / "contract"
    place.mkdir(mode=0o700)
    return place


def make_log(binding: Any, path: Path, **settings: Any) -> Any:
    return binding.create(str(path), "a log", PickleCodec("a log"), **settings)


def test_a_log_is_made_once(binding: Any, place: Path) -> None:
    log = make_log(binding, place / "log", capacity=128 << 10)
    with pytest.raises(FileExistsError):
        make_log(binding, place / "log")
    again = binding.attach(str(place / "log"), "again", PickleCodec("again"))
    log.put("x")
    assert again.get() == "x"
    assert (log.path, log.label, again.label) == (str(place / "log"), "a log", "again")
    assert binding.remove(str(place / "log"))
    assert not binding.remove(str(place / "log"))
    with pytest.raises(ringpost.QueueDeleted):
        again.get()
    with pytest.raises(ringpost.QueueNotFound):
        binding.attach(str(place / "log"), "gone", PickleCodec("gone"))
    place.rmdir()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"capacity": 1}, ValueError),
        ({"capacity": 2**63}, ValueError),
        ({"capacity": -1}, OverflowError),
        ({"capacity": "big"}, TypeError),
        ({"unheard_of": 1}, TypeError),
    ],
)
def test_bad_settings_are_refused(
    binding: Any, place: Path, settings: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        make_log(binding, place / "log", **settings)
    place.rmdir()


@pytest.mark.parametrize("call", ["put", "put_many", "get_many", "join", "shutdown"])
def test_bad_arguments_are_refused(binding: Any, place: Path, call: str) -> None:
    log = make_log(binding, place / "log", capacity=128 << 10)
    bad: dict[str, list[tuple[Any, ...]]] = {
        "put": [(), ("x", True, "soon"), ("x", True, 1, "more")],
        "put_many": [(), (5,), (None,), (["x"], True, "soon")],
        "get_many": [("many",), (1, True, "soon"), ([],)],
        "join": [("soon",), (1, 2)],
        "shutdown": [(1, 2)],
    }
    for args in bad[call]:
        with pytest.raises(TypeError):
            getattr(log, call)(*args)
    log.put("still works")
    assert log.get() == "still works"
    binding.remove(log.path)
    place.rmdir()


def test_info_is_complete(binding: Any, place: Path) -> None:
    log = make_log(binding, place / "log", capacity=1 << 20, max_messages=7)
    log.put_many(["x"] * 5)
    log.get()
    log.task_done()
    info = log.info()
    assert info["max_messages"] == 7
    assert (info["next_sequence"], info["ready"], info["unfinished"]) == (5, 4, 4)
    assert info["ring_size"] + info["pool_size"] == 1 << 20
    assert info["participants"] == 1
    assert len(info["log_id"]) == 16
    assert not info["shut_down"]
    assert not info["deleted"]
    binding.remove(log.path)
    place.rmdir()


def test_a_context_manager_is_as_contextlibs(binding: Any) -> None:
    said: list[object] = []

    @binding.contextmanager
    def manager(first: int, *, second: int) -> Iterator[int]:
        """What it says."""
        try:
            yield first + second
        except KeyError:
            said.append("suppressed")
        except ValueError as error:
            raise TypeError from error
        finally:
            said.append("left")

    with manager(1, second=2) as found:
        said.append(found)
    with manager(1, second=2):
        raise KeyError
    with pytest.raises(TypeError), manager(1, second=2):
        raise ValueError
    for kind in (OSError, StopIteration, RuntimeError, KeyboardInterrupt):
        raised = kind()
        with pytest.raises(kind) as caught, manager(1, second=2):
            raise raised
        assert caught.value is raised
    assert said == [3, "left", "suppressed", *["left"] * 6]
    assert manager.__doc__ == "What it says."


@pytest.mark.parametrize("count", [0, 2])
def test_a_context_manager_yields_once(binding: Any, count: int) -> None:
    @binding.contextmanager
    def manager() -> Iterator[None]:
        yield from [None] * count

    with pytest.raises(RuntimeError), manager():
        pass


class Number(int):
    pass


def nested(depth: int) -> Any:
    return [nested(depth - 1), {"x": 1}] if depth > 1 else []


EXACT: dict[str, Any] = {
    "scalars": [None, True, 1, 2.5, "x", b"x"],
    "itself": "x",
    "keys": {None: 1, 2: {b"x": [[]]}},
    "many": [*range(100), "x", [1]],
    "deep": nested(10),
}
INEXACT: dict[str, Any] = {
    "tuple": (),
    "within": {"a": [{"b": ()}]},
    "key": {(1,): 1},
    "among many": [*range(100), Number(1)],
    "subclass": Number(1),
    "subclass of dict": collections.OrderedDict(),
    "set": [{1}],
    "bytearray": [bytearray()],
    "object": object(),
    "too deep": nested(11),
}
ENDLESS: list[Any] = []
ENDLESS.append({"again": ENDLESS})


def test_what_messagepack_gives_back_as_it_was(binding: Any) -> None:
    assert {name: binding.is_exact(item, 10) for name, item in EXACT.items()} == dict.fromkeys(EXACT, True)
    found = {name: binding.is_exact(item, 10) for name, item in (INEXACT | {"endless": ENDLESS}).items()}
    assert not any(found.values()), found
    for item in EXACT.values():
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(item)) == item
