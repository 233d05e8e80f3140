"""Engines are found by their URLs' scheme, through an entry point; a broker asks them for everything."""

from __future__ import annotations

import importlib
import inspect
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import ringpost
from ringpost.engines import Engine, open_engine
from ringpost.engines.ring import RingEngine

TOY = '''
"""An engine that only remembers what it was asked for."""


class ToyLog:
    closed = False
    label = "a toy"

    def __init__(self):
        self.items = []

    def put(self, item, block=True, timeout=None):
        self.items.append(item)

    put_nowait = put_many = get_many = get_nowait = put

    def get(self, block=True, timeout=None):
        return self.items.pop(0)

    def close(self):
        self.closed = True


class ToyEngine:
    def __init__(self, url):
        self.url = url
        self.asked = []

    def open_log(self, kind, name, **settings):
        self.asked.append(("open_log", kind.value, name, settings))
        return ToyLog()

    def list_logs(self, kind):
        return ["listed " + kind.value]

    def delete_log(self, kind, name):
        self.asked.append(("delete_log", kind.value, name))
        return True

    def destroy(self):
        self.asked.append(("destroy",))

    def close(self):
        self.asked.append(("close",))
'''


def install(place: Path, package: str, scheme: str, target: str) -> None:
    """What pip would leave behind of a distribution that registers an engine."""
    metadata = place / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[ringpost.engines]\n{scheme} = {target}\n")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_engine.py").write_text(TOY)
    install(tmp_path, "toy_engine", "toy", "toy_engine:ToyEngine")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "toy_engine", raising=False)
    importlib.invalidate_caches()


def test_ring_is_registered_as_any_other_would_be() -> None:
    (point,) = entry_points(group="ringpost.engines", name="ring")
    assert point.load() is RingEngine
    assert type(open_engine("ring:shop")) is RingEngine


def test_ring_has_what_an_engine_has() -> None:
    wanted = {name for name in vars(Engine) if not name.startswith("_")}
    assert wanted == {
        "url",
        "open_log",
        "delete_log",
        "list_logs",
        "destroy",
        "side_store",
        "flush",
        "collect",
        "close",
    }
    for name in wanted - {"url"}:
        assert str(inspect.signature(getattr(RingEngine, name))) == str(
            inspect.signature(getattr(Engine, name))
        )
    assert RingEngine("ring:shop").url == "ring:shop"


def test_unregistered(tmp_path: Path) -> None:
    with pytest.raises(ringpost.Unsupported, match="no engine for toy:"):
        ringpost.connect("toy:x")


@pytest.mark.usefixtures("toy")
def test_an_engine_gets_its_url() -> None:
    with ringpost.connect("toy:anything?at=all#here") as broker:
        assert type(broker._engine).__name__ == "ToyEngine"
        assert broker.url == "toy:anything?at=all#here"
        assert repr(broker) == "<ringpost.Broker toy:anything?at=all#here>"


@pytest.mark.usefixtures("toy")
def test_the_scheme_is_read_in_any_case() -> None:
    assert ringpost.connect("TOY:x").url == "TOY:x"


@pytest.mark.usefixtures("toy")
def test_an_engine_is_asked_for_everything() -> None:
    with ringpost.connect("toy:x") as broker:
        queue = broker.queue("jobs", capacity=5, maxsize=6, priorities=True, create=False)
        broker.queue("defaults")
        broker.topic("news", capacity=7)
        assert broker.list() == ["listed queue"]
        assert broker.topics() == ["listed topic"]
        assert broker.delete("jobs") is True
        assert broker.delete_topic("news") is True
        broker.destroy()
    settings = {"capacity": 5, "maxsize": 6, "make_codec": None, "priorities": True, "create": False}
    settings |= {"durability": None}
    defaults = {"capacity": None, "maxsize": None, "make_codec": None, "priorities": None, "create": True}
    defaults |= {"durability": None}
    topic = {"capacity": 7, "make_codec": None, "durability": None, "retention": None, "create": True}
    assert broker._engine.asked == [
        ("open_log", "queue", "jobs", settings),
        ("open_log", "queue", "defaults", defaults),
        ("open_log", "topic", "news", topic),
        ("delete_log", "queue", "jobs"),
        ("delete_log", "topic", "news"),
        ("destroy",),
        ("close",),
    ]
    assert queue.closed


@pytest.mark.usefixtures("toy")
def test_its_queues_are_queues() -> None:
    with ringpost.connect("toy:x") as broker:
        queue = broker.queue("jobs")
        assert type(queue) is ringpost.Queue
        queue.put("item")
        assert queue.get() == "item"


@pytest.mark.usefixtures("toy")
def test_an_unknown_scheme_names_the_engine_that_was_installed() -> None:
    with pytest.raises(ringpost.Unsupported, match="toy:"):
        ringpost.connect("redis:x")


def test_nobody_can_take_rings_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_engine.py").write_text(TOY)
    install(tmp_path, "impostor", "ring", "toy_engine:ToyEngine")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    assert type(open_engine("ring:shop")) is RingEngine
