"""Directories: whose, where, moved, deleted, full; brokers, processes and forks that share one."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.crew import Crew, every_method
from conformance.patience import BOUND, Call
from crash.children import Nursery
from crash.fixtures import fork as fork
from crash.namespaces import bind, mount_tmpfs, new_mount_namespace, skip_without_mounts

import ringpost
from durable.conftest import lose_shared_memory
from ringpost.engines.access import PRIVATE
from ringpost.keys import from_environment
from ringpost.sidestore import durable_side_store
from ringpost.store import environment, writer
from ringpost.store import format as form
from ringpost.store.values import PLAIN


def test_it_is_made_private(durable: ringpost.Broker, place: Path) -> None:
    assert not place.exists()  # until it is needed
    durable.queue("jobs")
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_one_that_others_may_write_to_is_refused(url: str, place: Path) -> None:
    place.mkdir(mode=0o700)
    place.chmod(0o777)
    with pytest.raises(ringpost.NotOurs, match="chmod 700"):
        ringpost.connect(url).queue("jobs")


def test_one_that_others_may_take_away_is_refused(url: str, place: Path) -> None:
    place.parent.chmod(0o777)
    with pytest.raises(ringpost.NotOurs, match="everybody may write there"):
        ringpost.connect(url).queue("jobs")
    assert not place.exists()
    place.parent.chmod(0o700)


@pytest.mark.parametrize("what", ["data.mdb", "lock.mdb", "domain"])
def test_links_in_it_lead_nowhere(url: str, place: Path, what: str, tmp_path: Path) -> None:
    """Of a broker that was copied, or prepared."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    place.mkdir(mode=0o700)
    (place / what).symlink_to(target)
    with pytest.raises((ringpost.StorageFailed, ringpost.NotOurs)):
        ringpost.connect(url).queue("jobs")
    assert target.read_bytes() == b"precious"


def test_a_file_that_others_may_write_is_refused(url: str, place: Path, fork: Nursery) -> None:
    assert fork(lambda: ringpost.connect(url).queue("jobs").put("x")).wait() == 0
    for name in ("data.mdb", "lock.mdb"):
        (place / name).chmod(0o666)
        with pytest.raises(ringpost.NotOurs, match=name):
            ringpost.connect(url).queue("jobs")
        (place / name).chmod(0o600)
    assert ringpost.connect(url).queue("jobs").get() == "x"
    ringpost.connect(url).destroy()


def test_a_read_only_place_is_refused(url: str, place: Path, fork: Nursery) -> None:
    """A new one, and one that is there."""
    skip_without_mounts(str(place.parent))

    def refused() -> None:
        new_mount_namespace()
        bind(str(place.parent), str(place.parent), read_only=True)
        with pytest.raises(ringpost.StorageFailed, match="mount it for writing") as raised:
            ringpost.connect(url).queue("jobs")
        assert raised.value.errno == errno.EROFS

    assert fork(refused).wait() == 0
    assert fork(lambda: ringpost.connect(url).queue("jobs").put("x")).wait() == 0
    assert fork(refused).wait() == 0
    assert ringpost.connect(url).queue("jobs").get() == "x"
    ringpost.connect(url).destroy()


def test_a_full_disk_kills_nobody(url: str, place: Path, fork: Nursery) -> None:
    """Also where LMDB writes through a mapping: its lock file."""
    skip_without_mounts(str(place.parent))

    def fill_up() -> None:
        mount_tmpfs(str(place.parent), "size=1m,mode=700")
        filler, numbers = place.parent / "filler", set()
        for free in range(0, 1 << 20, 32 << 10):
            with contextlib.suppress(OSError):
                filler.write_bytes(bytes(free))
            numbers.add(_errno_of(lambda: ringpost.connect(url).queue("jobs").put(bytes(1000))))
        assert numbers == {None, errno.ENOSPC}
        filler.unlink()
        ringpost.connect(url).queue("jobs").put(bytes(1000))
        ringpost.connect(url).destroy()

    assert fork(fill_up).wait() == 0


def _errno_of(call: Callable[[], object]) -> int | None:
    try:
        call()
    except ringpost.StorageFailed as error:
        return error.errno
    return None


def test_replaced_underneath(durable: ringpost.Broker, place: Path) -> None:
    """By a backup, say: what is committed to the old file would be lost."""
    queue = durable.queue("jobs")
    queue.put("before")
    durable.backup(place.with_name("copy"))
    (place / "data.mdb").rename(place / "old.mdb")
    shutil.copy(place.with_name("copy") / "data.mdb", place / "data.mdb")
    with pytest.raises(ringpost.StorageFailed, match="moved or deleted"):
        queue.put("not confirmed")
    (place / "old.mdb").rename(place / "data.mdb")
    queue.put("after")
    assert [queue.get() for _ in range(3)] == ["before", "not confirmed", "after"]
    shutil.rmtree(place.with_name("copy"))


def test_in_memory_it_is_as_good_as_the_memory(shm_dir: Path) -> None:
    """Allowed: who says so may have batteries."""
    url = f"ring://{shm_dir}/disk/shop"
    assert environment.file_system_of(shm_dir) == "tmpfs"
    with ringpost.connect(url) as broker:
        broker.queue("jobs").put("x")
        assert broker.queue("jobs").get() == "x"
        broker.destroy()


def test_a_file_is_refused(url: str, place: Path) -> None:
    place.write_text("a file")
    with pytest.raises(ringpost.StorageFailed, match="not a directory"):
        ringpost.connect(url).queue("jobs")


def test_what_is_not_lmdb_is_refused(url: str, place: Path) -> None:
    place.mkdir(mode=0o700)
    (place / "data.mdb").write_bytes(os.urandom(1 << 16))
    with pytest.raises(ringpost.StorageFailed, match="damaged, or not LMDB's"):
        ringpost.connect(url).queue("jobs")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "ceph"])
def test_network_file_systems_are_refused(url: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "file_system_of", lambda place: kind)
    with pytest.raises(ringpost.Unsupported, match=kind):
        ringpost.connect(url).queue("jobs")


def test_the_file_system_is_found() -> None:
    assert environment.file_system_of(Path("/dev/shm")) == "tmpfs"
    assert environment.file_system_of(Path("/proc/self")) == "proc"


def test_another_format_is_refused(durable: ringpost.Broker, url: str, place: Path) -> None:
    durable.queue("jobs")
    script = f"""
import lmdb
from ringpost.store import format as form
store = lmdb.open({str(place)!r}, max_dbs=9, lib_version=0)
with store.begin(write=True) as tx:
    meta = store.open_db(form.META, txn=tx)
    old = form.decode_broker(tx.get(b"broker", db=meta))
    tx.put(b"broker", form.encode(form.BrokerRecord(99, old.id, old.made_ns, old.next_number)), db=meta)
store.close()
import ringpost
try:
    ringpost.connect({url!r}).queue("jobs")
except ringpost.Unsupported as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "has storage format 99" in said
    assert "export" in said
    store = environment.open_environment(place, key=from_environment())
    with store.begin() as transaction:
        transaction.put(b"broker", form.encode(store.broker), db=store.table(form.META))


def test_moved_underneath(durable: ringpost.Broker, url: str, place: Path) -> None:
    queue = durable.queue("jobs")
    queue.put("before")
    other = place.with_name("elsewhere")
    place.rename(other)
    with pytest.raises(ringpost.StorageFailed, match="moved or deleted") as raised:
        queue.put("not confirmed")
    assert raised.value.errno == errno.ENOENT
    other.rename(place)
    queue.put("after")
    assert [queue.get() for _ in range(3)] == ["before", "not confirmed", "after"]


def test_connected_to_where_it_was_moved_to(durable: ringpost.Broker, place: Path) -> None:
    """Also those go on who had it open."""
    queue = durable.queue("jobs")
    with queue.producer() as producer:
        producer.send("scheduled before", delay=0.001)
        other = place.with_name("elsewhere")
        place.rename(other)
        with pytest.raises(ringpost.StorageFailed, match="moved or deleted"):
            queue.put("not confirmed")
        moved = ringpost.connect(f"ring://{other}")
        moved.queue("jobs").put("by the new name")
        queue.put("by the old name")
        producer.send("scheduled", delay=0.001)
    assert durable._engine.side_store() is moved._engine.side_store()  # type: ignore[attr-defined]
    assert {queue.get(timeout=BOUND) for _ in range(5)} == {
        "scheduled before",
        "not confirmed",
        "by the new name",
        "by the old name",
        "scheduled",
    }
    moved.destroy()
    assert not other.exists()
    assert not place.exists()


def test_one_side_store_by_two_names(durable: ringpost.Broker, place: Path, fork: Nursery) -> None:
    """Its file lock does not keep a process's threads apart."""
    skip_without_mounts(str(place.parent))
    durable.queue("jobs")

    def use_both() -> None:
        new_mount_namespace()
        other = place.with_name("another name")
        other.mkdir(mode=0o700)
        bind(str(place), str(other))
        brokers = [ringpost.connect(f"ring://{each}") for each in (place, other)]
        for broker in brokers:
            with broker.queue("jobs").producer() as producer:
                producer.send(broker.url, delay=0.001)
        stores = {durable_side_store(each / "side", PRIVATE, PLAIN) for each in (place, other)}
        assert len(stores) == 1

    assert fork(use_both).wait() == 0
    assert {durable.queue("jobs").get(timeout=BOUND) for _ in range(2)} == {
        f"ring://{each}" for each in (place, place.with_name("another name"))
    }


def test_deleted_underneath(url: str, place: Path, shm_dir: Path) -> None:
    broker = ringpost.connect(url)
    queue = broker.queue("jobs")
    shutil.rmtree(place)
    with pytest.raises(ringpost.StorageFailed, match="moved or deleted"):
        queue.put("not confirmed")
    assert queue.get() == "not confirmed"
    broker.close()
    with ringpost.connect(url) as again:
        assert again.queue("jobs").empty()
        again.queue("jobs").put("new")
        again.destroy()
    lose_shared_memory(shm_dir)


def test_shared_memory_removed_underneath(durable: ringpost.Broker, url: str, shm_dir: Path) -> None:
    """Who still has the old ring does not write over what is new."""
    old = durable.queue("jobs")
    old.put("stored")
    lose_shared_memory(shm_dir)
    with ringpost.connect(url) as fresh:
        queue = fresh.queue("jobs")
        queue.put("new")
        with pytest.raises(ringpost.QueueDeleted):
            old.put("to nobody", timeout=5)
        assert [queue.get() for _ in range(2)] == ["stored", "new"]


def test_all_meet_behind_a_new_door(durable: ringpost.Broker, shm_dir: Path) -> None:
    """Also those who had the old one, before the shared memory was removed."""
    durable.queue("jobs").put("stored")
    lose_shared_memory(shm_dir)
    assert durable.queue("jobs").get() == "stored"
    assert len(list(shm_dir.rglob("storage.door"))) == 1


def test_two_brokers_of_one_process(durable: ringpost.Broker, url: str, place: Path) -> None:
    with ringpost.connect(url) as second, ringpost.connect(f"ring://{place.parent}/./shop") as third:
        for number, broker in enumerate((durable, second, third)):
            broker.queue("jobs").put(number)
        assert [second.queue("jobs").get() for _ in range(3)] == [0, 1, 2]


def _answer(questions: ringpost.Queue[Any], answers: ringpost.Queue[Any]) -> None:
    answers.put(("child of", questions.get(timeout=BOUND)))


@every_method
def test_handed_to_other_processes(durable: ringpost.Broker, method: str) -> None:
    questions, answers = durable.queue("questions"), durable.queue("answers")
    questions.put("me")
    with Crew(method) as crew:
        crew.start(_answer, questions, answers)
        assert answers.get(timeout=BOUND) == ["child of", "me"]


def test_pickled(durable: ringpost.Broker) -> None:
    queue = durable.queue("jobs")
    pickle.loads(pickle.dumps(queue)).put("x")
    assert queue.get(timeout=BOUND) == "x"


def test_fork_while_threads_put_and_read(durable: ringpost.Broker) -> None:
    queue = durable.queue("jobs", capacity=1 << 17)
    stop = threading.Event()

    def put_and_get() -> None:
        while not stop.is_set():
            queue.put(bytes(1000))
            queue.put_many([bytes(3000)] * 20, durability="memory")
            queue.get_many(20)

    calls = [Call(put_and_get) for _ in range(2)]
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    queue.put("from the child")
                    queue.get(timeout=BOUND)
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
    for call in calls:
        call.result()


def test_a_quota(durable: ringpost.Broker, url: str) -> None:
    with ringpost.connect(f"{url}?max_bytes=1m") as broker:
        queue = broker.queue("jobs", capacity=1 << 17)
        put = 0
        with pytest.raises(ringpost.StorageFailed, match="quota of 1048576 bytes") as raised:  # noqa: PT012
            while True:
                queue.put(bytes(10_000))
                put += 1
        assert raised.value.errno == errno.EDQUOT
        assert 50 < put < 110
        for _ in range(put):
            assert queue.get() == bytes(10_000)
        queue.flush()
        assert queue.get() == bytes(10_000)  # it was not confirmed
        queue.put("there is room again")
        assert queue.get() == "there is room again"


def test_the_interval_is_kept(durable: ringpost.Broker, place: Path) -> None:
    queue = durable.queue("jobs", durability="interval")
    storage = queue._log.storage  # type: ignore[attr-defined]
    for number in range(5):
        queue.put(number)
        time.sleep(10 * writer.INTERVAL)
        deadline = time.monotonic() + BOUND
        while storage.stored.durable() < storage.stored.tail():
            assert time.monotonic() < deadline
            time.sleep(writer.INTERVAL)


def test_the_end_of_a_process_stores_what_was_put(url: str, durable: ringpost.Broker, shm_dir: Path) -> None:
    script = f"""
import ringpost
ringpost.connect({url!r}).queue("jobs", durability="interval").put_many(range(1000))
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    lose_shared_memory(shm_dir)
    assert durable.queue("jobs").get_many(2000, timeout=BOUND) == list(range(1000))


def test_a_quiet_queue_hardly_touches_the_disk(durable: ringpost.Broker) -> None:
    """What is acked before it was to be stored is not stored."""
    queue = durable.queue("jobs", durability="memory")
    for number in range(1000):
        queue.put(number)
        assert queue.get() == number
    queue.flush()
    assert ringpost.verify(durable._engine._place).queues[0].messages == 0  # type: ignore[attr-defined]
