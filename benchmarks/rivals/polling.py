"""Waiting for rivals that do not wait by themselves: ask again and again.

Yielding the processor between two tries costs little when there is a core for everybody, and lets the other
side run when there is not. The price is a core that is busy while nothing happens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import sched_yield
from typing import Any


def retry_send(try_send: Callable[[bytes], bool]) -> Callable[[bytes], None]:
    """A put that waits while `try_send` says False."""

    def put(message: bytes) -> None:
        while not try_send(message):
            sched_yield()

    return put


def retry_send_many(try_send_many: Callable[[list[bytes]], int]) -> Callable[[list[bytes]], None]:
    """A put_many that waits while `try_send_many` takes fewer than it was given."""

    def put_many(messages: list[bytes]) -> None:
        sent = try_send_many(messages)
        while sent < len(messages):
            sched_yield()
            sent += try_send_many(messages[sent:])

    return put_many


def retry_receive(try_receive: Callable[[], Any]) -> Callable[[], Any]:
    """A get that waits while `try_receive` returns None."""

    def get() -> Any:
        while (message := try_receive()) is None:
            sched_yield()
        return message

    return get


def retry_receive_many(
    try_receive_many: Callable[[int], Sequence[bytes]],
) -> Callable[[int], Sequence[bytes]]:
    """A get_many that waits while `try_receive_many` returns nothing."""

    def get_many(limit: int) -> Sequence[bytes]:
        while not (messages := try_receive_many(limit)):
            sched_yield()
        return messages

    return get_many


def retry_call(attempt: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A call that waits while `attempt` returns None."""

    def call(argument: bytes) -> Any:
        while (answer := attempt(argument)) is None:
            sched_yield()
        return answer

    return call
