"""connect(): which broker a URL means, and what is said about one that means none."""

from __future__ import annotations

import inspect
import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import ringpost


def test_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGPOST_URL", "ring:not-this-one")
    assert ringpost.connect("ring:shop").url == "ring:shop"


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGPOST_URL", "ring:from-environment")
    assert ringpost.connect().url == "ring:from-environment"


@pytest.mark.parametrize("value", [None, ""])
def test_the_default(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("RINGPOST_URL", raising=False)
    else:
        monkeypatch.setenv("RINGPOST_URL", value)
    assert ringpost.connect().url == "ring:default"


def test_it_makes_nothing(base: Path) -> None:
    with ringpost.connect("ring:never-used"):
        assert os.listdir(base) == []


@pytest.mark.parametrize("url", ["ring:shop", "RING:shop", "ring:sh%6Fp"])
def test_ways_to_write_one_url(url: str) -> None:
    assert ringpost.connect(url)._engine._directory == ringpost.connect("ring:shop")._engine._directory


@pytest.mark.parametrize("url", ["ring:Shop", "ring:shop%20", "ring:shop.", "ring:shop%2F", "ring:shop%3F"])
def test_urls_that_mean_another_broker(url: str) -> None:
    assert ringpost.connect(url)._engine._directory != ringpost.connect("ring:shop")._engine._directory


@pytest.mark.parametrize("url", ["ring:shop?capacity=5", "ring:shop#jobs", "ring:sh\nop"], ids=ascii)
def test_no_part_of_a_url_is_passed_over(url: str) -> None:
    """Refused, or another broker: who writes more than a name means something by it."""
    try:
        other = ringpost.connect(url)
    except (ValueError, ringpost.Unsupported):
        return
    assert other._engine._directory != ringpost.connect("ring:shop")._engine._directory


@pytest.mark.parametrize("url", ["shop", "jobs/shop", "/dev/shm/shop", ":shop", "5:shop", " "])
def test_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="is no broker URL: say ring:NAME") as raised:
        ringpost.connect(url)
    assert repr(url) in str(raised.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ring://server/shop", "ring:///absolute/directory"),
        ("ring:///shop#1", "write # as %23"),
        ("ring:///shop?color=red", "max_bytes and group, not 'color'"),
        ("ring:///shop?max_bytes=many", "a number of bytes"),
    ],
)
def test_no_directory(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        ringpost.connect(url)
    assert repr(url) in str(raised.value)


@pytest.mark.parametrize("url", ["redis://localhost", "sqlite:shop", "rings:shop", "amqp:x"])
def test_an_unknown_scheme_is_told_what_there_is(url: str) -> None:
    with pytest.raises(ringpost.Unsupported) as raised:
        ringpost.connect(url)
    text = str(raised.value)
    assert repr(url) in text
    for engine in entry_points(group="ringpost.engines"):
        assert f"{engine.name}:" in text


@pytest.mark.parametrize("url", [5, b"ring:shop", ["ring:shop"]])
def test_what_is_no_text(url: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        ringpost.connect(url)


def test_url_key_and_group_are_the_only_arguments() -> None:
    assert list(inspect.signature(ringpost.connect).parameters) == ["url", "key", "group"]
