"""What tests of topics share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import ringpost


def bodies(subscriber: ringpost.Subscriber[Any], timeout: float = 0, acks: bool = True) -> list[Any]:
    """All that is there now, settled."""
    found = []
    while True:
        try:
            message = subscriber.receive(timeout)
        except ringpost.Empty:
            return found
        found.append(message.body)
        if acks and not message.settled:
            message.ack()


def publish_numbers(topic: ringpost.Topic, count: int, subject: str = "") -> None:
    for number in range(count):
        topic.publish(number, subject, timeout=0)


def in_child(function: Callable[[], object], signum: int = 0) -> None:
    """Call it in a forked child, which then ends, by a signal if one is given. It must not fail."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            if signum:
                os.kill(os.getpid(), signum)
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == -signum
