"""Hash every file of Python's standard library with five processes that meet in two queues.

    producer --> [files] --> worker, worker, worker --> [digests] --> collector

Halfway, the collector kills a worker with -9. What that one held goes to the others: a worker acks a file
when its digest is sent, and not before.

Each is a program of its own, started by its own command line; all they share is the broker's name:

    python examples/hash_tree.py produce ring:NAME
    python examples/hash_tree.py work ring:NAME          (as many as you like)
    python examples/hash_tree.py collect ring:NAME

`python examples/hash_tree.py` starts them all, and leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import ringpost

WORKERS = 3
AHEAD = 64  # digests that wait for the collector, at most: it sees what the workers do as they do it
PATIENCE = 60  # seconds without any digest: something is wrong


def library_files() -> Iterator[str]:
    """Every source file of the standard library; what Python itself may rewrite meanwhile is left out."""
    for folder, subfolders, names in os.walk(sysconfig.get_path("stdlib")):
        subfolders[:] = [s for s in subfolders if s not in ("__pycache__", "site-packages")]
        for name in names:
            yield os.path.join(folder, name)


def digest_of(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def digest_queue(broker: ringpost.Broker) -> ringpost.Queue[dict[str, Any]]:
    return broker.queue("digests", maxsize=AHEAD)


# ---- the roles ----------------------------------------------------------------------------------


def produce(broker: ringpost.Broker) -> None:
    files, digests, ready = broker.queue("files"), digest_queue(broker), broker.queue("ready")
    for _ in range(WORKERS):
        ready.get(timeout=PATIENCE)  # so that starting Python is not measured
    start = time.monotonic()  # one clock for all processes
    total = files.put_many(library_files())
    files.shutdown()  # workers take what is left, then their loops end
    digests.put({"total": total, "start": start})


def work(broker: ringpost.Broker) -> None:
    files, digests = broker.queue("files"), digest_queue(broker)
    broker.queue("ready").put(os.getpid())
    for message in files.consumer(prefetch=8):
        with message:  # acked at the end; who dies before that gives it back
            path = message.body
            digests.put({"path": path, "sha256": digest_of(path), "worker": os.getpid()})


def collect(broker: ringpost.Broker) -> None:
    console = Console()
    found: dict[str, str] = {}
    workers: Counter[int] = Counter()
    total: int | None = None
    victim: int | None = None
    files, digests = broker.queue("files"), digest_queue(broker)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        bar = progress.add_task("hashing", total=None)
        while total is None or len(found) < total:
            for message in digests.get_many(timeout=PATIENCE):
                if "total" in message:
                    total, start = message["total"], message["start"]
                    progress.update(bar, total=total)
                else:
                    found[message["path"]] = message["sha256"]
                    workers[message["worker"]] += 1
            progress.update(bar, completed=len(found))
            if victim is None and total is not None and len(found) > total // 2:
                victim = kill_a_worker(files, console)
        seconds = time.monotonic() - start
    again = files.stats().consumers.redelivered
    console.print(
        f"{again} files were given to another worker, {workers.total() - len(found)} were done twice"
    )
    report(console, found, workers, seconds)


def kill_a_worker(files: ringpost.Queue[str], console: Console) -> int | None:
    """One that has work in its hands; None: nobody has, this moment."""
    held = Counter({each.pid: each.messages for each in files.stats().holdings if each.pid})
    if not held:
        return None
    pid, messages = held.most_common(1)[0]
    os.kill(pid, signal.SIGKILL)
    console.print(f"[red]kill -9 {pid}[/red]: a worker, with {messages} files in its hands")
    return pid


def report(console: Console, found: dict[str, str], workers: Counter[int], seconds: float) -> None:
    start = time.monotonic()
    expected = {path: digest_of(path) for path in library_files()}
    alone = time.monotonic() - start
    files, messages = len(found), 2 * len(found) + 1
    shares = ", ".join(f"{pid}: {count}" for pid, count in sorted(workers.items()))
    console.print(f"{len(workers)} workers     {files / seconds:8,.0f} files/s  ({shares})")
    console.print(f"one process   {files / alone:8,.0f} files/s")
    console.print(f"messages      {messages / seconds:8,.0f} messages/s on {os.cpu_count()} cores")
    if found != expected:
        wrong = sum(found.get(path) != digest for path, digest in expected.items())
        sys.exit(f"{wrong} of {len(expected)} files are missing or differ from the single process")
    console.print(f"all {files} files accounted for once, digests equal to the single process's")


# ---- all of them --------------------------------------------------------------------------------


def start(role: str, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, role, url])


def demo() -> int:
    broker = ringpost.connect(f"ring:demo-{os.getpid()}")
    collector = start("collect", broker.url)
    others = [start("work", broker.url) for _ in range(WORKERS)] + [start("produce", broker.url)]
    try:
        return collector.wait()
    finally:
        for process in [collector, *others]:
            process.kill()
            process.wait()
        broker.destroy()


def main() -> int:
    roles = {"produce": produce, "work": work, "collect": collect}
    if len(sys.argv) == 1:
        return demo()
    if len(sys.argv) != 3 or sys.argv[1] not in roles:
        sys.exit(__doc__)
    with ringpost.connect(sys.argv[2]) as broker:
        roles[sys.argv[1]](broker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
