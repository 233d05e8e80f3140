"""cloudtoid-interprocess: a byte ring in a mapped file, in Rust, for several languages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Lane, Receiver, Sender, room
from benchmarks.rivals.deep import DeepRival
from benchmarks.rivals.polling import retry_send, retry_send_many


@dataclass(frozen=True)
class _QueueLane(Lane):
    name: str
    directory: str
    capacity: int

    def sender(self, index: int) -> Sender:
        from cloudtoid_interprocess import Publisher

        publisher: Any = Publisher(self.name, self.capacity, self.directory)
        return Sender(
            retry_send(publisher.try_send), retry_send_many(publisher.try_send_batch), publisher.close
        )

    def receiver(self) -> Receiver:
        from cloudtoid_interprocess import Subscriber

        subscriber: Any = Subscriber(self.name, self.capacity, self.directory)
        return Receiver(_get(subscriber.try_receive, subscriber.receive), None, subscriber.close)


def _get(try_receive: Callable[[], bytes | None], receive: Callable[[], bytes]) -> Callable[[], bytes]:
    """What is there is taken faster by the call that does not wait, even if it takes two calls then."""

    def get() -> bytes:
        message = try_receive()
        return receive() if message is None else message

    return get


_HEADER = 16  # bytes around each message, aligned


class Cloudtoid(DeepRival):
    """Its receiver waits, its sender has to poll when the queue is full."""

    name = "cloudtoid-interprocess"
    module = "cloudtoid_interprocess"
    distribution = "cloudtoid-interprocess"
    note = "its file in memory, not on disk as by default; batches on the sending side only"
    batches = True

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        # its semaphore is named after the queue alone, for all users of the machine
        return _QueueLane(f"{directory.name}-{name}", str(directory), room(size))

    def deep_lane(self, name: str, count: int, size: int, directory: Path) -> Lane:
        return _QueueLane(f"{directory.name}-{name}", str(directory), (count + 1) * (size + _HEADER))
