"""Brokers on disk, and machines that reboot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ringpost

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
