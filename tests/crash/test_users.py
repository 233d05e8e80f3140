"""A group of users shares a broker; nobody else comes in, and nobody comes in who did not ask for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ringpost
from crash.children import Flag, Nursery
from crash.namespaces import mount_tmpfs, skip_without_mounts
from crash.segment_file import SegmentFile, path_of
from crash.users import ALICE, BOB, GROUP, MALLORY, STAFF, as_user, open_to_all
from ringpost.engines.access import PRIVATE, access_found

BOUND = 5.0
CAPACITY = 128 << 10


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with open_to_all("/dev/shm") as place:
        monkeypatch.setenv("RINGPOST_SHM_DIR", str(place))
        yield place


@pytest.fixture(params=["memory", "disk"])
def url(request: pytest.FixtureRequest, base: Path) -> Iterator[str]:
    if request.param == "memory":
        yield "ring:shop"
    else:
        with open_to_all("/tmp") as disk:
            yield f"ring://{disk}/shop"


def connect(url: str) -> ringpost.Broker:
    return ringpost.connect(url, group=GROUP)


def destroy(url: str) -> None:
    connect(url).destroy()


def everything(place: Path) -> list[Path]:
    return [each for each in place.rglob("*") if not each.name.startswith(".new")]


# ---- together ----------------------------------------------------------------------------------


def use_all_of_it(broker: ringpost.Broker) -> None:
    """What has files of its own: queues, priorities, topics, descriptors, what is scheduled and
    remembered."""
    queue = broker.queue("jobs", capacity=CAPACITY)
    queue.put("text")
    queue.put(bytes(20_000))
    with queue.producer(dedup_window=60) as out:
        out.send("once", message_id="1")
        out.send("once", message_id="1")
        out.send("soon", delay=0.01)
    levels = broker.queue("urgent", capacity=CAPACITY, priorities=True)
    with levels.producer() as out:
        out.send("high", priority=9)
    topic = broker.topic("prices", capacity=CAPACITY)
    topic.publish(1, subject="eu", retain=True)
    assert queue.fileno() > 0
    with topic.subscribe(retained=True) as subscriber:
        assert subscriber.receive(timeout=BOUND).body == 1


def take_all_of_it(broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs", create=False)
    assert queue.fileno() > 0
    assert [queue.get(timeout=BOUND) for _ in range(4)] == ["text", bytes(20_000), "once", "soon"]
    with queue.producer(dedup_window=60) as out:
        out.send("once", message_id="1")
    assert queue.empty()
    assert broker.queue("urgent").get(timeout=BOUND) == "high"
    with broker.topic("prices").subscribe("#", retained=True) as subscriber:
        assert subscriber.receive(timeout=BOUND).body == 1


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_modes_and_owners(url: str, base: Path, fork: Nursery, umask: int) -> None:
    """Whatever the umask."""

    def make() -> None:
        os.umask(umask)
        with connect(url) as broker:
            use_all_of_it(broker)

    if "/" in url and umask == 0o777:
        Path(url.removeprefix("ring://")).parent.mkdir(exist_ok=True)
    assert fork(as_user(ALICE, make)).wait() == 0
    places = [base] + ([Path(url.removeprefix("ring://")).parent] if "/" in url else [])
    found = [each for place in places for each in everything(place)]
    assert len(found) > 8
    for each in found:
        is_directory = stat.S_ISDIR(each.lstat().st_mode)
        assert (oct(stat.S_IMODE(each.lstat().st_mode)), each.stat().st_gid) == (
            oct(0o2770 if is_directory else 0o660),
            STAFF,
        ), each
    assert fork(as_user(BOB, lambda: take_all_of_it(connect(url)))).wait() == 0
    assert fork(as_user(BOB, destroy, url)).wait() == 0


def test_both_ways(url: str, fork: Nursery) -> None:
    """Asleep and awake: futexes, and what wakes selectors, know no users."""

    def ask() -> None:
        broker = connect(url)
        there, back = broker.queue("there", capacity=CAPACITY), broker.queue("back", capacity=CAPACITY)
        for number in range(200):
            there.put(number)
            assert back.get(timeout=BOUND) == number

    def answer() -> None:
        broker = connect(url)
        there, back = broker.queue("there", capacity=CAPACITY), broker.queue("back", capacity=CAPACITY)
        for _ in range(200):
            back.put(there.get(timeout=BOUND))

    children = [fork(as_user(ALICE, ask)), fork(as_user(BOB, answer))]
    assert [child.wait() for child in children] == [0, 0]
    assert fork(as_user(ALICE, destroy, url)).wait() == 0


def test_a_killed_consumer_of_another_user(url: str, fork: Nursery) -> None:
    taken = Flag()

    def take() -> None:
        consumer = connect(url).queue("jobs", capacity=CAPACITY).consumer()
        message = consumer.receive(timeout=BOUND)
        assert message.body == "work"
        taken.set()
        signal.pause()

    def go_on() -> None:
        with connect(url).queue("jobs").consumer() as consumer, consumer.receive(timeout=BOUND) as message:
            assert (message.body, message.deliveries) == ("work", 2)

    assert fork(as_user(BOB, lambda: connect(url).queue("jobs", capacity=CAPACITY).put("work"))).wait() == 0
    holder = fork(as_user(ALICE, take))
    taken.wait()
    holder.kill()
    assert fork(as_user(BOB, go_on)).wait() == 0
    assert fork(as_user(BOB, destroy, url)).wait() == 0


def test_a_killed_holder_of_a_lock_of_another_user(base: Path, fork: Nursery) -> None:
    joined, stalled, killed = Flag(), Flag(), Flag()

    def hold() -> None:
        queue = connect("ring:shop").queue("jobs", capacity=CAPACITY)
        segment = SegmentFile(path_of(queue))
        segment["lock"] = segment.owner(os.getpid())
        joined.set()
        signal.pause()

    def go_on() -> None:
        queue = connect("ring:shop").queue("jobs")
        with pytest.raises(ringpost.Stalled, match=f"process {holder.pid} holds"):
            queue.put("x", timeout=0.1)
        stalled.set()
        killed.wait()
        queue.put("x", timeout=BOUND)
        assert queue.get(timeout=BOUND) == "x"

    holder = fork(as_user(ALICE, hold))
    joined.wait()
    other = fork(as_user(BOB, go_on))
    stalled.wait()
    holder.kill()
    killed.set()
    assert other.wait() == 0
    assert fork(as_user(BOB, destroy, "ring:shop")).wait() == 0


def test_a_handle_and_a_url_bring_the_group_along(base: Path, fork: Nursery) -> None:
    import pickle

    def make() -> bytes:
        broker = connect("ring:shop")
        queue = broker.queue("jobs", capacity=CAPACITY)
        assert broker.url == f"ring:shop?group={GROUP}"
        again = pickle.loads(pickle.dumps(queue))
        assert path_of(again) == path_of(queue)
        ringpost.connect(broker.url).queue("jobs").put("x")
        assert again.get(timeout=BOUND) == "x"
        broker.destroy()

    assert fork(as_user(ALICE, make)).wait() == 0


# ---- who does not come in ----------------------------------------------------------------------


def refused(
    url: str, group: str | None, *texts: str, error: type[Exception] = ringpost.NotOurs
) -> Callable[[], None]:
    def attempt() -> None:
        for create in (True, False):
            with pytest.raises(error) as caught:
                ringpost.connect(url, group=group).queue("jobs", create=create)
            for text in texts:
                assert text in str(caught.value), caught.value

    return attempt


def make_queue(url: str, group: str | None) -> None:
    with ringpost.connect(url, group=group).queue("jobs", capacity=CAPACITY) as queue:
        queue.put("secret")


def test_who_is_not_in_the_group(url: str, fork: Nursery) -> None:
    assert fork(as_user(ALICE, make_queue, url, GROUP)).wait() == 0
    stranger = as_user(MALLORY, refused(url, GROUP, f"uid {MALLORY} is not in group gid {STAFF}", "usermod"))
    assert fork(stranger).wait() == 0
    assert fork(as_user(BOB, destroy, url)).wait() == 0


def test_who_did_not_ask_for_the_group(fork: Nursery, base: Path) -> None:
    """On disk, where both mean the same directory: told whose it is, and what to say."""
    with open_to_all("/tmp") as disk:
        url = f"ring://{disk}/shop"
        assert fork(as_user(ALICE, make_queue, url, GROUP)).wait() == 0
        said = f"connect(..., group='{STAFF}')"  # there is no name for it on this machine
        for user in (ALICE, BOB, MALLORY):
            child = as_user(user, refused(url, None, f"shared with group gid {STAFF}", said))
            assert fork(child).wait() == 0
        assert fork(as_user(BOB, destroy, url)).wait() == 0


def test_the_private_broker_of_another_user(fork: Nursery, base: Path) -> None:
    with open_to_all("/tmp") as disk:
        url = f"ring://{disk}/shop"
        assert fork(as_user(ALICE, make_queue, url, None)).wait() == 0
        told = (f"belongs to uid {ALICE}", "connect(..., group=")
        for user in (BOB, MALLORY):
            assert fork(as_user(user, refused(url, None, *told))).wait() == 0
        told = (f"belongs to uid {ALICE}", f"directories of gid {STAFF} with mode 2770")
        assert fork(as_user(BOB, refused(url, GROUP, *told))).wait() == 0
        assert fork(as_user(ALICE, lambda: ringpost.connect(url).destroy())).wait() == 0


@pytest.mark.parametrize("group", [None, GROUP], ids=["private", "group"])
def test_who_looks_at_the_broker_of_others_is_told_whose_it_is(
    fork: Nursery, base: Path, group: str | None
) -> None:
    with open_to_all("/tmp") as disk:
        url = f"ring://{disk}/shop"
        (disk / "link").symlink_to(disk / "shop")
        assert fork(as_user(ALICE, make_queue, url, group)).wait() == 0
        told = f"belongs to uid {ALICE}" if group is None else f"uid {MALLORY} is not in group"

        def look() -> None:
            for path in (disk / "shop", disk / "link"):
                with pytest.raises(ringpost.NotOurs, match=told):
                    access_found(path)
                with pytest.raises(ringpost.NotOurs, match=told):
                    ringpost.verify(path)
            assert access_found(disk / "nowhere") == PRIVATE

        assert fork(as_user(MALLORY, look)).wait() == 0
        assert fork(as_user(ALICE, lambda: ringpost.connect(url, group=group).destroy())).wait() == 0


def test_a_place_that_this_user_may_not_enter(
    fork: Nursery, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "closed").mkdir(mode=0o700)
    monkeypatch.setenv("RINGPOST_SHM_DIR", str(base / "closed"))
    told = (f"$RINGPOST_SHM_DIR names a directory that uid {ALICE} may not enter", str(base / "closed"))
    assert fork(as_user(ALICE, refused("ring:shop", None, *told))).wait() == 0
    (base / "closed").rmdir()


@pytest.mark.parametrize("kind", ["a mount point", "a directory"])
def test_a_volume_is_for_those_who_share_it(fork: Nursery, base: Path, kind: str) -> None:
    """Kubernetes' emptyDir has mode 0777; docs/guide/security.md says what that means."""
    skip_without_mounts(str(base))
    volume = base / "volume"
    volume.mkdir()

    def use() -> None:
        if kind == "a mount point":
            mount_tmpfs(str(volume), "size=4m,mode=777")
        volume.chmod(0o777)
        os.environ["RINGPOST_SHM_DIR"] = str(volume)
        as_user(ALICE, attempt)()

    def attempt() -> None:
        for url in ("ring:shop", f"ring://{volume}/shop"):
            if kind == "a mount point":
                make_queue(url, None)
            else:
                with pytest.raises(ringpost.NotOurs, match=f"may write there.*{volume}"):
                    make_queue(url, None)

    assert fork(use).wait() == 0
    volume.rmdir()


def test_in_memory_everybody_has_brokers_of_their_own(fork: Nursery, base: Path) -> None:
    def is_empty() -> None:
        with ringpost.connect("ring:shop") as broker:
            assert broker.queue("jobs", capacity=CAPACITY).empty()
            broker.destroy()

    assert fork(as_user(ALICE, make_queue, "ring:shop", None)).wait() == 0
    assert fork(as_user(ALICE, make_queue, "ring:shop", GROUP)).wait() == 0
    assert fork(as_user(BOB, is_empty)).wait() == 0
    assert fork(as_user(ALICE, lambda: ringpost.connect("ring:shop").destroy())).wait() == 0
    assert fork(as_user(BOB, destroy, "ring:shop")).wait() == 0
    assert everything(base) == [base / f"ringpost-group-{STAFF}"]  # Alice's, and the base is sticky


def test_who_may_look_into_it_cannot_keep_it_shut(fork: Nursery, base: Path) -> None:
    """A directory may be locked by whoever may open it: no lock of ours is one of those."""
    opened, locked = Flag(), Flag()
    with open_to_all("/tmp") as disk:
        url = f"ring://{disk}/shop"

        def make() -> None:
            (disk / "shop").mkdir(mode=0o755)
            make_queue(url, None)

        def lock_everything() -> None:
            for each in (disk / "shop", *(disk / "shop").iterdir()):
                with contextlib.suppress(PermissionError):
                    fcntl.flock(os.open(each, os.O_RDONLY), fcntl.LOCK_SH)
            locked.set()
            opened.wait()

        assert fork(as_user(ALICE, make)).wait() == 0
        assert (disk / "shop").stat().st_mode & 0o777 == 0o755
        stranger = fork(as_user(MALLORY, lock_everything))
        locked.wait()
        begun = time.monotonic()
        assert fork(as_user(ALICE, make_queue, url, None)).wait() == 0
        assert fork(as_user(ALICE, lambda: ringpost.connect(url).destroy())).wait() == 0
        assert time.monotonic() - begun < BOUND
        opened.set()
        assert stranger.wait() == 0


@pytest.mark.parametrize("name", ["domain", "lock.mdb"])
def test_a_lock_that_others_may_open_is_refused(fork: Nursery, base: Path, name: str) -> None:
    with open_to_all("/tmp") as disk:
        url = f"ring://{disk}/shop"
        assert fork(as_user(ALICE, make_queue, url, None)).wait() == 0
        (disk / "shop" / name).chmod(0o644)
        told = (name, "nobody else may open", "mode 0644")
        assert fork(as_user(ALICE, refused(url, None, *told))).wait() == 0
        (disk / "shop" / name).chmod(0o600)
        assert fork(as_user(ALICE, lambda: ringpost.connect(url).destroy())).wait() == 0


# ---- who was there before ----------------------------------------------------------------------


def make_trap(path: Path, mode: int, group: int | None) -> None:
    os.umask(0)
    path.mkdir(mode=0o777)
    if group is not None:
        os.chown(path, -1, group)
    path.chmod(mode)
    (path / "shop").mkdir()
    (path / "shop").chmod(mode)


TRAPS: dict[str, Callable[[Path], object]] = {
    "open to all": lambda path: make_trap(path, 0o777, None),
    "of their own group": lambda path: make_trap(path, 0o2770, MALLORY),
    "private": lambda path: make_trap(path, 0o700, None),
    "a link": lambda path: path.symlink_to("/etc"),
    "a file": lambda path: path.touch(),
    "a fifo": lambda path: os.mkfifo(path),
}


@pytest.mark.parametrize("group", [None, GROUP], ids=["private", "group"])
@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_a_stranger_was_there_first(base: Path, fork: Nursery, trap: Callable, group: str | None) -> None:
    name = f"ringpost-{ALICE}" if group is None else f"ringpost-group-{STAFF}"
    assert fork(as_user(MALLORY, trap, base / name)).wait() == 0
    before = sorted(base.rglob("*"))
    assert fork(as_user(ALICE, refused("ring:shop", group, str(base / name)))).wait() == 0
    assert sorted(base.rglob("*")) == before


def test_a_member_made_the_group_s_directory(base: Path, fork: Nursery) -> None:
    """Whoever is in the group may."""
    assert fork(as_user(BOB, make_queue, "ring:other", GROUP)).wait() == 0
    assert (base / f"ringpost-group-{STAFF}").stat().st_uid == BOB
    assert fork(as_user(ALICE, make_queue, "ring:shop", GROUP)).wait() == 0
    for broker in ("ring:shop", "ring:other"):
        assert fork(as_user(ALICE, destroy, broker)).wait() == 0


MIXTURES: dict[str, Callable[[Path], object]] = {
    "a private file": lambda path: path.chmod(0o600),
    "a file that others may read": lambda path: path.chmod(0o664),
    "of another group": lambda path: os.chown(path, -1, ALICE),
    "with another name": lambda path: os.link(path, path.with_name("second")),
}


@pytest.mark.parametrize("spoil", MIXTURES.values(), ids=MIXTURES)
def test_what_is_not_as_the_group_s_files_are(base: Path, fork: Nursery, spoil: Callable) -> None:
    """Nobody is led to a file of somebody else's."""

    def make() -> None:
        make_queue("ring:shop", GROUP)
        spoil(base / f"ringpost-group-{STAFF}" / "shop" / "jobs.queue")

    assert fork(as_user(ALICE, make)).wait() == 0
    assert fork(as_user(BOB, refused("ring:shop", GROUP, "'jobs'", "but there is a file of uid"))).wait() == 0
    (base / f"ringpost-group-{STAFF}" / "shop" / "second").unlink(missing_ok=True)
    (base / f"ringpost-group-{STAFF}" / "shop" / "jobs.queue").unlink()
    assert fork(as_user(BOB, destroy, "ring:shop")).wait() == 0


def test_a_directory_swapped_for_a_private_one(base: Path, fork: Nursery) -> None:
    """By a member, while another opens queues: never anything in a directory that is somebody's own."""
    private = base / f"ringpost-{ALICE}" / "shop"
    shared = base / f"ringpost-group-{STAFF}" / "shop"
    assert fork(as_user(ALICE, make_queue, "ring:shop", None)).wait() == 0
    assert fork(as_user(ALICE, make_queue, "ring:shop", GROUP)).wait() == 0
    done = Flag()

    def swap() -> None:
        while not done:
            shared.rename(shared.with_name("away"))
            shared.symlink_to(private)
            shared.unlink()
            shared.with_name("away").rename(shared)

    def work() -> None:
        opened = refusals = 0
        while opened < 100 or refusals < 100:
            try:
                with connect("ring:shop").queue("jobs", create=False) as queue:
                    assert os.stat(path_of(queue)) is not None
                    opened += 1
                connect("ring:shop").delete("other")
            except (ringpost.NotOurs, ringpost.QueueNotFound, FileNotFoundError):
                refusals += 1
            if refusals > 20_000:
                break
        done.set()

    children = [fork(as_user(BOB, swap)), fork(as_user(ALICE, work))]
    assert [child.wait() for child in children] == [0, 0]
    assert [each.name for each in private.iterdir()] == ["jobs.queue"]

    def still_there() -> None:
        with ringpost.connect("ring:shop") as broker:
            assert broker.queue("jobs", create=False).get_nowait() == "secret"
            broker.destroy()

    assert fork(as_user(ALICE, still_there)).wait() == 0
    assert fork(as_user(ALICE, destroy, "ring:shop")).wait() == 0
