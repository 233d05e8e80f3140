"""Keeping house: delete, gc."""

from __future__ import annotations

import click

import ringpost
from ringpost.cli.app import Context, app, pass_context


@app.command()
@click.argument("name")
@click.option("--topic", is_flag=True, help="NAME is a topic.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def delete(context: Context, name: str, topic: bool, yes: bool) -> None:
    """Delete a queue or topic, with all that is in it."""
    if not yes:
        click.confirm(f"Delete {'topic' if topic else 'queue'} {name!r} with all that is in it?", abort=True)
    found = context.broker.delete_topic(name) if topic else context.broker.delete(name)
    if not found:
        raise ringpost.QueueNotFound(f"there is no {'topic' if topic else 'queue'} {name!r}")
    context.printer.say(f"{name} deleted", deleted=name)


@app.command()
@pass_context
def gc(context: Context) -> None:
    """Remove what dead processes have left: queues for replies, anonymous queues nobody has any more."""
    from ringpost._binding import binding
    from ringpost.engines import directory

    context.broker._engine.collect()
    done = 0
    for path in sorted((directory.root() / directory.ANONYMOUS).glob(f"*{directory.SUFFIX}")):
        done += binding.collect(str(path))
    context.printer.say(f"{done} anonymous queues removed", removed=done)
