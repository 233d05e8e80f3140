"""Brokers on disk, and machines that reboot."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ringpost
from ringpost.engines.durable import DurableEngine

RECORDER = Path(__file__).with_name("recorder.c")

Reboot = Callable[[], ringpost.Broker]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Of a broker."""
    return tmp_path / "shop"


@pytest.fixture
def url(place: Path) -> str:
    return f"ring://{place}"


@pytest.fixture
def durable(url: str) -> Iterator[ringpost.Broker]:
    """A broker that is not removed before the next reboot is over."""
    broker = ringpost.connect(url)
    yield broker
    broker.close()
    with ringpost.connect(url) as last:
        last.destroy()


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(RECORDER, tmp_path_factory.mktemp("recorder"))


def built(source: Path, place: Path) -> Path:
    """A library, to be loaded before the others."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build a library with")
    library = place / source.with_suffix(".so").name
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *options, "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.fixture
def reboot(durable: ringpost.Broker, url: str, shm_dir: Path) -> Iterator[Reboot]:
    """What a reboot takes away is taken away: the shared memory. The broker as it is found after it."""
    opened: list[ringpost.Broker] = [durable]

    def cut_and_connect() -> ringpost.Broker:
        opened[-1].close()
        lose_shared_memory(shm_dir)
        opened.append(ringpost.connect(url))
        return opened[-1]

    yield cut_and_connect
    for broker in opened:
        broker.close()


def lose_shared_memory(shm_dir: Path) -> None:
    for each in shm_dir.iterdir():
        shutil.rmtree(each)


@pytest.fixture
def sealed(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ringpost.Broker]:
    """As durable(), with sealing.KEY."""
    pytest.importorskip("cryptography", reason="needs cryptography: pip install 'ringpost[encryption]'")
    from durable.sealing import KEY

    monkeypatch.delenv("RINGPOST_KEY", raising=False)
    broker = ringpost.connect(url, key=KEY)
    broker.list()  # makes it
    yield broker
    broker.close()
    destroy_as_it_is(url)


def destroy_as_it_is(url: str) -> None:
    """Whatever its key is by now."""
    from ringpost.store.environment import _open_environments

    place = Path(url.removeprefix("ring://"))
    for environment in list(_open_environments.values()):
        if environment.place == place:
            engine = DurableEngine(url)
            engine._opened = environment
            engine.destroy()
