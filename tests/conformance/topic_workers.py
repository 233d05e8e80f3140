"""What child processes do with topics and events: importable by name, so that spawn finds it."""

from __future__ import annotations

import os
import time
from typing import Any

import ringpost
from conformance.patience import BOUND

Queue = ringpost.Queue[Any]


def take_shares(url: str, pattern: str, report: Queue) -> None:
    """Under the name "workers", until the topic is shut down."""
    with ringpost.connect(url) as broker, broker.topic("t").subscribe(pattern, name="workers") as subscriber:
        while True:
            try:
                messages = subscriber.receive_many(7, BOUND)
            except ringpost.ShutDown:
                return
            subscriber.ack_many(messages)
            report.put([message.body for message in messages], timeout=BOUND)


def publish_all(url: str, subjects: list[str], count: int) -> None:
    """Pairs [subject, number], `count` for each subject."""
    with ringpost.connect(url) as broker, broker.topic("t") as topic:
        for number in range(count):
            for subject in subjects:
                topic.publish([subject, number], subject, timeout=BOUND)


def report_all(url: str, pattern: str, report: Queue) -> None:
    """What came until the topic was shut down, in one message."""
    with ringpost.connect(url) as broker, broker.topic("t").subscribe(pattern) as subscriber:
        report.put([pattern, [message.body for message in subscriber]], timeout=BOUND)


def receive_one(url: str, report: Queue) -> None:
    with ringpost.connect(url) as broker, broker.topic("t").subscribe() as subscriber:
        report.put([os.getpid(), subscriber.receive(BOUND).body], timeout=BOUND)


def subscribe_and_hang(url: str, settings: dict[str, Any]) -> None:
    """Receives one message, and then nothing more."""
    with ringpost.connect(url) as broker, broker.topic("t").subscribe(prefetch=1, **settings) as subscriber:
        subscriber.receive(BOUND)
        time.sleep(BOUND)


# ---- events ---------------------------------------------------------------------------------------


def listen(url: str, event: str) -> None:
    """Until "end"."""
    with ringpost.connect(url) as broker, broker.events("app") as bus:
        bus.on("end", bus.stop)
        bus.on(event, lambda *_: None)
        bus.run(BOUND)


def report_until_end(url: str, pattern: str, report: Queue) -> None:
    """The names of what it heard, in one message."""
    with ringpost.connect(url) as broker, broker.events("app") as bus:
        heard: list[str] = []
        bus.on("end", lambda _: bus.stop())

        def note(event: ringpost.Event) -> None:
            heard.append(event.name)

        bus.on(pattern, note)
        report.put(None, timeout=BOUND)
        bus.run(BOUND)
        report.put([pattern, heard], timeout=BOUND)


def answer_pings(url: str) -> None:
    with ringpost.connect(url) as broker, broker.events("app") as bus:
        bus.on("end", bus.stop)
        bus.on("ping", lambda number: bus.emit("pong", number))
        bus.run(BOUND)
