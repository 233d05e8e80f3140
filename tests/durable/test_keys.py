"""Who comes in with a key, with a wrong one, with none; and where keys are never seen."""

from __future__ import annotations

import base64
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from conformance.crew import Crew, every_method
from conformance.patience import BOUND

import ringpost
from durable.sealing import KEY, OTHER, after_reboot, bytes_on_disk, changing, environment_of
from ringpost import aio
from ringpost.keys import Key, from_environment
from ringpost.store import format as form

TEXT = "base64:" + base64.b64encode(KEY).decode()
PASSPHRASE = "correct horse battery staple"


def test_with_the_key(sealed: ringpost.Broker, shm_dir: Path) -> None:
    sealed.queue("jobs").put("x")
    assert after_reboot(sealed, shm_dir, TEXT).queue("jobs").get(timeout=BOUND) == "x"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (None, r"it is sealed: connect\(..., key=\), or set RINGPOST_KEY"),
        (OTHER, "it is sealed with another key than this one"),
        (PASSPHRASE, "it is sealed with a key of 32 bytes, and this is a passphrase"),
    ],
    ids=["none", "another", "passphrase"],
)
@pytest.mark.parametrize("is_open", [True, False])
def test_with_another_or_none(
    sealed: ringpost.Broker, shm_dir: Path, place: Path, key: Any, why: str, is_open: bool
) -> None:
    """Also in the process that has it open."""
    sealed.queue("jobs").put("x")
    before = (place / "data.mdb").read_bytes()
    if not is_open:
        script = f"import ringpost; ringpost.connect({sealed.url!r}, key={key!r}).queue('jobs')"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "ringpost.errors.KeyRefused" in done.stderr
    for use in (
        lambda: ringpost.connect(sealed.url, key=key).queue("jobs"),
        lambda: ringpost.connect(sealed.url, key=key).list(),
        lambda: ringpost.connect(sealed.url, key=key).destroy(),
        lambda: ringpost.verify(place, key=key),
    ):
        with pytest.raises(ringpost.KeyRefused, match=why) as raised:
            use()
        assert isinstance(raised.value, PermissionError)
        assert str(place) in str(raised.value)
    assert (place / "data.mdb").read_bytes() == before
    assert sealed.queue("jobs").get(timeout=BOUND) == "x"


def test_a_key_too_many(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINGPOST_KEY", raising=False)
    with ringpost.connect(url) as broker:
        broker.queue("jobs").put("x")
        with pytest.raises(ringpost.KeyRefused, match=r"it is not sealed, and a key was given.*export"):
            ringpost.connect(url, key=KEY).queue("jobs")
        monkeypatch.setenv("RINGPOST_KEY", TEXT)
        with pytest.raises(ringpost.KeyRefused, match="RINGPOST_KEY"):
            ringpost.connect(url).queue("jobs")
        with pytest.raises(ringpost.Unsupported, match="not sealed: it has no key to rotate"):
            broker.rotate_key(KEY)
        broker.destroy()


def test_a_passphrase(url: str, shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINGPOST_KEY", raising=False)
    broker = ringpost.connect(url, key=PASSPHRASE)
    broker.queue("jobs").put("x")
    for wrong in (PASSPHRASE + " ", KEY):
        with pytest.raises(ringpost.KeyRefused):
            ringpost.connect(url, key=wrong).queue("jobs")
    broker = after_reboot(broker, shm_dir, PASSPHRASE)
    assert broker.queue("jobs").get(timeout=BOUND) == "x"
    broker.destroy()


def test_the_environment(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text(TEXT + "\n")
    monkeypatch.setenv("RINGPOST_KEY", TEXT)
    with ringpost.connect(url) as broker, ringpost.connect("ring:in-memory") as memory:
        memory.queue("jobs").put("memory brokers take no notice")
        memory.destroy()
        broker.queue("jobs").put("x")
        monkeypatch.delenv("RINGPOST_KEY")
        with pytest.raises(ringpost.KeyRefused):
            ringpost.connect(url).queue("jobs")
        monkeypatch.setenv("RINGPOST_KEY_FILE", str(file))
        assert ringpost.connect(url).queue("jobs").get(timeout=BOUND) == "x"
        monkeypatch.setenv("RINGPOST_KEY", TEXT)
        with pytest.raises(ValueError, match="both set"):
            ringpost.connect(url)
        monkeypatch.delenv("RINGPOST_KEY")
        for content in ("", "\n", "\r\n", f"\n{TEXT}\n"):
            file.write_text(content)
            with pytest.raises(
                ValueError, match=f"{file}, which .RINGPOST_KEY_FILE names, is empty, or begins"
            ):
                ringpost.connect(url)
        file.unlink()
        with pytest.raises(FileNotFoundError):
            ringpost.connect(url)
        monkeypatch.delenv("RINGPOST_KEY_FILE")
        broker.destroy()


@pytest.mark.parametrize("text", [TEXT, PASSPHRASE, "with blanks  "])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n# the key of the shop\n", "\n\n"])
def test_a_file_s_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, end: str) -> None:
    """As `openssl -pass file:` has it; what comes after it is for whoever reads the file."""
    (tmp_path / "key").write_bytes((text + end).encode())
    monkeypatch.setenv("RINGPOST_KEY_FILE", str(tmp_path / "key"))
    made = from_environment()
    assert made is not None
    assert made.is_same(Key(text))


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (b"short", ValueError),
        (bytes(33), ValueError),
        ("", ValueError),
        (b"", ValueError),
        ("base64:AAAA", ValueError),
        ("base64:not base64 at all!", ValueError),
        (5, TypeError),
        (["x"], TypeError),
    ],
)
def test_what_is_no_key(url: str, key: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="'key'"):
        ringpost.connect(url, key=key)
    assert not Path(url.removeprefix("ring://")).exists()


def test_a_memory_broker_has_nothing_to_seal() -> None:
    with pytest.raises(ringpost.Unsupported, match="shared memory is plain memory"):
        ringpost.connect("ring:shop", key=KEY)
    with (
        ringpost.connect("ring:shop") as broker,
        pytest.raises(ringpost.Unsupported, match="nothing on disk"),
    ):
        broker.rotate_key(KEY)


async def _use(url: str) -> None:
    async with aio.connect(url, key=KEY) as broker:
        queue = await broker.queue("jobs")
        await queue.put("x")
        await broker.rotate_key(OTHER)
        assert await queue.get() == "x"
    with pytest.raises(ringpost.KeyRefused):
        await (await aio.connect(url, key=KEY)).queue("jobs")
    with pytest.raises(ringpost.Unsupported):
        await aio.connect("ring:shop", key=KEY)


def test_asyncio(sealed: ringpost.Broker) -> None:
    import asyncio

    asyncio.run(_use(sealed.url))


def test_without_the_library(url: str) -> None:
    script = f"""
import sys
sys.modules["cryptography"] = None
import ringpost
try:
    ringpost.connect({url!r}, key=bytes(32)).queue("jobs")
except ringpost.Unsupported as error:
    print(error)
ringpost.connect({url + "-plain"!r}).queue("jobs").put(1)
ringpost.connect({url + "-plain"!r}).destroy()
"""
    environment = {name: value for name, value in os.environ.items() if name != "RINGPOST_KEY"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.stdout == "a key needs the package cryptography: pip install 'ringpost[encryption]'\n", done


def test_who_knows_nothing_of_keys_refuses(sealed: ringpost.Broker) -> None:
    """By the number of the format."""
    assert environment_of(sealed).broker.format == form.SEALED == 2


# ---- where keys are not to be seen ------------------------------------------------------------------------


def test_neither_shown_nor_pickled(sealed: ringpost.Broker) -> None:
    key = Key(KEY)
    with pytest.raises(TypeError, match="being started"):
        pickle.dumps(key)
    queue = sealed.queue("jobs")
    shown = [repr(key), str(key), repr(sealed), repr(queue), sealed.url, repr(vars(sealed._engine))]
    pickled = [pickle.dumps(each) for each in (sealed, queue, sealed.topic("news"), sealed.events("bus"))]
    for secret in (KEY, base64.b64encode(KEY), KEY.hex().encode(), repr(KEY).encode()):
        assert not any(secret in each.encode() for each in shown)
        assert not any(secret in each for each in pickled)


@pytest.mark.parametrize("key", [b"in the clear", "base64:in the clear", PASSPHRASE, OTHER])
def test_not_in_what_is_said_of_a_wrong_one(sealed: ringpost.Broker, key: bytes | str) -> None:
    with pytest.raises((ValueError, ringpost.KeyRefused)) as raised:
        ringpost.connect(sealed.url, key=key).queue("jobs")
    said = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert not any(each in said for each in ("in the clear", PASSPHRASE, repr(OTHER)))


def test_in_no_file(sealed: ringpost.Broker, place: Path, shm_dir: Path) -> None:
    sealed.queue("jobs").put("x")
    sealed.rotate_key(OTHER)
    data_keys = list(environment_of(sealed)._vault._data.values())  # type: ignore[union-attr]
    everywhere = bytes_on_disk(place) + bytes_on_disk(shm_dir)
    assert len(data_keys) == 2
    assert not any(key in everywhere for key in (KEY, OTHER, *data_keys))


def take(queue: Any, items: Any) -> None:
    assert queue.get(timeout=BOUND) == "x"
    items.topic("news").publish("taken", durability="commit")


@every_method
def test_it_travels_to_a_process_that_is_started(sealed: ringpost.Broker, method: str) -> None:
    reader = sealed.topic("news").subscribe()
    sealed.queue("jobs").put("x")
    with Crew(method) as crew:
        crew.start(take, sealed.queue("jobs"), sealed)
        assert reader.receive(BOUND).body == "taken"


def test_one_that_knows_it_needs_none_in_a_pickle(sealed: ringpost.Broker, url: str) -> None:
    sealed.queue("jobs").put("x")
    again = pickle.loads(pickle.dumps(sealed.queue("jobs")))
    assert again.get(timeout=BOUND) == "x"
    script = "import pickle, sys; pickle.load(sys.stdin.buffer)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps(sealed.queue("jobs")),
        capture_output=True,
        timeout=60,
    )
    assert b"KeyRefused" in done.stderr
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps(sealed.queue("jobs")),
        capture_output=True,
        timeout=60,
        env={**os.environ, "RINGPOST_KEY": TEXT},
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line(sealed: ringpost.Broker, place: Path) -> None:
    pytest.importorskip("rich", reason="needs ringpost[cli]")
    new = "base64:" + base64.b64encode(OTHER).decode()

    def run(*arguments: str, **keys: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ringpost", "-u", sealed.url, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **keys},
        )

    assert run("put", "jobs", "1", RINGPOST_KEY=TEXT).returncode == 0
    refused = run("put", "jobs", "2")
    assert refused.returncode == 2
    assert "RINGPOST_KEY" in refused.stderr
    file = place.with_name("new key")
    file.write_text(f"{new}\n# the second key of the shop\n")
    rotated = run("rotate-key", RINGPOST_KEY=TEXT, RINGPOST_NEW_KEY_FILE=str(file))
    assert rotated.returncode == 0, rotated.stderr
    found = run("verify", str(place), RINGPOST_KEY=new)
    assert "queue jobs: 1 messages" in found.stdout, found


def test_damaged_keys_open_nothing(sealed: ringpost.Broker, shm_dir: Path) -> None:
    environment = environment_of(sealed)
    with environment.read() as transaction:
        row = bytes(transaction.get(b"keys", db=environment.table(form.META)))
    for bad in (row[:-1] + bytes([row[-1] ^ 1]), row[:-20], b"", None):
        with changing(environment, form.META) as put:
            put(b"keys", bad)
        with pytest.raises(ringpost.StorageDamaged, match=r"the keys of .* are damaged"):
            ringpost.connect(sealed.url, key=KEY).queue("jobs")
        with environment._environment.begin(write=True) as transaction:
            transaction.put(b"keys", row, db=environment.table(form.META))
    assert ringpost.connect(sealed.url, key=KEY).queue("jobs").empty()
