"""The command line, as a shell calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringpost

BOUND = 30
MANY = 100_000  # messages


@pytest.fixture
def call(broker: ringpost.Broker, tmp_path: Path) -> Any:
    def call(*arguments: str, stdin: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "ringpost", "--url", broker.url, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=BOUND,
            cwd=tmp_path,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def drain(queue: ringpost.Queue[Any]) -> list[Any]:
    found: list[Any] = []
    while not queue.empty():
        found += queue.get_many(block=False)
    return found


def test_put_get_and_peek(call: Any, broker: ringpost.Broker) -> None:
    assert call("put", "jobs", "one", "two", "--header", "a=b") == "2 put\n"
    call("put", "jobs", stdin="three\nfour\n")
    call("put", "jobs", "--parse", '{"x": [1]}')
    assert [each["body"] for each in lines(call("--json", "peek", "jobs"))][:2] == ["one", "two"]
    assert call("get", "jobs", "-n", "4") == "one\ntwo\nthree\nfour\n"
    with broker.queue("jobs").consumer() as consumer, consumer.receive(0) as message:
        assert (message.body, message.deliveries) == ({"x": [1]}, 1)
    assert "is empty" in call("get", "jobs", code=1)
    assert "does not exist" in call("get", "nothing", code=1)


def test_files_are_put_whole(call: Any, broker: ringpost.Broker, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\0\xff")
    call("put", "jobs", "--file", "body")
    assert broker.queue("jobs").get_nowait() == b"\0\xff"


def test_ls_and_stats(call: Any, broker: ringpost.Broker) -> None:
    broker.queue("jobs").put_many(range(3))
    broker.topic("news").publish("x")
    found = {each["name"]: each for each in lines(call("--json", "ls"))}
    assert (found["jobs"]["ready"], found["news"]["kind"]) == (3, "topic")
    assert "jobs" in call("ls")
    told = json.loads(call("--json", "stats", "jobs"))
    assert (told["sent"], told["groups"][0]["ready"]) == (3, 3)
    assert "published" in call("stats", "news", "--topic")
    assert "jobs" in call("top", "--count", "2", "--interval", "0.05")


def test_move_purge_delete(call: Any, broker: ringpost.Broker) -> None:
    broker.queue("a").producer().send_many(range(5), headers={"h": 1})
    assert call("move", "a", "b", "-n", "3") == "3 moved\n"
    with broker.queue("b").consumer() as consumer, consumer.receive(0) as message:
        assert (message.body, message.headers) == (0, {"h": 1})
    assert call("purge", "a", "--yes") == "2 thrown away\n"
    assert broker.queue("a").qsize() == 0
    call("delete", "a", "--yes")
    assert broker.list() == ["b"]
    assert "there is no queue" in call("delete", "a", "--yes", code=1)


BODIES = [
    "text",
    {"x": 1},
    b"\xff\0",
    b"bytes that look like text",
    [1, None],
    {"nested": b"b"},
    2**63,
    0.5,
    None,
]


@pytest.mark.parametrize("file", ["file.jsonl", "file.parquet"])
def test_what_was_exported_can_be_imported(call: Any, broker: ringpost.Broker, file: str) -> None:
    producer = broker.queue("a").producer()
    for body in BODIES:
        producer.send(body, headers={"h": [1, "x"]}, key="k", ttl=60, correlation_id="c", message_id="m")
    producer.send(np.arange(6, dtype="<i2").reshape(2, 3))
    assert call("export", "a", file) == f"{len(BODIES) + 1} exported\n"
    assert broker.queue("a").qsize() == len(BODIES) + 1
    assert call("import", "b", file) == f"{len(BODIES) + 1} imported\n"
    with broker.queue("b").consumer() as consumer:
        messages = [consumer.receive(0) for _ in BODIES]
        assert [each.body for each in messages] == BODIES
        for each in messages:
            assert (each.headers, each.key, each.ttl_ms) == ({"h": [1, "x"]}, "k", 60_000)
            assert (each.correlation_id, each.id) == ("c", "m")
        array = consumer.receive(0).body
        assert (array.dtype, array.tolist()) == (np.dtype("<i2"), [[0, 1, 2], [3, 4, 5]])


def test_export_through_a_pipe_and_more_than_can_be_leased(call: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("a", capacity=64 << 20)
    queue.put_many(range(MANY))
    text = call("export", "a").removesuffix(f"{MANY} exported\n")
    assert [each["body"] for each in lines(text)] == list(range(MANY))
    assert drain(queue) == list(range(MANY))
    assert call("import", "b", stdin=text) == f"{MANY} imported\n"
    assert drain(broker.queue("b")) == list(range(MANY))


def test_what_is_no_export_is_refused(call: Any, broker: ringpost.Broker) -> None:
    assert "line 2" in call("import", "b", stdin='{"body": 1}\nnonsense\n', code=2)
    assert "neither a body" in call("import", "b", stdin='{"key": "k"}\n', code=2)
    assert "no messages of kind 'odd'" in call(
        "import", "b", stdin='{"kind": "odd", "payload": "AA=="}\n', code=2
    )
    assert broker.queue("b").get_nowait() == 1


def test_dead_letters(call: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs")
    queue.put_many(["bad", "worse"])
    with queue.consumer(dead_letters=True) as consumer:
        consumer.receive(0).reject("no good")
        consumer.receive(0).reject("worse")
    rows = lines(call("--json", "dead-letters", "list", "jobs"))
    assert [(row["reason"], row["body"]) for row in rows] == [("no good", "bad"), ("worse", "worse")]
    assert "no good" in call("dead-letters", "show", "jobs", str(rows[0]["number"]))
    assert call("dead-letters", "replay", "jobs", "-n", "1") == "1 replayed\n"
    assert queue.get_nowait() == "bad"
    assert call("dead-letters", "drop", "jobs", "--yes") == "1 thrown away\n"


def test_groups(call: Any, broker: ringpost.Broker) -> None:
    topic = broker.topic("news")
    topic.subscribe(name="audit").close()
    for number in range(5):
        topic.publish(number, "a.b")
    assert lines(call("--json", "groups", "list", "news"))[0]["ready"] == 5
    call("groups", "seek", "news", "audit", "3")
    with topic.subscribe(name="audit") as subscriber:
        assert subscriber.receive(0).body == 3
    assert call("tail", "news", "a.*") == "".join(f"a.b  {number}\n" for number in range(5))
    call("groups", "delete", "news", "audit")
    assert topic.subscribers() == ()
    assert "no subscriber" in call("groups", "delete", "news", "audit", code=1)


def test_workers_work_and_are_replaced(broker: ringpost.Broker, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(
        "import os\n"
        "def handle(body):\n"
        "    if body == 'fail': raise ValueError('no')\n"
        "    if body == 'die' and not os.path.exists('died'):\n"
        "        open('died', 'w').close(); os.kill(os.getpid(), 9)\n"
        "    open('done-' + body, 'w').close()\n"
    )
    queue = broker.queue("jobs")
    queue.put_many(["one", "die", "fail", "two"])
    runner = subprocess.Popen(
        [
            *(sys.executable, "-m", "ringpost", "-u", broker.url),
            *("run", "jobs", "jobs:handle", "-c", "2", "--max-deliveries", "2"),
        ],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + BOUND
        while not all((tmp_path / f"done-{name}").exists() for name in ("one", "die", "two")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        while len(queue.dead_letters()) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(BOUND) == 0
    finally:
        runner.kill()
        runner.wait()
    stats = queue.stats()
    assert (stats.ready, stats.consumers.in_flight) == (0, 0)


def test_workers_end_with_their_queue(broker: ringpost.Broker, tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("def handle(body): open('done', 'a').write(body)\n")
    queue = broker.queue("jobs")
    queue.put_many(["a"] * 20)
    queue.shutdown()
    command = [sys.executable, "-m", "ringpost", "-u", broker.url, "run", "jobs", "jobs:handle", "-c", "3"]
    assert subprocess.run(command, cwd=tmp_path, timeout=BOUND, check=False).returncode == 0
    assert (tmp_path / "done").read_text() == "a" * 20


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["put"], ["run", "q", "no.such:thing"], ["put", "q", "--header", "x"]]
)
def test_what_makes_no_sense_is_explained(call: Any, arguments: list[str]) -> None:
    assert "Error" in call(*arguments, code=2)


def test_help_is_there_for_everything(call: Any) -> None:
    assert "dead-letters" in call("--help")
    assert ringpost.__version__ in call("--version")
    assert "Exit codes" in call("-h")


def test_without_its_libraries_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['click'] = None; from ringpost.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "ringpost[cli]" in done.stderr


def test_bench_measures_and_leaves_nothing(call: Any, broker: ringpost.Broker) -> None:
    machine, *rows = lines(call("--json", "bench", "--seconds", "0.05"))
    assert machine["ringpost"] == ringpost.__version__
    assert [each["name"] for each in rows] == [
        *("1-to-1", "batches", "acked", "large"),
        *("latency-median", "latency-p90", "latency-p99", "latency-p99.9"),
    ]
    assert all(each["value"] > 0 for each in rows)
    assert [each["value"] for each in rows[4:]] == sorted(each["value"] for each in rows[4:])
    assert "one a call" in call("bench", "--seconds", "0.02", "--size", "1000")
    assert broker.list() == []
