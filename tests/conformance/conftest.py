"""Every test here runs on each binding that loads, and on both kinds of queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

import ringpost
from ringpost import _binding, anonymous

MakeQueue = Callable[..., ringpost.Queue[Any]]
Run = Callable[[Coroutine[Any, Any, Any]], Any]

LONG = 20.0  # seconds, for what does not take long


def loadable() -> list[str]:
    """Names of the bindings that were built here."""
    found = []
    for name in _binding._MODULES:
        try:
            _binding.load(name)
        except ImportError:
            continue
        found.append(name)
    return found


@pytest.fixture(params=loadable())
def binding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The binding under test, here and in child processes."""
    module = _binding.load(request.param)
    monkeypatch.setenv("RINGPOST_BINDING", request.param)
    monkeypatch.setattr("ringpost.engines.ring.binding", module)
    monkeypatch.setattr("ringpost.engines.segments.binding", module)
    monkeypatch.setattr("ringpost.anonymous.binding", module)
    return module


@pytest.fixture(params=["named", "anonymous"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(binding: Any, kind: str, broker: ringpost.Broker) -> Iterator[MakeQueue]:
    """make(maxsize=0, capacity=None): a new queue of the kind under test."""
    made: list[ringpost.Queue[Any]] = []

    def make_queue(maxsize: int = 0, *, capacity: int | None = None) -> ringpost.Queue[Any]:
        if kind == "named":
            queue = broker.queue(f"queue {len(made)}", capacity=capacity, maxsize=maxsize)
        else:
            queue = ringpost.Queue(maxsize, capacity=capacity)
        made.append(queue)
        return queue

    yield make_queue
    for queue in made:
        queue.close()
    anonymous._handed_out.clear()  # as at the end of this process


@pytest.fixture
def queue(make: MakeQueue) -> ringpost.Queue[Any]:
    return make()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, binding: Any) -> Run:
    """Run a coroutine in a fresh event loop, for a bounded time. No thread may be started for it."""
    run_in = asyncio.run if request.param == "asyncio" else pytest.importorskip("uvloop").run

    def run_it(coroutine: Coroutine[Any, Any, Any]) -> Any:
        before = threading.active_count()

        async def bounded() -> Any:
            result = await asyncio.wait_for(coroutine, LONG)
            assert threading.active_count() <= before
            return result

        return run_in(bounded())

    return run_it
