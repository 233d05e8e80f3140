"""Opening: what connect() and its like return: to be awaited, or entered with `async with`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Generic, Protocol, TypeVar


class Handle(Protocol):
    async def close(self) -> None: ...


H = TypeVar("H", bound=Handle)


class Opening(Generic[H]):
    """`handle = await opening`, or `async with opening as handle:`, which closes it."""

    def __init__(self, make: Callable[[], H]) -> None:
        self._make = make
        self._handle: H | None = None

    def __await__(self) -> Generator[None, None, H]:
        return self._make()
        yield  # nothing to wait for with this engine

    async def __aenter__(self) -> H:
        self._handle = self._make()
        return self._handle

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._handle is not None
        await self._handle.close()
