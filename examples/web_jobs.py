"""A web application whose slow work is done in the background, and which tells how far it is.

    POST /reports      {"rows": 100000}     202, {"id": "...", "state": "waiting"}
    GET  /reports/ID                        {"id": "...", "state": "done", "total": ...}

The web server only puts a job into a queue, and answers at once. Workers are processes of their own; they
publish each report's state as a retained value of a topic. So any number of web servers know all states, one
that is started later too, and no database is polled.

    python examples/web_jobs.py serve ring:NAME [PORT]     a web server
    python examples/web_jobs.py work ring:NAME             a worker
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import ringpost

LONGEST_QUEUE = 1000  # then the web server says 503, instead of taking what nobody does
KEEP = 3600  # seconds that a report's state is kept

State = dict[str, Any]

# ---- the web server ------------------------------------------------------------------------------


class Reports:
    """Jobs to workers, states from them."""

    def __init__(self, broker: ringpost.Broker) -> None:
        self._jobs = jobs_of(broker).producer(overflow="raise")
        self._topic = broker.topic("states")
        self._states: dict[str, State] = {}
        news = self._topic.subscribe("report.*", retained=True)
        threading.Thread(target=self._follow, args=(news,), daemon=True).start()

    def _follow(self, news: ringpost.Subscriber[State]) -> None:
        for message in news:
            self._states[message.body["id"]] = message.body

    def order(self, rows: int) -> State:
        """Raises ringpost.Full."""
        state = {"id": uuid.uuid4().hex, "state": "waiting"}
        publish(self._topic, state)
        self._jobs.send({"id": state["id"], "rows": rows})
        return state

    def state(self, report_id: str) -> State | None:
        return self._states.get(report_id)


class Handler(BaseHTTPRequestHandler):
    reports: Reports

    def do_POST(self) -> None:
        try:
            order = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            rows = int(order["rows"])
        except (ValueError, KeyError, TypeError):
            return self._answer(400, {"error": 'send {"rows": a number}'})
        if self.path != "/reports":
            return self._answer(404, {"error": "no such page"})
        try:
            self._answer(202, self.reports.order(rows))
        except ringpost.Full:
            self._answer(503, {"error": "too much to do: try again later"})

    def do_GET(self) -> None:
        state = self.reports.state(self.path.removeprefix("/reports/"))
        self._answer(404 if state is None else 200, state or {"error": "no such report"})

    def _answer(self, code: int, value: State) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not a word."""


def serve(broker: ringpost.Broker, port: int) -> None:
    Handler.reports = Reports(broker)
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


# ---- the workers ---------------------------------------------------------------------------------


def work(broker: ringpost.Broker) -> None:
    """One report at a time. One that fails twice is given up, and its state says so."""
    states = broker.topic("states")
    for message in jobs_of(broker).consumer(prefetch=1):
        job = message.body
        publish(states, {"id": job["id"], "state": "running", "try": message.deliveries})
        try:
            result = report(job["rows"])
        except Exception as error:
            if message.deliveries == 1:
                message.nack()
                continue
            publish(states, {"id": job["id"], "state": "failed", "error": str(error)})
        else:
            publish(states, {"id": job["id"], "state": "done", "total": result})
        message.ack()


def report(rows: int) -> int:
    """The slow work."""
    if rows < 0:
        raise ValueError("a report has no negative number of rows")
    numbers = random.Random(rows)
    return sum(numbers.randrange(100) for _ in range(rows))


# ---- both ----------------------------------------------------------------------------------------


def jobs_of(broker: ringpost.Broker) -> ringpost.Queue[dict[str, Any]]:
    return broker.queue("jobs", maxsize=LONGEST_QUEUE)


def publish(topic: ringpost.Topic[State], state: State) -> None:
    topic.publish(state, f"report.{state['id']}", retain=True, ttl=KEEP)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if len(sys.argv) < 3 or sys.argv[1] not in ("serve", "work"):
        sys.exit(__doc__)
    with ringpost.connect(sys.argv[2]) as broker:
        if sys.argv[1] == "serve":
            serve(broker, int(sys.argv[3]) if len(sys.argv) > 3 else 8000)
        else:
            work(broker)


if __name__ == "__main__":
    main()
