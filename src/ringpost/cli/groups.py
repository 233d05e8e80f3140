"""Groups of consumers, and subscribers: list, seek, delete."""

from __future__ import annotations

from datetime import datetime

import click

import ringpost
from ringpost.cli.app import Context, app, pass_context

COLUMNS = ("name", "pattern", "ready", "in_flight", "delivered", "acked", "lost", "pid")


@app.group()
def groups() -> None:
    """Subscribers of a topic, and their places."""


@groups.command("list")
@click.argument("topic")
@pass_context
def list_(context: Context, topic: str) -> None:
    """List the subscribers of TOPIC."""
    found = context.topic(topic).stats().subscribers
    context.printer.rows(COLUMNS, [tuple(getattr(each, name) for name in COLUMNS) for each in found])


@groups.command()
@click.argument("topic")
@click.argument("name")
@click.argument("to")
@pass_context
def seek(context: Context, topic: str, name: str, to: str) -> None:
    """Let subscriber NAME go on at TO: a sequence, or a time as 2026-11-23T10:00:00+00:00. Only forwards."""
    log = context.topic(topic)._log
    for each in log.groups():
        if each["name"] == name:
            group, _ = log.open_group(name, each["pattern"], policy=each["policy"], lossy=each["lossy"])
            if to.isdigit():
                group.seek(int(to))
            else:
                group.seek(0, int(datetime.fromisoformat(to).timestamp() * 1e9))
            context.printer.say(f"{name} goes on at {to}", name=name, to=to)
            return
    raise ringpost.QueueNotFound(f"topic {topic!r} has no subscriber {name!r}")


@groups.command()
@click.argument("topic")
@click.argument("name")
@pass_context
def delete(context: Context, topic: str, name: str) -> None:
    """Give up the place of subscriber NAME."""
    if not context.topic(topic).unsubscribe(name):
        raise ringpost.QueueNotFound(f"topic {topic!r} has no subscriber {name!r}")
    context.printer.say(f"{name} deleted", deleted=name)
