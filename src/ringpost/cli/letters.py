"""Dead letters: list, show, replay, drop."""

from __future__ import annotations

import click

import ringpost
from ringpost.cli.app import Context, app, pass_context
from ringpost.cli.printing import body_text, describe


@app.group("dead-letters")
def dead_letters() -> None:
    """What could not be handled, and the way back."""


def _of(context: Context, name: str) -> ringpost.DeadLetters:
    context.queue(name + ".dead")  # raises where there are none
    return context.queue(name).dead_letters()


@dead_letters.command("list")
@click.argument("name")
@click.option("-n", "--count", default=100, show_default=True, help="How many, at most.")
@pass_context
def list_(context: Context, name: str, count: int) -> None:
    """List the dead letters of queue NAME."""
    rows = [
        (letter.sequence, death.reason, death.deliveries, death.pid, death.sequence, body_text(letter)[:60])
        for death, letter in _of(context, name).peek(count)
    ]
    context.printer.rows(("number", "reason", "deliveries", "pid", "was_sequence", "body"), rows)


@dead_letters.command()
@click.argument("name")
@click.argument("number", type=int)
@pass_context
def show(context: Context, name: str, number: int) -> None:
    """Show one of them, whole; NUMBER is from `list`."""
    for _, letter in _of(context, name).peek(1024):
        if letter.sequence == number:
            context.printer.fields(describe(letter))
            return
    raise ringpost.QueueNotFound(f"queue {name!r} has no dead letter {number}")


@dead_letters.command()
@click.argument("name")
@click.option("-n", "--count", type=int, help="How many, at most.")
@pass_context
def replay(context: Context, name: str, count: int | None) -> None:
    """Put them back into the queue they came from."""
    done = _of(context, name).replay(count)
    context.printer.say(f"{done} replayed", replayed=done)


@dead_letters.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_context
def drop(context: Context, name: str, yes: bool) -> None:
    """Throw all of them away."""
    letters = _of(context, name)
    if not yes:
        click.confirm(f"Throw away {len(letters)} dead letters of {name!r}?", abort=True)
    done = 0
    with letters.queue.consumer(auto_ack=True) as consumer:
        while True:
            try:
                done += len(consumer.receive_many(1000, timeout=0))
            except (ringpost.Empty, ringpost.ShutDown):
                break
    context.printer.say(f"{done} thrown away", dropped=done)
