"""Loan: a writable numpy array in shared memory, filled in place and sent without being copied."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ringpost.aio.storing import Storing
from ringpost.loan import Loan as SyncLoan

if TYPE_CHECKING:
    import numpy


class Loan:
    """An array to be filled, then sent by commit(). Made by `Producer.loan()` and `Topic.loan()`.

    `async with producer.loan(...) as array:` commits it at the end, and aborts it when an exception, a
    cancellation too, leaves the block. Or `loan = await producer.loan(...)`, to commit or abort it by hand.
    """

    def __init__(
        self,
        borrow: Callable[[], SyncLoan],
        until_room: Callable[[Callable[[], Any]], Awaitable[Any]],
        timeout: float | None,
    ) -> None:
        self._borrow = borrow
        self._until_room = until_room
        self._timeout = timeout
        self._sync: SyncLoan | None = None

    async def _begin(self) -> Loan:
        storing = Storing()
        self._sync = await self._until_room(lambda: storing.attempt(self._borrow))
        return self

    def __await__(self) -> Generator[Any, None, Loan]:
        return self._begin().__await__()

    @property
    def array(self) -> numpy.ndarray[Any, Any]:
        """The array, writable, with arbitrary content at first. Raises ValueError before it was awaited, and
        after commit() or abort()."""
        return self._begun().array

    async def commit(self) -> None:
        """Send it. Raises what sending raises; the loan is then still open, but after StorageFailed."""
        loan, storing = self._begun(), Storing()
        await self._until_room(lambda: storing.attempt(loan.commit))
        await storing.wait(self._timeout)

    def abort(self) -> None:
        """Send nothing. Does nothing after commit() or abort()."""
        if self._sync is not None:
            self._sync.abort()

    @property
    def open(self) -> bool:
        """There is an array, neither committed nor aborted."""
        return self._sync is not None and self._sync.open

    def _begun(self) -> SyncLoan:
        if self._sync is None:
            raise ValueError("await this loan first, or use `async with`")
        return self._sync

    async def __aenter__(self) -> numpy.ndarray[Any, Any]:
        return (await self._begin()).array

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self.open:
            return
        try:
            if error is None:
                await self.commit()
        finally:
            self.abort()
            await asyncio.sleep(0)
