"""Tables for people, JSON lines for programs."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

import ringpost

_BAR = (
    SpinnerColumn(),
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)


class Printer:
    """Decides by --json."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console()

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """The same columns for each."""
        if self.as_json:
            for row in rows:
                self.line(dict(zip(columns, row, strict=True)))
            return
        table = Table(box=None, header_style="bold")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self.console.print(table)

    def fields(self, value: Mapping[str, Any]) -> None:
        """One thing, with names."""
        if self.as_json:
            self.line(value)
            return
        for name, one in value.items():
            self.console.print(f"{name:<14} {_cell(one)}", highlight=False, markup=False)

    def message(self, message: ringpost.Message[Any], extra: Mapping[str, Any] | None = None) -> None:
        """A message: its body alone for people, all of it for programs."""
        if self.as_json:
            self.line({**describe(message), **(extra or {})})
            return
        before = f"{message.subject}  " if message.subject else ""
        click.echo(before + body_text(message))

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A bar on a terminal, gone when it is done; how far one has come is told to what this gives."""
        screen = Console(stderr=True)
        if not screen.is_terminal:
            yield lambda done: None
            return
        with Progress(*_BAR, console=screen, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda done: progress.advance(task, done)

    def line(self, value: Mapping[str, Any]) -> None:
        """A line of JSON."""
        click.echo(msgspec.json.encode(value, enc_hook=str).decode())

    def say(self, text: str, **values: Any) -> None:
        """What was done."""
        if self.as_json:
            self.line(values)
        else:
            click.echo(text)


def describe(message: ringpost.Message[Any]) -> dict[str, Any]:
    """All that a message says. What JSON cannot hold is told as {"base64": ...}."""
    found: dict[str, Any] = {
        "sequence": message.sequence,
        "id": message.id,
        "timestamp": message.timestamp.isoformat(),
        "subject": message.subject or None,
        "headers": dict(message.headers) or None,
        "key": message.key,
        "priority": message.priority or None,
        "correlation_id": message.correlation_id,
        "reply_to": message.reply_to,
        "content_type": message.content_type,
        "deliveries": message.deliveries,
        "body": _jsonable(message),
    }
    return {name: value for name, value in found.items() if value is not None or name == "body"}


def body_text(message: ringpost.Message[Any]) -> str:
    """One line, for people."""
    try:
        body = message.body
    except ringpost.DecodeError:
        return f"<{len(message.payload)} bytes that cannot be decoded here>"
    if isinstance(body, bytes):
        return body.decode("utf-8", "backslashreplace")
    if isinstance(body, str):
        return body
    try:
        return msgspec.json.encode(body).decode()
    except TypeError:
        return repr(body)


def _jsonable(message: ringpost.Message[Any]) -> Any:
    try:
        body = message.body
        if isinstance(body, bytes):
            return body.decode()
        msgspec.json.encode(body)
    except (ringpost.DecodeError, UnicodeDecodeError, TypeError, ValueError):
        return {"base64": base64.b64encode(message.payload).decode()}
    return body


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)
