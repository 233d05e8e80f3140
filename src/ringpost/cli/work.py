"""run: workers for a queue, kept alive."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import click

import ringpost
from ringpost.cli.app import Context, app, pass_context

AGAIN = 1.0  # seconds before a worker that died is started again


@app.command("run")
@click.argument("queue")
@click.argument("target", metavar="MODULE:FUNCTION")
@click.option("-c", "--concurrency", default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--prefetch", default=1, show_default=True, help="Messages a worker fetches ahead.")
@click.option("--max-deliveries", type=int, help="After so many a message goes to the dead letters.")
@click.option(
    "--backoff", type=float, help="Seconds until a failed message is tried again; twice as long each time."
)
@click.option("--grace", default=30.0, show_default=True, help="Seconds that workers get to end, on SIGTERM.")
@pass_context
def run(
    context: Context,
    queue: str,
    target: str,
    concurrency: int,
    prefetch: int,
    max_deliveries: int | None,
    backoff: float | None,
    grace: float,
) -> None:
    """Call MODULE:FUNCTION with the body of each message of QUEUE, in so many processes.

    A message is acked when the function returns, and tried again when it raises. Workers that die are started
    again. SIGTERM and Ctrl-C let each finish its message; what a killed one held goes to the others.
    """
    function = _find(target)
    context.queue(queue, create=True)
    settings = {
        "prefetch": prefetch,
        "max_deliveries": max_deliveries,
        "backoff": None if backoff is None else ringpost.Backoff(initial=backoff),
    }
    _Crew(context.broker.url, queue, function, settings).keep(concurrency, grace)


def _find(target: str) -> Callable[[Any], object]:
    module, _, name = target.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(
            f"{target!r} cannot be found: {error}", param_hint="MODULE:FUNCTION"
        ) from None
    if not callable(function):
        raise click.BadParameter(f"{target!r} is not a function", param_hint="MODULE:FUNCTION")
    return function  # type: ignore[no-any-return]


class _Crew:
    """The processes of one runner; forked, so that what the module has loaded is shared."""

    def __init__(
        self, url: str, queue: str, function: Callable[[Any], object], settings: dict[str, Any]
    ) -> None:
        self._url = url
        self._queue = queue
        self._function = function
        self._settings = settings
        self._workers: set[int] = set()
        self._ending = False

    def keep(self, count: int, grace: float) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        for _ in range(count):
            self._start()
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                time.sleep(0.05)
                if self._ending and time.monotonic() > self._deadline(grace):
                    self._signal(signal.SIGKILL)
                continue
            self._workers.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            if code == 0 or self._ending:
                continue  # the queue was shut down, or we are
            click.echo(f"worker {pid} ended with {code}: another is started", err=True)
            time.sleep(AGAIN)
            self._start()

    def _deadline(self, grace: float) -> float:
        return self._asked + grace

    def _end(self, *_: object) -> None:
        self._asked = time.monotonic()
        self._ending = True
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        for pid in self._workers:
            os.kill(pid, number)

    def _start(self) -> None:
        if self._ending:
            return
        pid = os.fork()
        if pid:
            self._workers.add(pid)
            return
        code = 1
        try:
            _work(self._url, self._queue, self._function, self._settings)
            code = 0
        finally:
            os._exit(code)


def _work(url: str, name: str, function: Callable[[Any], object], settings: dict[str, Any]) -> None:
    """One worker. SIGTERM ends it between two messages."""
    broker = ringpost.connect(url)
    consumer = broker.queue(name).consumer(**settings)
    ending = busy = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True
        if not busy:
            raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner's to tell
    try:
        while not ending:
            message = consumer.receive()
            busy = True
            try:
                with message:
                    function(message.body)
            except Exception as error:
                click.echo(f"message {message.id} failed: {error!r}", err=True)
            busy = False
    except (ringpost.ShutDown, SystemExit):
        pass
    finally:
        consumer.close()
        broker.close()
