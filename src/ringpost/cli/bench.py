"""bench: how fast ringpost is on this machine. Beside others: benchmarks/ of the repository."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import click

import ringpost
from ringpost.cli.app import Context, app, pass_context

BATCH = 256
LARGE = 1 << 20
PATIENCE = 30.0  # seconds without a message: the other process is dead
PERCENTILES = (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))

Queue = ringpost.Queue[bytes]
Row = tuple[str, str, float, str]
"""Name, what it is, value, unit."""


@app.command()
@click.option(
    "--seconds",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="For each of the five measurements.",
)
@click.option(
    "--size",
    default=64,
    show_default=True,
    type=click.IntRange(1, 1 << 20),
    help="Bytes in a message, but for the large ones.",
)
@pass_context
def bench(context: Context, seconds: float, size: int) -> None:
    """Measure this machine, with two processes and queues of their own, in a few seconds.

    A busy machine gives lower numbers; two cores should be free.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave through finally
    machine = {
        "ringpost": ringpost.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }
    if context.printer.as_json:
        context.printer.line(machine)
    else:
        click.echo(", ".join(f"{name} {value}" for name, value in machine.items()))
    with ringpost.connect(f"ring:bench-{os.getpid()}") as broker, _progress(context) as tell:
        try:
            rows = [row for measure in MEASUREMENTS for row in measure(broker, seconds, size, tell)]
        finally:
            broker.destroy()
    rounded = [
        (name, what, round(value) if value >= 1000 else value, unit) for name, what, value, unit in rows
    ]
    context.printer.rows(("name", "what", "value", "unit"), rounded)


@contextmanager
def _progress(context: Context) -> Iterator[Callable[[str], None]]:
    if context.printer.as_json or not context.printer.console.is_terminal:
        yield lambda what: None
        return
    with context.printer.console.status("measuring") as status:
        yield lambda what: status.update(what)


# ---- the measurements ---------------------------------------------------------------------------


def _one_by_one(broker: ringpost.Broker, seconds: float, size: int, tell: Callable[[str], None]) -> list[Row]:
    what = f"{size}-byte messages, one a call"
    tell(what)
    rate = _rate(broker, _put_each, _get_each, seconds, size)
    return [("1-to-1", what, rate, "msg/s")]


def _batches(broker: ringpost.Broker, seconds: float, size: int, tell: Callable[[str], None]) -> list[Row]:
    what = f"{size}-byte messages, {BATCH} a call"
    tell(what)
    rate = _rate(broker, _put_batches, _get_batches, seconds, size)
    return [("batches", what, rate, "msg/s")]


def _acked(broker: ringpost.Broker, seconds: float, size: int, tell: Callable[[str], None]) -> list[Row]:
    what = f"{size}-byte messages, put {BATCH} a call, acked one by one"
    tell(what)
    rate = _rate(broker, _put_batches, _ack_each, seconds, size)
    return [("acked", what, rate, "msg/s")]


def _large(broker: ringpost.Broker, seconds: float, size: int, tell: Callable[[str], None]) -> list[Row]:
    what = "messages of 1 MiB, one a call"
    tell(what)
    rate = _rate(broker, _put_each, _get_each, seconds, LARGE)
    return [("large", what, rate * LARGE / 1e9, "GB/s")]


def _latency(broker: ringpost.Broker, seconds: float, size: int, tell: Callable[[str], None]) -> list[Row]:
    tell("round trips")
    there, back = broker.queue("there"), broker.queue("back")
    with _process(_echo, broker.url):
        took = sorted(_round_trips(there, back, seconds, b"x" * size))
        there.shutdown()
    return [
        (
            f"latency-{name}",
            f"round trip through two queues, {name}",
            took[int(len(took) * share)] / 1e3,
            "us",
        )
        for name, share in PERCENTILES
    ]


MEASUREMENTS = (_one_by_one, _batches, _acked, _large, _latency)


def _rate(
    broker: ringpost.Broker,
    put: Callable[[Queue, float, int], None],
    take: Callable[[Queue], tuple[int, int, int]],
    seconds: float,
    size: int,
) -> float:
    """Messages a second, from the first to the last one that came."""
    queue: Queue = broker.queue("stream")
    with _process(_put, broker.url, put, seconds, size):
        first, last, taken = take(queue)
    broker.delete("stream")
    return taken / max(last - first, 1) * 1e9


@contextmanager
def _process(target: Callable[..., None], *arguments: Any) -> Iterator[None]:
    process = get_context("fork").Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield
        process.join(PATIENCE)
    finally:
        process.kill()
        process.join()


# ---- the other process --------------------------------------------------------------------------


def _put(url: str, put: Callable[[Queue, float, int], None], seconds: float, size: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with ringpost.connect(url) as broker:
        queue: Queue = broker.queue("stream")
        put(queue, seconds, size)
        queue.shutdown()


def _put_each(queue: Queue, seconds: float, size: int) -> None:
    message, put = b"x" * size, queue.put
    calls = range(1 if size >= LARGE else BATCH)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in calls:
            put(message)


def _put_batches(queue: Queue, seconds: float, size: int) -> None:
    messages = [b"x" * size] * BATCH
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        queue.put_many(messages)


def _echo(url: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with ringpost.connect(url) as broker:
        there, back = broker.queue("there"), broker.queue("back")
        try:
            while True:
                back.put(there.get())
        except ringpost.ShutDown:
            pass


# ---- this process -------------------------------------------------------------------------------


def _get_each(queue: Queue) -> tuple[int, int, int]:
    get, taken = queue.get, 0
    get(timeout=PATIENCE)
    first = time.perf_counter_ns()
    try:
        while True:
            get(timeout=PATIENCE)
            taken += 1
    except ringpost.ShutDown:
        return first, time.perf_counter_ns(), taken


def _get_batches(queue: Queue) -> tuple[int, int, int]:
    taken = 0
    queue.get(timeout=PATIENCE)
    first = time.perf_counter_ns()
    try:
        while True:
            taken += len(queue.get_many(BATCH, timeout=PATIENCE))
    except ringpost.ShutDown:
        return first, time.perf_counter_ns(), taken


def _ack_each(queue: Queue) -> tuple[int, int, int]:
    taken = 0
    with queue.consumer() as consumer:
        consumer.receive(timeout=PATIENCE).ack()
        first = time.perf_counter_ns()
        try:
            while True:
                consumer.receive(timeout=PATIENCE).ack()
                taken += 1
        except ringpost.ShutDown:
            return first, time.perf_counter_ns(), taken


def _round_trips(there: Queue, back: Queue, seconds: float, message: bytes) -> array[int]:
    put, get, now = there.put, back.get, time.perf_counter_ns
    for _ in range(BATCH):  # warm-up
        put(message)
        get(timeout=PATIENCE)
    took = array("q")
    end = now() + int(seconds * 1e9)
    while (asked := now()) < end or not took:
        put(message)
        get(timeout=PATIENCE)
        took.append(now() - asked)
    return took
