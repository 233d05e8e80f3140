"""iceoryx2: publish and subscribe on samples in shared memory, in Rust. Twice: polling, and with its events.

A subscriber has no call that waits. Asking again and again is the fastest; the documented way to wait is an
event beside each sample, which costs a system call on both sides.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Lane, QueueRival, Receiver, Sender, room
from benchmarks.rivals.lending import Lender, LendingLane, LendingRival, Looker
from benchmarks.rivals.polling import retry_receive
from benchmarks.rivals.topic import TopicRival

_VIEW_FROM = 64 << 10
_MOST_SAMPLES = 8192


@dataclass(frozen=True)
class _ServiceLane(Lane):
    name: str
    senders: int
    receivers: int
    size: int
    directory: str
    events: bool

    def sender(self, index: int) -> Sender:
        node = self._node()
        publisher = self._samples(node).publisher_builder().initial_max_slice_len(self.size).create()
        publish = _publish(publisher, self.size)
        if not self.events:
            return Sender(publish)
        notifier = self._events(node).notifier_builder().create()

        def put(message: bytes) -> None:
            publish(message)
            notifier.notify()

        return Sender(put)

    def receiver(self) -> Receiver:
        node = self._node()
        subscriber = self._samples(node).subscriber_builder().create()
        take = _take_view(subscriber) if self.size >= _VIEW_FROM else _take_copy(subscriber, self.size)
        if not self.events:
            return Receiver(retry_receive(take))
        listener = self._events(node).listener_builder().create()

        def get() -> Any:
            while (message := take()) is None:
                listener.blocking_wait()
            return message

        return Receiver(get)

    def _node(self) -> Any:
        """A node whose files are apart from those of all other users of iceoryx2."""
        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        config = iceoryx2.config.default()
        config.global_cfg.root_path = iceoryx2.Path.new(self.directory)
        config.global_cfg.prefix = iceoryx2.FileName.new(self._prefix)
        return iceoryx2.NodeBuilder.new().config(config).create(iceoryx2.ServiceType.Ipc)

    def _samples(self, node: Any) -> Any:
        import iceoryx2

        return (
            node.service_builder(iceoryx2.ServiceName.new(self.name))
            .publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
            .enable_safe_overflow(False)  # a full subscriber makes the publisher wait
            .subscriber_max_buffer_size(max(min(_MOST_SAMPLES, room(self.size) // self.size), 2))
            .max_publishers(self.senders)
            .max_subscribers(self.receivers)
            .max_nodes(self.senders + self.receivers)
            .open_or_create()
        )

    def _events(self, node: Any) -> Any:
        import iceoryx2

        return (
            node.service_builder(iceoryx2.ServiceName.new(self.name))
            .event()
            .max_notifiers(self.senders)
            .max_listeners(self.receivers)
            .max_nodes(self.senders + self.receivers)
            .open_or_create()
        )

    @property
    def _prefix(self) -> str:
        return f"{Path(self.directory).name}-"

    def remove(self) -> None:
        for left_over in Path("/dev/shm").glob(f"{self._prefix}*"):
            left_over.unlink(missing_ok=True)


class _LendingLane(_ServiceLane, LendingLane):
    def lender(self) -> Lender:
        publisher = self._samples(self._node()).publisher_builder().initial_max_slice_len(self.size).create()

        def send(stamp: int) -> None:
            sample = publisher.loan_slice_uninit(self.size)
            at = sample.payload_ptr
            ctypes.c_int64.from_address(at).value = stamp
            ctypes.c_int64.from_address(at + self.size - 8).value = stamp
            sample.assume_init().send()

        return Lender(send)

    def looker(self) -> Looker:
        subscriber = self._samples(self._node()).subscriber_builder().create()

        def take() -> tuple[int, int] | None:
            sample = subscriber.receive()
            if sample is None:
                return None
            at = sample.payload_ptr
            first = ctypes.c_int64.from_address(at).value
            last = ctypes.c_int64.from_address(at + self.size - 8).value
            sample.delete()
            return first, last

        return Looker(retry_receive(take))


def _publish(publisher: Any, size: int) -> Callable[[bytes], None]:
    loan, copy = publisher.loan_slice_uninit, ctypes.memmove

    def put(message: bytes) -> None:
        sample = loan(size)
        copy(sample.payload_ptr, message, size)
        sample.assume_init().send()

    return put


def _take_copy(subscriber: Any, size: int) -> Callable[[], bytes | None]:
    receive, copy = subscriber.receive, ctypes.string_at

    def take() -> bytes | None:
        sample = receive()
        if sample is None:
            return None
        message: bytes = copy(sample.payload_ptr, size)
        sample.delete()
        return message

    return take


def _take_view(subscriber: Any) -> Callable[[], memoryview | None]:
    """Not copied: the sample is given back when the next one is taken."""
    receive = subscriber.receive
    last: Any = None

    def take() -> memoryview | None:
        nonlocal last
        if last is not None:
            last.delete()
        last = receive()
        return None if last is None else last.payload().as_memory_view()

    return take


class Iceoryx2(QueueRival, TopicRival, LendingRival):
    """Fastest: the receiver polls."""

    name = "iceoryx2"
    module = "iceoryx2"
    distribution = "iceoryx2"
    note = "publish-subscribe without overflow; large messages received as views; polls"
    _with_events = False

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        return _ServiceLane(name, senders, 1, size, str(directory), self._with_events)

    def topic_lane(self, name: str, subscribers: int, size: int, directory: Path) -> Lane:
        return _ServiceLane(name, 1, subscribers, size, str(directory), self._with_events)

    def lending_lane(self, name: str, size: int, directory: Path) -> LendingLane:
        return _LendingLane(name, 1, 1, size, str(directory), False)


class Iceoryx2Events(Iceoryx2):
    """The receiver sleeps until it is told."""

    name = "iceoryx2+events"
    note = "the same with an event for each sample, so that the receiver waits instead of polling"
    _with_events = True
    lends = False  # it is the same without events
