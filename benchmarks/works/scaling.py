"""Works in families: the same work again and again, with one number that grows. They are for charts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.messages import SMALL
from benchmarks.rivals.base import Rival, SendingLane
from benchmarks.rivals.deep import DeepRival
from benchmarks.rivals.shared import SharedRival
from benchmarks.works.backlog import DrainEach, FillEach
from benchmarks.works.base import Metric, Run, Work
from benchmarks.works.fan_out import FanOut
from benchmarks.works.pace import paced
from benchmarks.works.receivers import GetEach, GetEachFromMany, GetLarge
from benchmarks.works.sharing import GetShare, PutWithEnds, check_shares
from benchmarks.works.stream import Stream

_MOST = 3  # repetitions of each
_LARGE_FROM = 64 << 10  # bytes: looked at by page, as `large` is
_BYTES_OF_ONE = 200  # of memory for each message of a backlog, in the rival that needs most
_LONG_BACKLOG = 1_000_000
_DRAIN_SECONDS = 60.0  # to fill and drain a long backlog: who takes longer has no number


class MessageSize(Stream):
    """Where calls stop to matter and copies begin."""

    family = "size"
    most_repetitions = _MOST

    def __init__(self, size: int) -> None:
        self.size = self.place = size
        self.name = f"size-{size}"
        self.title = f"1 producer to 1 consumer, messages of {size:,} bytes, one a call"
        self.receiving = GetLarge if size >= _LARGE_FROM else GetEach
        self.step = max(8, min(256, (1 << 20) // size))


class Producers(Stream):
    """How much producers get into each other's way."""

    family = "producers"
    most_repetitions = _MOST
    receiving = GetEachFromMany

    def __init__(self, senders: int) -> None:
        self.senders = self.place = senders
        self.name = f"producers-{senders}"
        self.title = f"{senders} producers to 1 consumer, {SMALL}-byte messages, one a call"


class Consumers(Stream):
    """How much consumers get into each other's way: each message goes to one of them."""

    family = "consumers"
    most_repetitions = _MOST
    needs = SharedRival

    def __init__(self, receivers: int) -> None:
        self.receivers = self.place = receivers
        self.name = f"consumers-{receivers}"
        self.title = f"1 producer to {receivers} consumers that share, {SMALL}-byte messages, one a call"

    @property
    def processes(self) -> int:
        return self.receivers + 1

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        share = (GetShare, (lanes[0], self.size))
        return [share] * self.receivers + [(PutWithEnds, (lanes[0], self.size, self.receivers))]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        def elapsed(count: int) -> float:
            *shares, began = run(count)
            check_shares(shares, count)
            return float(max(ended for ended, _ in shares) - began) / 1e9

        count = paced(elapsed, seconds, self.step)
        return {"rate": count / elapsed(count)}


class Subscribers(FanOut):
    """What each further subscriber costs: each gets all messages."""

    family = "subscribers"
    most_repetitions = _MOST

    def __init__(self, subscribers: int) -> None:
        super().__init__(subscribers)
        self.place = subscribers
        self.name = f"subscribers-{subscribers}"


class Backlog(Work):
    """Whether a long queue is a slow queue: so many are put, and only then taken."""

    family = "backlog"
    most_repetitions = _MOST
    needs = DeepRival
    metrics = (
        Metric("rate", "msg/s", higher_is_better=True),
        Metric("put", "msg/s", higher_is_better=True),
    )

    def __init__(self, count: int) -> None:
        self.count = self.place = count
        self.name = f"backlog-{count}"
        self.title = f"taken one a call from a queue in which {count:,} {SMALL}-byte messages wait"
        if count >= _LONG_BACKLOG:
            self.most_repetitions = 1
            self.patience = _DRAIN_SECONDS

    def lacking(self) -> str | None:
        """Memory: a machine that begins to swap measures its disk."""
        wanted, free = 2 * self.count * _BYTES_OF_ONE, _free_memory()
        return None if wanted < free else f"not enough memory: {wanted >> 20} MiB wanted, {free >> 20} free"

    def fits(self, rival: Rival) -> bool:
        return isinstance(rival, DeepRival)

    def lane(self, rival: Any, name: str, directory: Path) -> SendingLane:
        lane: SendingLane = rival.deep_lane(name, self.count, self.size, directory)
        return lane

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        return [(DrainEach, (lanes[0], self.size)), (FillEach, (lanes[0], self.size))]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        put = taken = 0.0
        rounds = 0
        if self.count < _LONG_BACKLOG:
            self._round(run)  # the first one touches the memory
        while rounds == 0 or (put + taken < seconds and self.count < _LONG_BACKLOG):
            putting, taking = self._round(run)
            put, taken, rounds = put + putting, taken + taking, rounds + 1
        return {"rate": rounds * self.count / taken, "put": rounds * self.count / put}

    def _round(self, run: Run) -> tuple[float, float]:
        """Seconds to put all, and to take all."""
        _, putting = run(self.count)
        taking, _ = run(-self.count)
        return putting / 1e9, taking / 1e9


def _free_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


SCALING: tuple[Work, ...] = (
    *(MessageSize(size) for size in (8, 64, 512, 4 << 10, 32 << 10, 256 << 10, 2 << 20, 16 << 20)),
    *(Producers(count) for count in (1, 2, 4, 8, 16)),
    *(Consumers(count) for count in (1, 2, 4, 8, 16)),
    *(Subscribers(count) for count in (1, 2, 4, 8, 16)),
    *(Backlog(count) for count in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)),
)
