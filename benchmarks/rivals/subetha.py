"""subetha-ipc: lock-free rings of 64-byte slots in mapped files, in Rust.

Twice: polling, and with its Condvar. Its Channel waits by itself, but carries at most 52 bytes; no queue of
it that holds 64 has a call that waits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals.base import Lane, QueueRival, Receiver, Sender, room
from benchmarks.rivals.polling import (
    retry_call,
    retry_receive,
    retry_receive_many,
    retry_send,
    retry_send_many,
)

_SLOT = 64
_SLOTS = 16384  # one MiB: larger rings do not stay in the cache


@dataclass(frozen=True)
class _Lane(Lane):
    path: str
    senders: int
    size: int
    condvar: bool

    @abstractmethod
    def create(self) -> None:
        """Make the files."""

    @abstractmethod
    def _putting(self, index: int) -> Sender:
        """An end that polls while the queue is full."""

    @abstractmethod
    def _taking(self) -> Receiver:
        """An end that returns None, or no messages, while the queue is empty."""

    def sender(self, index: int) -> Sender:
        end = self._putting(index)
        if not self.condvar:
            return end
        notify = self._open_condvar().notify_one
        many = None if end.put_many is None else _then(end.put_many, notify)
        return Sender(_then(end.put, notify), many)

    def receiver(self) -> Receiver:
        end = self._taking()
        if not self.condvar:
            many = None if end.get_many is None else retry_receive_many(end.get_many)
            return Receiver(retry_receive(end.get), many)
        wait_for = self._open_condvar().wait_for
        many = None if end.get_many is None else _waiting(end.get_many, wait_for)
        return Receiver(_waiting(end.get, wait_for), many)

    def _open_condvar(self) -> Any:
        import subetha

        return subetha.Condvar.open(f"{self.path}.condvar")

    def create_condvar(self) -> None:
        """Make its file."""
        import subetha

        subetha.Condvar(f"{self.path}.condvar")


class _SlotsLane(_Lane):
    """Messages that fit into a slot: a ring for each sender, drained by one consumer."""

    def create(self) -> None:
        import subetha

        subetha.mpsc_pool(self.path, self.senders, _SLOTS)

    def _putting(self, index: int) -> Sender:
        producer = self._open()[0][index]
        return Sender(retry_send(producer.push), retry_send_many(producer.push_many))

    def _taking(self) -> Receiver:
        consumer = self._open()[1]
        return Receiver(consumer.pop, consumer.pop_many)

    def _open(self) -> Any:
        import subetha

        return subetha.mpsc_pool_open(self.path, self.senders, _SLOTS)


class _BlocksLane(_Lane):
    """Messages that do not: blocks of a pool, whose numbers go through a ring."""

    def create(self) -> None:
        import subetha

        subetha.SpscRing(self.path, _SLOTS)
        subetha.FrameRegion(f"{self.path}.blocks", self.size, room(self.size) // self.size)

    def _putting(self, index: int) -> Sender:
        numbers, blocks = self._open()
        push, write = retry_send(numbers.push), retry_call(blocks.write_new)
        return Sender(lambda message: push(write(message).to_bytes(4, "little")))

    def _taking(self) -> Receiver:
        numbers, blocks = self._open()
        pop, take, size = numbers.pop, blocks.take_block, self.size

        def try_get() -> bytes | None:
            number = pop()
            return None if number is None else take(int.from_bytes(number, "little"), size)

        return Receiver(try_get)

    def _open(self) -> tuple[Any, Any]:
        import subetha

        blocks = subetha.FrameRegion.open(f"{self.path}.blocks", self.size, room(self.size) // self.size)
        return subetha.SpscRing.open(self.path, _SLOTS), blocks


def _then(put: Callable[[Any], Any], notify: Callable[[], Any]) -> Callable[[Any], None]:
    def put_and_notify(what: Any) -> None:
        put(what)
        notify()

    return put_and_notify


def _waiting(try_get: Callable[..., Any], wait_for: Callable[..., bool]) -> Callable[..., Any]:
    def get(*limit: int) -> Any:
        got = try_get(*limit)

        def arrived() -> bool:
            nonlocal got
            got = try_get(*limit)
            return bool(got)

        if not got:
            wait_for(arrived)
        return got

    return get


class SubEtha(QueueRival):
    """Fastest: the receiver polls."""

    name = "subetha-ipc"
    module = "subetha"
    distribution = "subetha-ipc"
    note = "mpsc_pool; messages that are not of 64 bytes through a FrameRegion; polls"
    batches = True
    _condvar = False

    def lane(self, name: str, senders: int, size: int, directory: Path) -> Lane:
        kind = _SlotsLane if size == _SLOT else _BlocksLane
        lane = kind(str(directory / name), senders, size, self._condvar)
        lane.create()
        if self._condvar:
            lane.create_condvar()
        return lane


class SubEthaCondvar(SubEtha):
    """The receiver sleeps until it is told."""

    name = "subetha-ipc+condvar"
    note = "the same with its Condvar, so that the receiver waits instead of polling"
    _condvar = True
