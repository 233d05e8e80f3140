"""Messages: put, get, peek, tail, purge, move."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

import ringpost
from ringpost.cli.app import Context, app, pass_context
from ringpost.cli.looking import look_at

ALL = 1 << 60


@app.command()
@click.argument("name")
@click.argument("bodies", nargs=-1)
@click.option("--file", "files", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--parse", is_flag=True, help="Bodies are JSON, not text.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE")
@click.option("--ttl", type=float, help="Seconds to live.")
@click.option("--delay", type=float, help="Seconds until it is put into the queue.")
@click.option("--priority", type=click.IntRange(0, 9), default=0)
@click.option("--topic", "subject", metavar="SUBJECT", help="NAME is a topic: publish under this subject.")
@pass_context
def put(
    context: Context,
    name: str,
    bodies: tuple[str, ...],
    files: tuple[Path, ...],
    parse: bool,
    headers: tuple[str, ...],
    ttl: float | None,
    delay: float | None,
    priority: int,
    subject: str | None,
) -> None:
    """Put BODIES, whole files, or else each line of standard input."""
    properties: dict[str, Any] = {"headers": _headers(headers), "ttl": ttl}
    if subject is None:
        producer = context.queue(name, create=True).producer()
        properties |= {"delay": delay, "priority": priority}
    done = 0
    for body in _bodies(bodies, files, parse):
        if subject is None:
            producer.send(body, **properties)
        else:
            context.topic(name, create=True).publish(body, subject, **properties)
        done += 1
    context.printer.say(f"{done} put", put=done)


def _bodies(bodies: tuple[str, ...], files: tuple[Path, ...], parse: bool) -> Iterator[object]:
    texts: Iterable[str] = bodies
    if not bodies and not files:
        texts = (line.rstrip("\n") for line in sys.stdin)
    for text in texts:
        yield msgspec.json.decode(text) if parse else text
    for file in files:
        yield msgspec.json.decode(file.read_bytes()) if parse else file.read_bytes()


def _headers(pairs: tuple[str, ...]) -> dict[str, str] | None:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--header")
    return dict(pair.split("=", 1) for pair in pairs) or None


@app.command()
@click.argument("name")
@click.option("-n", "--count", default=1, show_default=True, help="How many, at most.")
@click.option("--all", "everything", is_flag=True, help="All that is there.")
@click.option("--wait", type=float, default=0.0, help="Seconds to wait for the first one.")
@pass_context
def get(context: Context, name: str, count: int, everything: bool, wait: float) -> None:
    """Take messages and print them. Each is acked when it is printed."""
    with context.queue(name).consumer(prefetch=1) as consumer:
        for done in range(ALL if everything else count):
            try:
                message = consumer.receive(timeout=0 if done else wait)
            except ringpost.Empty:
                if done:
                    return
                raise
            with message:
                context.printer.message(message)


@app.command()
@click.argument("name")
@click.option("-n", "--count", default=10, show_default=True, help="How many, at most.")
@pass_context
def peek(context: Context, name: str, count: int) -> None:
    """Print messages, oldest first, and leave them where they are."""
    shown = 0
    for message in look_at(context.queue(name), count):
        context.printer.message(message)
        shown += 1
    if not shown:
        raise ringpost.Empty(f"queue {name!r} is empty")


@app.command()
@click.argument("name")
@click.argument("pattern", default="#")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is published from now on.")
@pass_context
def tail(context: Context, name: str, pattern: str, follow: bool) -> None:
    """Print what a topic still has, and with -f what comes. PATTERN: as "eu.*" or "#"."""
    with context.topic(name).subscribe(pattern, start="earliest", on_lag="drop-oldest") as subscriber:
        while True:
            try:
                message = subscriber.receive(timeout=None if follow else 0)
            except (ringpost.Empty, ringpost.ShutDown):
                return
            if message.lost:
                click.echo(f"... {message.lost} were overwritten ...", err=True)
            context.printer.message(message)


@app.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def purge(context: Context, name: str, yes: bool) -> None:
    """Throw away what is ready in a queue; what consumers hold stays theirs."""
    queue = context.queue(name)
    if not yes:
        click.confirm(f"Throw away {queue.qsize()} messages of {name!r}?", abort=True)
    done = 0
    with context.printer.progress("throwing away", queue.qsize()) as advance:
        while True:
            try:
                gone = len(queue.get_many(block=False))
            except (ringpost.Empty, ringpost.ShutDown):
                break
            except ringpost.DecodeError as error:
                gone = 1 + len(error.items)
            done += gone
            advance(gone)
    context.printer.say(f"{done} thrown away", purged=done)


@app.command()
@click.argument("source")
@click.argument("target")
@click.option("-n", "--count", type=int, help="How many, at most.")
@pass_context
def move(context: Context, source: str, target: str, count: int | None) -> None:
    """Move messages from one queue to another, with all they say. A kill in between may leave one in both."""
    to = context.queue(target, create=True)
    done, there = 0, context.queue(source)
    total = there.qsize() if count is None else min(count, there.qsize())
    with there.consumer(prefetch=1) as consumer, context.printer.progress("moving", total) as advance:
        while count is None or done < count:
            try:
                message = consumer.receive(timeout=0)
            except (ringpost.Empty, ringpost.ShutDown):
                break
            to._log.send_raw(
                message.kind, message.payload, message.raw_subject, message.raw_headers, message.ttl_ms
            )
            message.ack()
            done += 1
            advance(1)
    context.printer.say(f"{done} moved", moved=done)
