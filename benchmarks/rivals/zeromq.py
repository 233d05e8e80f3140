"""pyzmq over a Unix domain socket: PUSH and PULL, or PUB and SUB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.asynchronous import AsyncLane, AsyncReceiver, AsyncRival, AsyncSender
from benchmarks.rivals.base import Lane, Receiver, Sender
from benchmarks.rivals.deep import DeepRival
from benchmarks.rivals.topic import TopicRival

_COPY_BELOW = 64 << 10  # what pyzmq calls its copy threshold: above it, not copying is faster
_MOST_WAITING = 100_000  # its default of 1000 makes small messages slower


@dataclass(frozen=True)
class _SocketLane(Lane):
    address: str
    size: int
    most_waiting: int = _MOST_WAITING

    def sender(self, index: int) -> Sender:
        import zmq

        context, socket = self._socket(zmq.PUSH)
        socket.connect(self.address)
        if self.size >= _COPY_BELOW:
            return Sender(lambda message: socket.send(message, copy=False), close=context.destroy)
        return Sender(socket.send, close=context.destroy)

    def receiver(self) -> Receiver:
        import zmq

        context, socket = self._socket(zmq.PULL)
        socket.bind(self.address)
        if self.size >= _COPY_BELOW:
            return Receiver(lambda: socket.recv(copy=False), close=context.destroy)
        return Receiver(socket.recv, close=context.destroy)

    def _socket(self, kind: int) -> tuple[Any, Any]:
        import zmq

        context = zmq.Context()
        socket = context.socket(kind)
        if self.size < _COPY_BELOW:
            socket.set_hwm(self.most_waiting)
        return context, socket


@dataclass(frozen=True)
class _PublishLane(Lane):
    address: str
    subscribers: int

    def sender(self, index: int) -> Sender:
        import zmq

        context = zmq.Context()
        socket = context.socket(zmq.XPUB)  # PUB that sees who subscribes
        socket.set(zmq.XPUB_VERBOSE, 1)
        socket.set_hwm(0)  # none: above a mark it would drop
        socket.bind(self.address)
        for _ in range(self.subscribers):
            socket.recv()
        return Sender(socket.send, close=context.destroy)

    def receiver(self) -> Receiver:
        import zmq

        context = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.set_hwm(0)
        socket.subscribe(b"")
        socket.connect(self.address)
        return Receiver(socket.recv, close=context.destroy)


@dataclass(frozen=True)
class _AsyncLane(AsyncLane):
    address: str

    async def async_sender(self) -> AsyncSender:
        import zmq

        socket = self._socket(zmq.PUSH)
        socket.connect(self.address)
        return AsyncSender(socket.send)

    async def async_receiver(self) -> AsyncReceiver:
        import zmq

        socket = self._socket(zmq.PULL)
        socket.bind(self.address)
        return AsyncReceiver(socket.recv)

    def _socket(self, kind: int) -> Any:
        import zmq.asyncio

        socket = zmq.asyncio.Context.instance().socket(kind)
        socket.set_hwm(_MOST_WAITING)
        return socket


class ZeroMQ(DeepRival, TopicRival, AsyncRival):
    """A messaging library that also reaches other machines."""

    name = "pyzmq"
    module = "zmq"
    distribution = "pyzmq"
    note = (
        "PUSH/PULL over ipc; large messages with copy=False; multipart is no batch; PUB/SUB unbounded; "
        "asyncio: zmq.asyncio"
    )

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        return _SocketLane(f"ipc://{directory / name}", size)

    def deep_lane(self, name: str, count: int, size: int, directory: Path) -> Lane:
        return _SocketLane(f"ipc://{directory / name}", size, most_waiting=0)

    def async_lane(self, name: str, size: int, directory: Path) -> AsyncLane:
        return _AsyncLane(f"ipc://{directory / name}")

    def topic_lane(self, name: str, subscribers: int, size: int, directory: Path) -> Lane:
        return _PublishLane(f"ipc://{directory / name}", subscribers)
