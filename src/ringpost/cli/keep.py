"""Keeping house: delete, gc, backup, rotate-key, verify."""

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


@app.command()
@click.argument("directory", type=click.Path(file_okay=False))
@pass_context
def backup(context: Context, directory: str) -> None:
    """Copy a durable broker into DIRECTORY, new or empty, while it is used."""
    with context.printer.progress("copying", None):
        context.broker.backup(directory)
    context.printer.say(f"{context.broker.url} copied to {directory}", backup=directory)


@app.command("rotate-key")
@pass_context
def rotate_key(context: Context) -> None:
    """Give a sealed broker another key. The old one is $RINGPOST_KEY (or the first line of the file
    $RINGPOST_KEY_FILE), the new one $RINGPOST_NEW_KEY (or the first line of $RINGPOST_NEW_KEY_FILE).
    Processes that have it open go on."""
    from ringpost.keys import text_from_environment

    new = text_from_environment("RINGPOST_NEW_KEY")
    if new is None:
        raise click.UsageError("set RINGPOST_NEW_KEY, or RINGPOST_NEW_KEY_FILE")
    context.broker.rotate_key(new)
    context.printer.say(f"{context.broker.url} has a new key", rotated=context.broker.url)


@app.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option("--skip-damaged", is_flag=True, help="Give up messages that are damaged.")
@pass_context
def verify(context: Context, directory: str, skip_damaged: bool) -> None:
    """Look at everything that the durable broker in DIRECTORY has stored. Exit code 2: something is wrong."""
    with context.printer.progress("looking", None):
        found = ringpost.verify(directory, skip_damaged=skip_damaged)
    for each in found.queues:
        context.printer.say(
            f"{each.kind} {each.name}: {each.messages} messages, {each.bytes} bytes in {each.blocks} blocks",
            kind=each.kind,
            name=each.name,
            messages=each.messages,
            bytes=each.bytes,
            blocks=each.blocks,
        )
    for problem in found.problems:
        context.printer.say(problem, problem=problem)
    if not found.ok and not found.given_up:
        raise ringpost.StorageDamaged(f"{len(found.problems)} problems in {directory}")
