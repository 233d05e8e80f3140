"""Loan: a writable numpy array in shared memory, filled in place and sent without being copied."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ringpost._binding.contract import Loan as Room
from ringpost.codecs import Kind, array_head, beyond_raw_bytes, imported_numpy
from ringpost.errors import EncodeError, was_put

if TYPE_CHECKING:
    import numpy

    from ringpost._binding.contract import Log
    from ringpost.levels import Level

Order = Literal["C", "F"]

_WHY = "a loan is a numpy array"


@dataclass(frozen=True)
class Way:
    """How a producer or a topic gets room for a message, and sends it."""

    borrow: Callable[[int], Room]
    commit: Callable[[Room, int, int], None]  # (room, bytes of subject, of headers)
    subject: bytes
    headers: bytes


class Loan:
    """An array to be filled, then sent by commit(). Made by `Producer.loan()` and `Topic.loan()`.

    As a context manager it gives the array; it is committed at the end, and aborted when an exception
    leaves the block. If its process dies before commit() nothing is sent, and the memory is taken back.
    """

    def __init__(self, shape: int | Sequence[int], dtype: Any, order: Order, way: Way) -> None:
        numpy = imported_numpy(_WHY)
        kind = numpy.dtype(dtype)
        sizes = tuple(map(index, shape)) if isinstance(shape, Sequence) else (index(shape),)
        kind, inner = kind.subdtype or (kind, ())
        sizes += inner
        if any(each < 0 for each in sizes):
            raise ValueError(f"an array has no negative dimensions: {shape}")
        if order not in ("C", "F"):
            raise ValueError(f"'order' is 'C' or 'F', not {order!r}")
        if problem := beyond_raw_bytes(kind):
            raise EncodeError(f"cannot lend an array of dtype {kind}: {problem}")
        before = len(way.subject) + len(way.headers)
        head = way.subject + way.headers + array_head(kind, sizes, order, before)
        items = kind.itemsize
        for each in sizes:
            items *= each
        self._way = way
        self._room: Room | None = way.borrow(len(head) + items)
        buffer = self._room.buffer
        buffer[: len(head)] = head
        self._array: Any = numpy.ndarray(sizes, kind, buffer=buffer, offset=len(head), order=order)
        self._pid = os.getpid()

    @property
    def array(self) -> numpy.ndarray[Any, Any]:
        """The array, writable, with arbitrary content at first. Raises ValueError after commit() or
        abort()."""
        self._open_room()
        array: numpy.ndarray[Any, Any] = self._array
        return array

    def commit(self) -> None:
        """Send it: in a time that does not depend on its size. It is read-only from then on.

        Raises what sending raises (the loan is then still open, unless it was sent and could not be stored),
        and ValueError if it was committed or aborted before, or in a forked child.
        """
        try:
            self._way.commit(self._open_room(), len(self._way.subject), len(self._way.headers))
        except BaseException as error:
            if was_put(error):
                self._let_go()
            raise
        self._let_go()

    def abort(self) -> None:
        """Send nothing. Does nothing after commit() or abort()."""
        if self._room is not None:
            self._room.abort()
            self._let_go()

    @property
    def open(self) -> bool:
        """Neither committed nor aborted."""
        return self._room is not None

    def _open_room(self) -> Room:
        if self._room is None:
            raise ValueError("this loan was committed or aborted before")
        if self._pid != os.getpid():
            raise ValueError("this loan is its parent process's: borrow one here")
        return self._room

    def _let_go(self) -> None:
        self._array.flags.writeable = False
        self._array = self._room = None

    def __enter__(self) -> numpy.ndarray[Any, Any]:
        return self.array

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._room is None:
            return
        try:
            if error is None:
                self.commit()
        finally:
            self.abort()

    def __repr__(self) -> str:
        if self._room is None:
            return "<ringpost.Loan ended>"
        return f"<ringpost.Loan of {self._array.dtype} {self._array.shape}>"


def check_takes_arrays(log: Log | Level) -> None:
    """Raises EncodeError for a queue or topic whose messages are something else."""
    kind, _ = log.encode(imported_numpy(_WHY).zeros(0))
    if kind not in (Kind.NDARRAY, Kind.PICKLE):
        raise EncodeError(f"cannot lend an array of {log.label}: its codec= makes messages of its own")
