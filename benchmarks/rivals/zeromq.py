"""pyzmq: PUSH and PULL over a Unix domain socket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Lane, Receiver, Rival, Sender

_COPY_BELOW = 64 << 10  # what pyzmq calls its copy threshold: above it, not copying is faster
_MOST_WAITING = 100_000  # its default of 1000 makes small messages slower


@dataclass(frozen=True)
class _SocketLane(Lane):
    address: str
    size: int

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
            socket.set_hwm(_MOST_WAITING)
        return context, socket


class ZeroMQ(Rival):
    """A messaging library that also reaches other machines."""

    name = "pyzmq"
    module = "zmq"
    distribution = "pyzmq"
    note = "PUSH/PULL over ipc://; large messages with copy=False; multipart is no batch, and slower"

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        return _SocketLane(f"ipc://{directory / name}", size)
