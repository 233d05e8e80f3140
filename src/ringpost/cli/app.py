"""What all commands share: which broker, how to print, what an error looks like."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

import ringpost
from ringpost.cli.printing import Printer

NOTHING_THERE = 1  # exit code: the queue is empty, the name unknown
FAILED = 2


@dataclass
class Context:
    """Handed to every command."""

    broker: ringpost.Broker
    printer: Printer

    def queue(self, name: str, create: bool = False) -> ringpost.Queue[object]:
        """Raises QueueNotFound unless it may be made."""
        return self.broker.queue(name, create=create)

    def topic(self, name: str, create: bool = False) -> ringpost.Topic[object]:
        """Raises QueueNotFound unless it may be made."""
        return self.broker.topic(name, create=create)


pass_context = click.make_pass_decorator(Context)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "RINGPOST"})
@click.option("-u", "--url", help='Which broker: "ring:NAME". Default: $RINGPOST_URL, else "ring:default".')
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
@click.version_option(ringpost.__version__, prog_name="ringpost")
@click.pass_context
def app(context: click.Context, url: str | None, as_json: bool) -> None:
    """Look into queues and topics of processes on this machine, and work with them.

    The key of a sealed broker is $RINGPOST_KEY, or the first line of the file $RINGPOST_KEY_FILE.

    Exit codes: 0 done, 1 nothing there, 2 an error.

    Shell completion for bash: eval "$(_RINGPOST_COMPLETE=bash_source ringpost)"; zsh and fish likewise.
    """
    broker = context.with_resource(ringpost.connect(url))
    context.obj = Context(broker, Printer(as_json))


def run() -> None:
    """Parse the arguments, run a command, exit."""
    from ringpost.cli import bench, exchange, groups, keep, letters, look, messages, work  # noqa: F401 - they register

    try:
        app.main(standalone_mode=False, prog_name="ringpost")
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(FAILED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nothing to say to nobody
        sys.exit(0)
    except (ringpost.Empty, ringpost.QueueNotFound) as error:
        click.echo(str(error), err=True)
        sys.exit(NOTHING_THERE)
    except (
        ringpost.RingpostError,
        ringpost.Full,
        ringpost.ShutDown,
        ValueError,
        OSError,
        TimeoutError,
    ) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(FAILED)
