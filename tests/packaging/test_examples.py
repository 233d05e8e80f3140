"""The examples do what they say, each as somebody would start it, and leave nothing behind."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringpost

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60


def run(name: str) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments], stdout=subprocess.PIPE, text=True
    )


def test_task_queue() -> None:
    said = run("task_queue.py")
    assert re.search(r"kill -9 \d+: its task was done by another worker, in try 2", said)
    assert "10 pages counted, in 20 tries" in said
    assert "dead after 4 tries: count_words, HTTPError: HTTP Error 404" in said
    assert "1 replayed: {'better': 1" in said


def test_order_workflow() -> None:
    assert run("order_workflow.py").splitlines() == [
        "order 1: order.placed > stock.reserved > payment.received > order.shipped",
        "order 2: order.placed > stock.reserved > payment.refused > order.cancelled",
        "order 3: order.placed > stock.reserved > payment.received > order.shipped",
        "order 4: order.placed > stock.missing > order.cancelled",
    ]


def test_log_shipping() -> None:
    said = run("log_shipping.py")
    assert re.search(r"kill -9 \d+: the shipper, after \d+ lines", said)
    assert "15000 lines of 3 applications, 30 of them errors: each once" in said


def test_market_data() -> None:
    said = run("market_data.py")
    assert "strategy eu: 100 books, mean spread 1.50" in said
    assert "strategy us: 100 books, mean spread 3.50" in said
    assert "archive: 1000000 ticks, in order; candles of eu.cac, eu.dax, us.ndx, us.spx" in said
    assert "screen: us.spx 147.5 to 150.5" in said


def test_c_worker() -> None:
    said = run("c_worker.py")
    assert re.search(r"kill -9 \d+: the other worker in C went on", said)
    assert "20000 texts counted, none lost; number 1: a1 c1 e2 g1 m1 o1 s2 t1" in said


def test_alerts_come_at_once(broker: ringpost.Broker) -> None:
    alert = start("log_shipping.py", "alert", broker.url)
    assert alert.stdout is not None
    try:
        broker.topic("logs").wait_for_subscribers(1, timeout=PATIENCE)
        done = start("log_shipping.py", "application", broker.url, "shop", "1000")
        assert done.communicate(timeout=PATIENCE) == ("", None)
        assert alert.stdout.readline() == "ALERT shop: request 499 failed\n"
        assert alert.stdout.readline() == "ALERT shop: request 999 failed\n"
    finally:
        alert.kill()
        alert.communicate()


class Site:
    """The web application, over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(self.url + path, data, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def wait_for(self, report: str, states: tuple[str, ...]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            code, told = self.ask(f"/reports/{report}")
            if code == 200 and told["state"] in states:
                return told
            assert time.monotonic() < deadline, told
            time.sleep(0.02)


@pytest.fixture
def site(broker: ringpost.Broker) -> Iterator[Site]:
    server = start("web_jobs.py", "serve", broker.url, "0")
    assert server.stdout is not None
    try:
        yield Site(server.stdout.readline().strip())
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE)


@pytest.fixture
def worker(broker: ringpost.Broker) -> Iterator[subprocess.Popen[str]]:
    worker = start("web_jobs.py", "work", broker.url)
    try:
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def test_web_jobs(site: Site, worker: subprocess.Popen[str]) -> None:
    code, ordered = site.ask("/reports", {"rows": 1000})
    assert (code, ordered["state"]) == (202, "waiting")
    done = site.wait_for(ordered["id"], ("done",))
    assert done["total"] > 0
    _, failing = site.ask("/reports", {"rows": -1})
    assert "negative" in site.wait_for(failing["id"], ("failed",))["error"]
    assert site.ask("/reports/none")[0] == 404
    assert site.ask("/reports", {"lines": 1})[0] == 400


def test_web_jobs_survive_their_worker(site: Site, broker: ringpost.Broker) -> None:
    _, ordered = site.ask("/reports", {"rows": 3_000_000})
    first = start("web_jobs.py", "work", broker.url)
    site.wait_for(ordered["id"], ("running",))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start("web_jobs.py", "work", broker.url)
    try:
        assert site.wait_for(ordered["id"], ("done",))["total"] > 0
    finally:
        second.kill()
        second.communicate()


def test_a_web_server_started_later_knows_the_states(
    site: Site, worker: subprocess.Popen[str], broker: ringpost.Broker
) -> None:
    _, ordered = site.ask("/reports", {"rows": 10})
    done = site.wait_for(ordered["id"], ("done",))
    late = start("web_jobs.py", "serve", broker.url, "0")
    assert late.stdout is not None
    try:
        assert Site(late.stdout.readline().strip()).wait_for(ordered["id"], ("done",)) == done
    finally:
        late.terminate()
        late.communicate(timeout=PATIENCE)
