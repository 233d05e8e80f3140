"""export and import: a queue's messages in a file, as JSON lines or as Parquet.

Both have the same names. `body` is what was sent, where JSON can say it exactly; else `payload` is its bytes
(base64 in JSON) and `kind` says what they are, so that an array, a pickle or bytes come back as they were.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import click
import msgspec

import ringpost
from ringpost.cli.app import Context, app, pass_context
from ringpost.cli.looking import look_at
from ringpost.codecs import Kind
from ringpost.envelope import Envelope, seal, unseal

ALL = 1 << 60
ROWS = 1000  # of a group in a Parquet file
PARQUET = ".parquet"


class Record(msgspec.Struct, omit_defaults=True):
    """A line, or a row."""

    sequence: int | None = None
    timestamp: datetime | None = None
    body: msgspec.Raw = msgspec.Raw()
    kind: str | None = None
    payload: bytes | None = None
    subject: str | None = None
    ttl: float | None = None
    headers: dict[str, Any] | None = None
    key: str | None = None
    priority: int | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    content_type: str | None = None


@app.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False), default="-")
@pass_context
def export(context: Context, name: str, file: str) -> None:
    """Write what is ready in a queue to FILE: as JSON lines, or as Parquet if it is a .parquet. It stays."""
    queue, done = context.queue(name), 0
    with ExitStack() as stack:
        target: _Lines | _ParquetFile = _ParquetFile(file) if _is_parquet(file) else _Lines(file)
        write = stack.enter_context(target)
        advance = stack.enter_context(context.printer.progress("exporting", queue.qsize()))
        with closing(look_at(queue, ALL)) as messages:
            for message in messages:
                write(_record(message))
                done += 1
                advance(1)
    click.echo(f"{done} exported", err=True)


@app.command("import")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), default="-")
@pass_context
def import_(context: Context, name: str, file: str) -> None:
    """Put into a queue what `export` wrote."""
    queue, done = context.queue(name, create=True), 0
    with context.printer.progress("importing", None) as advance:
        for record in _read_parquet(file) if _is_parquet(file) else _read_lines(file):
            _send(queue, record)
            done += 1
            advance(1)
    click.echo(f"{done} imported", err=True)


def _is_parquet(file: str) -> bool:
    return Path(file).suffix == PARQUET


# ---- a message, and its record ------------------------------------------------------------------


def _record(message: ringpost.Message[Any]) -> Record:
    said = unseal(message.raw_headers)
    record = Record(
        sequence=message.sequence,
        timestamp=message.timestamp,
        subject=message.subject or None,
        ttl=message.ttl_ms / 1000 if message.ttl_ms else None,
        headers=said.headers,
        key=said.key,
        priority=said.priority or None,
        message_id=said.message_id,
        correlation_id=said.correlation_id,
        reply_to=said.reply_to,
        content_type=said.content_type,
    )
    exact = _as_json(message.kind, message.payload)
    if exact is None:
        record.kind, record.payload = _name_of(message.kind), bytes(message.payload)
    else:
        record.body = msgspec.Raw(exact)
    return record


def _as_json(kind: int, payload: bytes) -> bytes | None:
    """None: JSON cannot say this, or not exactly."""
    try:
        if kind == Kind.TEXT:
            return msgspec.json.encode(bytes(payload).decode())
        if kind == Kind.MSGPACK:
            body = msgspec.msgpack.decode(payload)
            said = msgspec.json.encode(body)
            return said if msgspec.msgpack.encode(msgspec.json.decode(said)) == bytes(payload) else None
    except (msgspec.MsgspecError, TypeError, ValueError):
        pass
    return None


def _name_of(kind: int) -> str:
    return Kind(kind).name.lower() if kind in Kind._value2member_map_ else str(kind)


def _send(queue: ringpost.Queue[Any], record: Record) -> None:
    if record.payload is not None and record.kind is not None:
        kind, payload = _kind_of(record.kind), record.payload
    elif bytes(record.body):
        body = msgspec.json.decode(record.body)
        if isinstance(body, str):
            kind, payload = int(Kind.TEXT), body.encode()
        else:
            kind, payload = int(Kind.MSGPACK), msgspec.msgpack.encode(body)
    else:
        raise click.ClickException(f"a record has neither a body nor kind and payload: {record}")
    headers = seal(
        Envelope(
            headers=record.headers,
            message_id=record.message_id,
            correlation_id=record.correlation_id,
            reply_to=record.reply_to,
            content_type=record.content_type,
            key=record.key,
        )
    )
    subject = record.subject.encode() if record.subject else None
    queue._log.send_raw(kind, payload, subject, headers, int((record.ttl or 0) * 1000))


def _kind_of(name: str) -> int:
    if name.isdigit():
        return int(name)
    try:
        return int(Kind[name.upper()])
    except KeyError:
        raise click.ClickException(f"this ringpost knows no messages of kind {name!r}") from None


# ---- JSON lines ---------------------------------------------------------------------------------


class _Lines:
    def __init__(self, path: str) -> None:
        self._file: IO[bytes] = sys.stdout.buffer if path == "-" else open(path, "wb")  # noqa: SIM115 - in __exit__

    def __call__(self, record: Record) -> None:
        self._file.write(msgspec.json.encode(record) + b"\n")

    def __enter__(self) -> Callable[[Record], None]:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.flush()
        if self._file is not sys.stdout.buffer:
            self._file.close()


def _read_lines(path: str) -> Iterator[Record]:
    decode = msgspec.json.Decoder(Record).decode
    with ExitStack() as stack:
        file = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
        for number, line in enumerate(file, 1):
            try:
                yield decode(line)
            except msgspec.MsgspecError as error:
                raise click.ClickException(f"{path}, line {number}: {error}") from None


# ---- Parquet ------------------------------------------------------------------------------------


def _parquet() -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise click.ClickException("Parquet needs pyarrow: pip install 'ringpost[parquet]'") from None


class _ParquetFile:
    """`headers` and `body` are JSON in columns of text."""

    def __init__(self, path: str) -> None:
        self._arrow = arrow = _parquet()
        text, number = arrow.string(), arrow.int64()
        types = {
            "sequence": number,
            "timestamp": arrow.timestamp("ns", "UTC"),
            "payload": arrow.binary(),
            "ttl": arrow.float64(),
            "priority": number,
        }
        names = Record.__struct_fields__
        self._schema = arrow.schema([(name, types.get(name, text)) for name in names])
        self._writer = arrow.parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def __call__(self, record: Record) -> None:
        row = {name: getattr(record, name) for name in record.__struct_fields__}
        row["body"] = bytes(record.body).decode() or None
        row["headers"] = None if record.headers is None else msgspec.json.encode(record.headers).decode()
        self._rows.append(row)
        if len(self._rows) == ROWS:
            self._write()

    def _write(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._schema))
            self._rows.clear()

    def __enter__(self) -> Callable[[Record], None]:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._write()
        self._writer.close()


def _read_parquet(path: str) -> Iterator[Record]:
    known = set(Record.__struct_fields__)
    with _parquet().parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS):
            for row in batch.to_pylist():
                told = {name: value for name, value in row.items() if value is not None and name in known}
                if "body" in told:
                    told["body"] = msgspec.Raw(told["body"].encode())
                if "headers" in told:
                    told["headers"] = msgspec.json.decode(told["headers"])
                yield Record(**told)
