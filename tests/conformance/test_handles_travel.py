"""Every kind of handle, of brokers in memory and on disk, handed to processes however they were started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ringpost
from conformance.crew import Crew, every_method
from conformance.patience import BOUND


@pytest.fixture(params=["memory", "disk"])
def shop(request: pytest.FixtureRequest, shm_dir: Path) -> Iterator[ringpost.Broker]:
    url = "ring:travel" if request.param == "memory" else f"ring://{shm_dir}/disk/travel"
    with ringpost.connect(url) as broker:
        yield broker
        broker.destroy()


def by_queue(queue: ringpost.Queue[Any], done: ringpost.Queue[Any]) -> None:
    with queue.consumer() as consumer, consumer.receive(timeout=BOUND) as message:
        done.put(message.body)


def by_broker(broker: ringpost.Broker, done: ringpost.Queue[Any]) -> None:
    by_queue(broker.queue("jobs"), done)


def by_topic(topic: ringpost.Topic[Any], done: ringpost.Queue[Any]) -> None:
    with topic.subscribe("#", name="reader") as subscriber, subscriber.receive(timeout=BOUND) as message:
        done.put(message.body)


def by_bus(bus: ringpost.EventBus, done: ringpost.Queue[Any]) -> None:
    bus.emit("ready")
    done.put("hello")


KINDS: dict[str, tuple[Callable[[ringpost.Broker], Any], Callable[..., None]]] = {
    "queue": (lambda broker: broker.queue("jobs"), by_queue),
    "broker": (lambda broker: broker, by_broker),
    "topic": (lambda broker: broker.topic("news"), by_topic),
    "events": (lambda broker: broker.events("app"), by_bus),
}


@every_method
@pytest.mark.parametrize(("open_handle", "use"), KINDS.values(), ids=KINDS)
def test_used_by_a_child(
    shop: ringpost.Broker,
    method: str,
    open_handle: Callable[[ringpost.Broker], Any],
    use: Callable[..., None],
) -> None:
    handle, done = open_handle(shop), shop.queue("done")
    shop.queue("jobs").put("hello")
    with shop.topic("news").subscribe("#", name="reader"):
        pass
    shop.topic("news").publish("hello")
    with Crew(method) as crew:
        crew.start(use, handle, done)
        assert done.get(timeout=BOUND) == "hello"


def put_some(queue: ringpost.Queue[Any], number: int) -> int:
    queue.put(number)
    return number


@every_method
def test_used_by_an_executor(shop: ringpost.Broker, method: str) -> None:
    queue = shop.queue("jobs")
    with Crew(method) as crew, ProcessPoolExecutor(2, mp_context=crew.context) as pool:
        assert list(pool.map(put_some, [queue] * 20, range(20))) == list(range(20))
    assert sorted(queue.get_nowait() for _ in range(20)) == list(range(20))
