"""Logs of many processes in one file: nothing lost or doubled when the shipper is killed, nobody held up.

Applications log as always, through a logging.Handler that publishes to a topic, under "application.LEVEL".
The shipper, a named subscriber, writes batches to a file of JSON lines and acks them. It keeps its place when
it dies; each line has its message's sequence, so what was written and not yet acked is not written twice.

    python examples/log_shipping.py                        three applications, a shipper killed with -9
    python examples/log_shipping.py ship ring:NAME FILE    the shipper
    python examples/log_shipping.py alert ring:NAME        prints errors, of whichever application
    python examples/log_shipping.py application ring:NAME NAME COUNT
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import ringpost

SHIPPER = "shipper"
BATCH = 256
PATIENCE = 60  # seconds without progress: something is wrong

# ---- in each application -------------------------------------------------------------------------


class TopicHandler(logging.Handler):
    """Publishes each record. A shipper that is far behind costs records, which are counted, but no time."""

    def __init__(self, topic: ringpost.Topic[Any], application: str) -> None:
        super().__init__()
        self._topic = topic
        self._application = application
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        line = {
            "time": record.created,
            "application": self._application,
            "level": record.levelname,
            "text": self.format(record),
            "pid": record.process,
        }
        try:
            self._topic.publish(line, f"{self._application}.{record.levelname}", timeout=0)
        except ringpost.Full:
            self.dropped += 1


def application(broker: ringpost.Broker, name: str, count: int) -> None:
    handler = TopicHandler(broker.topic("logs"), name)
    log = logging.getLogger(name)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    for number in range(count):
        if number % 500 == 499:
            log.error("request %d failed", number)
        else:
            log.info("request %d served", number)
    if handler.dropped:
        sys.exit(f"{name}: {handler.dropped} records dropped")


# ---- the shipper, and the alert ------------------------------------------------------------------


def subscribe(broker: ringpost.Broker) -> ringpost.Subscriber[Any]:
    return broker.topic("logs").subscribe("#", name=SHIPPER, start="earliest")


def ship(broker: ringpost.Broker, path: Path) -> None:
    subscriber = subscribe(broker)
    with path.open("a+b") as file:
        written = sequences_in(file)  # by those before us
        while True:
            try:
                messages = subscriber.receive_many(BATCH)
            except ringpost.ShutDown:
                return
            for message in messages:
                if not (message.redelivered and message.sequence in written):
                    line = {"sequence": message.sequence, **message.body}
                    file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
            subscriber.ack_many(messages)


def sequences_in(file: Any) -> set[int]:
    """Of its whole lines; a part of a line, which a death left behind, is cut off."""
    file.seek(0)
    data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    file.truncate(len(whole))
    return {json.loads(line)["sequence"] for line in whole.splitlines()}


def alert(broker: ringpost.Broker) -> None:
    for message in broker.topic("logs").subscribe("*.ERROR", on_lag="drop-oldest"):
        print(f"ALERT {message.body['application']}: {message.body['text']}", flush=True)


# ---- all of it -----------------------------------------------------------------------------------


def demo(broker: ringpost.Broker, path: Path) -> None:
    names, count = ("shop", "stock", "mail"), 5000
    subscribe(broker).close()  # from now on nothing is lost, whoever starts when
    shipper = start("ship", broker, str(path))
    applications = [start("application", broker, name, str(count)) for name in names]
    try:
        wait_for(lambda: lines_in(path) > count // 2)
        shipper.send_signal(signal.SIGKILL)
        shipper.wait()
        print(f"kill -9 {shipper.pid}: the shipper, after {lines_in(path)} lines")
        shipper = start("ship", broker, str(path))
        if any(each.wait(PATIENCE) for each in applications):
            sys.exit("an application failed")
        broker.topic("logs").shutdown()  # the shipper writes what is left, and ends
        shipper.wait(PATIENCE)
    finally:
        for process in (shipper, *applications):
            process.kill()
            process.wait()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = Counter(line["application"] for line in lines)
    sequences = sorted(line["sequence"] for line in lines)
    if sequences != list(range(len(names) * count)) or set(told.values()) != {count}:
        sys.exit(f"lines are missing or doubled: {told}")
    errors = sum(line["level"] == "ERROR" for line in lines)
    print(f"{len(lines)} lines of {len(told)} applications, {errors} of them errors: each once")


def start(role: str, broker: ringpost.Broker, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, role, broker.url, *arguments])


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("this takes too long: something is wrong")
        time.sleep(0.001)


def main() -> None:
    match sys.argv[1:]:
        case []:
            with (
                tempfile.TemporaryDirectory() as directory,
                ringpost.connect(f"ring:logs-{os.getpid()}") as broker,
            ):
                try:
                    demo(broker, Path(directory) / "all.jsonl")
                finally:
                    broker.destroy()
        case ["ship", url, path]:
            ship(ringpost.connect(url), Path(path))
        case ["alert", url]:
            alert(ringpost.connect(url))
        case ["application", url, name, count]:
            application(ringpost.connect(url), name, int(count))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
