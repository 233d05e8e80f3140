"""Names of queues and brokers: whatever text, never another file, always read back as it was."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest

import ringpost
from ringpost.engines import directory

CAPACITY = 128 << 10
LONGEST = 200

ACCEPTED = [
    "jobs",
    "Jobs",
    "a",
    " ",
    " leading and trailing ",
    ".",
    "..",
    ".hidden",
    ".anonymous",
    "...",
    "a/b",
    "/",
    "/etc/passwd",
    "../../etc/passwd",
    "back\\slash",
    "nul\0inside",
    "line\nbreak",
    "\x7f\x1b[31m",
    "-rf",
    "--",
    "*?[x]",
    "~root",
    "$HOME",
    "100%",
    "a%2Fb",
    "%2E",
    "jobs.queue",
    ".queue",
    "größe",
    "\N{SNOWMAN}",
    "\U0001f600",
    "e\u0301",
    "é",
    "x" * LONGEST,
    "é" * 33,
    "a:b?c=d#e&f",
]


@pytest.mark.parametrize("name", ACCEPTED, ids=ascii)
def test_a_queue_of_any_name(broker: ringpost.Broker, name: str) -> None:
    with broker.queue(name, capacity=CAPACITY) as queue:
        assert queue.name == name
        assert repr(name) in queue._log.label
        assert broker.list() == [name]
        assert Path(queue._log.path).parent == broker._engine._directory
        assert Path(queue._log.path).name in os.listdir(broker._engine._directory)
        queue.put("x")
        assert broker.queue(name, create=False).get_nowait() == "x"
        assert broker.delete(name)
        assert broker.list() == []


@pytest.mark.parametrize("name", ACCEPTED, ids=ascii)
@pytest.mark.usefixtures("base")
def test_a_broker_of_any_name(name: str) -> None:
    """In a URL, a name is quoted as in any URL."""
    with ringpost.connect("ring:" + quote(name, safe="")) as broker:
        queue = broker.queue("jobs", capacity=CAPACITY)
        (found,) = os.listdir(directory.root())
        assert directory.original_name(found) == name
        assert Path(queue._log.path).parent == directory.root() / found


def test_different_names_are_different_queues(broker: ringpost.Broker) -> None:
    queues = [broker.queue(name, capacity=CAPACITY) for name in ACCEPTED]
    for number, queue in enumerate(queues):
        queue.put(number)
    assert [broker.queue(name).get_nowait() for name in ACCEPTED] == list(range(len(ACCEPTED)))
    assert broker.list() == sorted(ACCEPTED)


@pytest.mark.parametrize("name", ACCEPTED, ids=ascii)
def test_file_names_are_safe_and_reversible(name: str) -> None:
    file = directory.file_name(name, "queue")
    assert directory.original_name(file) == name
    assert not file.startswith(".")
    assert "/" not in file
    assert file.isascii()
    assert file.isprintable()
    assert len(file + directory.SUFFIX) <= 255


REFUSED = {
    "empty": ("", ValueError, "1 to 200 bytes, this one 0"),
    "too long": ("x" * (LONGEST + 1), ValueError, "1 to 200 bytes, this one 201"),
    "too long when quoted": ("é" * 34, ValueError, "1 to 200 bytes, this one 204"),
    "far too long": ("x" * 100_000, ValueError, "1 to 200 bytes, this one 100000"),
    "a lone surrogate": ("\ud800", ValueError, "surrogate"),
    "number": (5, TypeError, "is a str, not int"),
    "bytes": (b"jobs", TypeError, "is a str, not bytes"),
    "nothing": (None, TypeError, "is a str, not NoneType"),
    "path": (Path("jobs"), TypeError, "is a str, not PosixPath"),
}


@pytest.mark.parametrize(("name", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_names_of_queues(broker: ringpost.Broker, name: object, error: type, words: str) -> None:
    for call in (broker.queue, broker.delete):
        with pytest.raises(error, match="the name of a queue") as raised:
            call(name)
        assert words in str(raised.value)
    assert broker.list() == []


@pytest.mark.parametrize("url", ["ring:", "ring:" + "x" * (LONGEST + 1), "ring:" + "%C3%A9" * 34])
def test_refused_names_of_brokers(url: str) -> None:
    with pytest.raises(ValueError, match="the name of a broker has 1 to 200 bytes, this one"):
        ringpost.connect(url)


def test_a_leading_dot_counts_as_it_is_quoted() -> None:
    assert len(directory.file_name("." + "x" * (LONGEST - 3), "queue")) == LONGEST
    with pytest.raises(ValueError, match="this one 201"):
        directory.file_name("." + "x" * (LONGEST - 2), "queue")


def test_no_broker_can_look_at_anonymous_queues() -> None:
    with ringpost.connect("ring:.anonymous") as broker, ringpost.Queue(capacity=CAPACITY):
        assert broker.list() == []
        assert (directory.root() / directory.ANONYMOUS).is_dir()


def test_files_that_are_no_queues_are_not_listed(broker: ringpost.Broker) -> None:
    broker.queue("jobs", capacity=CAPACITY)
    foreign = broker._engine._directory / "notes.txt"
    foreign.touch()
    assert broker.list() == ["jobs"]
    foreign.unlink()
