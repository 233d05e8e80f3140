"""Arrays that are not copied: what it takes to get room and to hand them over, whatever their size."""

from __future__ import annotations

import time
from array import array
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.messages import Corrupt
from benchmarks.peer import wait_until
from benchmarks.rivals.lending import LendingLane, LendingRival, RecordLane, RecordRival
from benchmarks.works.base import Metric, Run, Work
from benchmarks.works.pace import paced

_PAUSE = 0.0005  # seconds between two arrays: the other side has had the one before
_MIB = 1 << 20
RECORD = [("time", "<i8"), ("price", "<f8"), ("size", "<f8"), ("id", "<u8")]
_AT_ONCE = 1 << 16


class _Lend:
    """Reports how long each took, in ns: the first one, which maps the memory, too."""

    def __init__(self, lane: LendingLane) -> None:
        self._lender = lane.lender()
        self.close = self._lender.close

    def run(self, count: int, start_at: int) -> array[int]:
        send, now, took = self._lender.send, time.monotonic_ns, array("q")
        wait_until(start_at)
        for _ in range(count):
            time.sleep(_PAUSE)
            began = now()
            send(began)
            took.append(now() - began)
        return took


class _Look:
    """Reports how long each was on its way, in ns, from before its room was asked for until it was looked
    at."""

    def __init__(self, lane: LendingLane) -> None:
        self._looker = lane.looker()
        self.close = self._looker.close

    def run(self, count: int, start_at: int) -> array[int]:
        look, now, took = self._looker.look, time.monotonic_ns, array("q")
        last = 0
        for _ in range(count):
            first, end = look()
            took.append(now() - first)
            if first != end or first <= last:
                raise Corrupt(f"stamps {first} and {end} after {last}")
            last = first
        return took


class Lending(Work):
    """One array at a time."""

    needs = LendingRival
    metrics = (
        Metric("sent", "us", higher_is_better=False),
        Metric("seen", "us", higher_is_better=False),
    )

    def __init__(self, mebibytes: int) -> None:
        self.size = mebibytes * _MIB
        self.name = f"loan-{mebibytes}"
        self.title = f"an array of {mebibytes} MiB, lent, sent and looked at in place (medians)"

    def fits(self, rival: Any) -> bool:
        return bool(rival.lends)

    def lane(self, rival: Any, name: str, directory: Path) -> Any:
        return rival.lending_lane(name, self.size, directory)

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        return [(_Look, (lanes[0],)), (_Lend, (lanes[0],))]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        run(10)
        seen, sent = run(max(int(seconds / _PAUSE / 2), 20))
        return {"sent": median(sent) / 1e3, "seen": median(seen) / 1e3}


def _records() -> Any:
    import numpy

    made = numpy.zeros(_AT_ONCE, RECORD)
    made["id"] = numpy.arange(_AT_ONCE)
    return made


class _PutRecords:
    def __init__(self, lane: RecordLane) -> None:
        self._sender = lane.record_sender()
        self._records = _records()
        self.close = self._sender.close

    def run(self, count: int, start_at: int) -> int:
        put, records = self._sender.put, self._records
        wait_until(start_at)
        began = time.monotonic_ns()
        for _ in range(count // _AT_ONCE):
            put(records)
        return began


class _GetRecords:
    """Looks at the ends of each batch: all of it would take longer than it is on its way."""

    def __init__(self, lane: RecordLane) -> None:
        self._receiver = lane.record_receiver()
        self.close = self._receiver.close

    def run(self, count: int, start_at: int) -> int:
        get, got = self._receiver.get, 0
        while got < count:
            ids = get()["id"]
            if ids[0] != got % _AT_ONCE or ids[-1] != (got + len(ids) - 1) % _AT_ONCE:
                raise Corrupt(f"records {ids[0]} to {ids[-1]} after {got}")
            got += len(ids)
        return time.monotonic_ns()


class Records(Work):
    """At the speed of memory."""

    name = "records"
    title = "1 producer to 1 consumer, records of 32 bytes in structured arrays"
    needs = RecordRival
    metrics = (Metric("rate", "msg/s", higher_is_better=True),)

    def lane(self, rival: Any, name: str, directory: Path) -> Any:
        return rival.record_lane(name, RECORD, directory)

    def parts(self, lanes: list[Any]) -> list[tuple[Any, tuple[Any, ...]]]:
        return [(_GetRecords, (lanes[0],)), (_PutRecords, (lanes[0],))]

    def measure(self, run: Run, seconds: float) -> dict[str, float]:
        def elapsed(count: int) -> float:
            ended, began = run(count)
            return float(ended - began) / 1e9

        count = paced(elapsed, seconds, _AT_ONCE)
        return {"rate": count / elapsed(count)}
