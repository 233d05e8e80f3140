"""Looking: ls, stats, top."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import click
import msgspec
from rich.live import Live
from rich.table import Table

import ringpost
from ringpost.cli.app import Context, app, pass_context

SPARKS = " ▁▂▃▄▅▆▇█"
WIDTH = 24  # of a sparkline


@app.command("ls")
@pass_context
def list_all(context: Context) -> None:
    """List queues and topics."""
    stats = context.broker.stats()
    rows: list[tuple[object, ...]] = [
        (
            "queue",
            one.name,
            one.ready,
            one.consumers.in_flight,
            one.dead_lettered,
            one.used_bytes,
            one.capacity,
        )
        for one in stats.queues
    ]
    for topic in stats.topics:
        ready = max((each.ready for each in topic.subscribers), default=0)
        in_flight = sum(each.in_flight for each in topic.subscribers)
        rows.append(("topic", topic.name, ready, in_flight, 0, topic.used_bytes, topic.capacity))
    context.printer.rows(("kind", "name", "ready", "in_flight", "dead", "used_bytes", "capacity"), rows)


@app.command()
@click.argument("name")
@click.option("--topic", is_flag=True, help="NAME is a topic.")
@pass_context
def stats(context: Context, name: str, topic: bool) -> None:
    """All numbers of a queue or a topic: groups, holders, ages."""
    if topic:
        told = msgspec.to_builtins(context.topic(name).stats())
        groups = told.pop("subscribers")
    else:
        told = msgspec.to_builtins(context.queue(name).stats())
        groups = [{**told.pop("consumers"), "name": "(its own)"}, *told.pop("groups")]
    holdings = told.pop("holdings", [])
    if context.printer.as_json:
        context.printer.line({**told, "groups": groups, "holdings": holdings})
        return
    context.printer.fields(told)
    for group in groups:
        click.echo(f"\ngroup {group.pop('name')}")
        context.printer.fields(group)
    if holdings:
        click.echo("\nin whose hands")
        context.printer.rows(list(holdings[0]), [list(each.values()) for each in holdings])


@dataclass
class _Line:
    """One queue or topic on the screen, from one look to the next."""

    seen: tuple[float, int, int] = (0.0, 0, 0)  # time, in, out
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=WIDTH))

    def look(self, now: float, put: int, acked: int) -> tuple[float, float]:
        """Messages a second, in and out, since the last look."""
        then, put_then, acked_then = self.seen
        self.seen = (now, put, acked)
        if not then or now <= then:
            return 0.0, 0.0
        rate = (put - put_then) / (now - then)
        self.rates.append(rate)
        return rate, (acked - acked_then) / (now - then)

    def sparkline(self) -> str:
        most = max(self.rates, default=0) or 1
        return "".join(SPARKS[round(rate / most * (len(SPARKS) - 1))] for rate in self.rates)


@app.command()
@click.option("--interval", default=1.0, show_default=True, help="Seconds between two looks.")
@click.option("--count", type=int, help="End after so many looks.")
@pass_context
def top(context: Context, interval: float, count: int | None) -> None:
    """Watch rates, depths, lags and ages, live."""
    lines: dict[str, _Line] = {}
    looks = 0
    with Live(console=context.printer.console, auto_refresh=False) as live:
        while count is None or looks < count:
            live.update(_screen(context.broker, lines), refresh=True)
            looks += 1
            if count is None or looks < count:
                time.sleep(interval)


def _screen(broker: ringpost.Broker, lines: dict[str, _Line]) -> Table:
    table = Table(box=None, header_style="bold", title=broker.url)
    for column in ("name", "in/s", "out/s", "ready", "in flight", "oldest", "used", "held by", "in/s lately"):
        table.add_column(column, justify="left" if column in ("name", "held by") else "right")
    stats, now = broker.stats(), time.monotonic()
    for queue in stats.queues:
        line = lines.setdefault(f"queue {queue.name}", _Line())
        rates = line.look(now, queue.sent, queue.consumers.delivered)
        holders = ", ".join(str(pid) for pid in sorted({each.pid for each in queue.holdings if each.pid}))
        own = queue.consumers
        used = queue.used_bytes / queue.capacity
        _add(table, queue.name, rates, own.ready, own.in_flight, own.oldest_age, used, holders, line)
    for topic in stats.topics:
        for each in topic.subscribers:
            line = lines.setdefault(f"topic {topic.name} {each.name}", _Line())
            rates = line.look(now, topic.published, each.delivered)
            used = topic.used_bytes / topic.capacity
            name = f"{topic.name} → {each.name}"
            _add(
                table,
                name,
                rates,
                each.ready,
                each.in_flight,
                each.oldest_age,
                used,
                str(each.pid or ""),
                line,
            )
    return table


def _add(
    table: Table,
    name: str,
    rates: tuple[float, float],
    ready: int,
    in_flight: int,
    oldest: float | None,
    used: float,
    holders: str,
    line: _Line,
) -> None:
    age = "-" if oldest is None else f"{oldest:.1f} s"
    numbers = (f"{rates[0]:,.0f}", f"{rates[1]:,.0f}", f"{ready:,}", f"{in_flight:,}", age, f"{used:.0%}")
    table.add_row(name, *numbers, holders, line.sparkline())
