"""A task queue with retries: functions that run some time later, in worker processes.

    @task(retries=4)
    def fetch(url): ...

    fetch.later(broker, "http://...")

Run alone, this program starts two workers, and a web server that fails every first request and does not know
one page yet. One worker is killed with -9 in the middle of a task: another one does it again. What still
fails after all retries becomes a dead letter, and is replayed once the page is there.

    python examples/task_queue.py                   all of that
    python examples/task_queue.py work ring:NAME    a worker (as many as you like)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import ringpost

PATIENCE = 60  # seconds without any result: something is wrong
BACKOFF = ringpost.Backoff(initial=0.05, factor=2, jitter=0.2)

# ---- the task queue: what a program of your own would keep -----------------------------------------


@dataclass(frozen=True)
class Task:
    """A function that workers know by its name."""

    function: Callable[..., Any]
    retries: int

    def later(self, broker: ringpost.Broker, *arguments: Any) -> str:
        """Let a worker call it; returns the id under which its result will come."""
        task_id = uuid.uuid4().hex
        call = {"task": self.function.__name__, "arguments": arguments}
        broker.queue("tasks").producer().send(call, message_id=task_id)
        return task_id


TASKS: dict[str, Task] = {}


def task(retries: int) -> Callable[[Callable[..., Any]], Task]:
    """Make a function a task that is tried again so often when it raises."""

    def register(function: Callable[..., Any]) -> Task:
        TASKS[function.__name__] = Task(function, retries)
        return TASKS[function.__name__]

    return register


def work(broker: ringpost.Broker) -> None:
    """A worker. The result goes out before the ack: a death in between repeats it, and never loses it."""
    results = broker.queue("results")
    for message in broker.queue("tasks").consumer(prefetch=1, dead_letters=True):
        called = TASKS[message.body["task"]]
        try:
            result = called.function(*message.body["arguments"])
        except Exception as error:
            if message.deliveries > called.retries:
                message.reject(f"{type(error).__name__}: {error}")
            else:
                message.nack(delay=BACKOFF.delay(message.deliveries))
        else:
            results.put({"id": message.id, "result": result, "tries": message.deliveries})
            message.ack()


# ---- tasks ---------------------------------------------------------------------------------------


@task(retries=3)
def count_words(url: str) -> dict[str, int]:
    """The three most frequent words of a page."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return dict(Counter(answer.read().decode().split()).most_common(3))


@task(retries=0)
def nap(seconds: float) -> str:
    """Long enough to be killed in."""
    time.sleep(seconds)
    return "rested"


# ---- a web server that is not to be relied on ----------------------------------------------------


class Shaky(BaseHTTPRequestHandler):
    """Answers the first request of each page with 503."""

    pages: ClassVar[dict[str, str]] = {f"/{n}": f"tea {'milk ' * n}honey " for n in range(2, 12)}
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        page = self.pages.get(self.path)
        code = 404 if page is None else 503 if self.asked[self.path] == 1 else 200
        body = (page or "").encode() if code == 200 else b""
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not a word."""


# ---- all of it -----------------------------------------------------------------------------------


def demo(broker: ringpost.Broker) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site = f"http://127.0.0.1:{server.server_port}"
    tasks, results = broker.queue("tasks"), broker.queue("results")
    workers = [start_worker(broker) for _ in range(2)]
    try:
        napping = nap.later(broker, 1.0)
        killed = kill_who_holds(tasks)
        workers.append(start_worker(broker))
        pages = [count_words.later(broker, site + path) for path in Shaky.pages]
        late = count_words.later(broker, f"{site}/late")

        done: dict[str, dict[str, Any]] = {}
        while not done.keys() >= {napping, *pages}:
            result = results.get(timeout=PATIENCE)
            done[result["id"]] = result
        print(f"kill -9 {killed}: its task was done by another worker, in try {done[napping]['tries']}")
        print(f"{len(pages)} pages counted, in {sum(done[page]['tries'] for page in pages)} tries")

        letters = tasks.dead_letters()
        wait_for(lambda: len(letters) == 1)
        ((death, letter),) = letters.peek()
        assert letter.id == late
        print(f"dead after {death.deliveries} tries: {letter.body['task']}, {death.reason}")
        Shaky.pages["/late"] = "better late than never "
        print(f"{letters.replay()} replayed:", results.get(timeout=PATIENCE)["result"])
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        server.shutdown()
        server.server_close()


def start_worker(broker: ringpost.Broker) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, __file__, "work", broker.url])


def kill_who_holds(tasks: ringpost.Queue[Any]) -> int:
    """The worker that has a task in its hands."""
    wait_for(lambda: any(each.pid for each in tasks.stats().holdings))
    pid = tasks.stats().holdings[0].pid
    os.kill(pid, signal.SIGKILL)
    return pid


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("this takes too long: something is wrong")
        time.sleep(0.01)


def main() -> None:
    if sys.argv[1:2] == ["work"]:
        with ringpost.connect(sys.argv[2]) as broker:
            work(broker)
    elif len(sys.argv) == 1:
        with ringpost.connect(f"ring:tasks-{os.getpid()}") as broker:
            try:
                demo(broker)
            finally:
                broker.destroy()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
