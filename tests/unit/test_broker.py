"""A broker finds, makes, lists and deletes queues by name; its handles end with it, its queues do not."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import threading
import uuid
import weakref
from collections.abc import Iterator

import pytest

import ringpost

CAPACITY = 128 << 10
BOUND = 10.0  # seconds for what must happen at all


@pytest.fixture
def url() -> Iterator[str]:
    name = f"ring:test-{uuid.uuid4().hex[:8]}"
    yield name
    ringpost.connect(name).destroy()


# ---- opening ------------------------------------------------------------------------------------


def test_open_or_make(broker: ringpost.Broker) -> None:
    first = broker.queue("jobs", capacity=CAPACITY)
    second = broker.queue("jobs")
    first.put("x")
    assert second is not first
    assert second.get_nowait() == "x"
    assert second.capacity == first.capacity == CAPACITY


def test_two_brokers_of_one_url_share_their_queues(broker: ringpost.Broker) -> None:
    broker.queue("jobs", capacity=CAPACITY).put("x")
    with ringpost.connect(broker.url) as other:
        assert other.queue("jobs", create=False).get_nowait() == "x"


def test_brokers_of_different_names_share_nothing(broker: ringpost.Broker, url: str) -> None:
    broker.queue("jobs", capacity=CAPACITY).put("x")
    with ringpost.connect(url) as other:
        assert other.list() == []
        assert other.queue("jobs", capacity=CAPACITY).empty()


def test_without_create_there_must_be_one(broker: ringpost.Broker) -> None:
    with pytest.raises(ringpost.QueueNotFound, match=r"queue 'jobs' of ring:test-.* does not exist"):
        broker.queue("jobs", create=False)
    assert broker.list() == []
    assert not broker._engine._directory.exists()


def test_a_queue_made_anew_is_empty(broker: ringpost.Broker) -> None:
    broker.queue("jobs", capacity=CAPACITY, maxsize=3).put("old")
    assert broker.delete("jobs")
    again = broker.queue("jobs", capacity=2 * CAPACITY)
    assert (again.qsize(), again.capacity, again.maxsize) == (0, 2 * CAPACITY, 0)


def test_many_threads_make_the_same_queue(broker: ringpost.Broker) -> None:
    start = threading.Barrier(8, timeout=BOUND)
    made = []

    def make(number: int) -> None:
        start.wait()
        queue = broker.queue("jobs", capacity=CAPACITY)
        queue.put(number)
        made.append(queue)

    run_all([threading.Thread(target=make, args=(number,)) for number in range(8)])
    assert len(made) == 8
    assert sorted(made[0].get_many()) == list(range(8))


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
        assert not thread.is_alive()


# ---- settings -----------------------------------------------------------------------------------


def test_settings_left_out_are_those_it_has(broker: ringpost.Broker) -> None:
    broker.queue("jobs", capacity=CAPACITY, maxsize=5)
    queue = broker.queue("jobs")
    assert (queue.capacity, queue.maxsize) == (CAPACITY, 5)


def test_the_same_settings_may_be_given(broker: ringpost.Broker) -> None:
    broker.queue("jobs", capacity=CAPACITY, maxsize=5)
    for settings in ({"capacity": CAPACITY}, {"maxsize": 5}, {"capacity": CAPACITY, "maxsize": 5}):
        broker.queue("jobs", **settings).put("x")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"capacity": 2 * CAPACITY}, f"exists with capacity={CAPACITY}, not {2 * CAPACITY}"),
        ({"capacity": CAPACITY, "maxsize": 6}, "exists with maxsize=5, not 6"),
        ({"maxsize": 0}, "exists with maxsize=5, not 0"),
        ({"maxsize": -1}, "exists with maxsize=5, not -1"),
        ({"capacity": 1}, f"exists with capacity={CAPACITY}, not 1"),
    ],
    ids=str,
)
def test_other_settings_are_refused(broker: ringpost.Broker, settings: dict[str, int], words: str) -> None:
    broker.queue("jobs", capacity=CAPACITY, maxsize=5).put("x")
    with pytest.raises(ringpost.SettingsMismatch) as raised:
        broker.queue("jobs", **settings)
    text = str(raised.value)
    assert text.startswith(f"queue 'jobs' of {broker.url} {words}")
    assert "ask for the same" in text
    assert "delete the queue" in text
    assert broker.queue("jobs").get_nowait() == "x"


def test_no_bound_in_any_way_of_saying_it(broker: ringpost.Broker) -> None:
    broker.queue("jobs", capacity=CAPACITY, maxsize=-3)
    for maxsize in (0, -1, None):
        assert broker.queue("jobs", maxsize=maxsize).maxsize == 0


@pytest.mark.parametrize("extra", [0, 1, 4096, 8191])
def test_a_capacity_that_is_rounded_is_still_the_same(broker: ringpost.Broker, extra: int) -> None:
    made = broker.queue("jobs", capacity=CAPACITY + extra)
    assert broker.queue("jobs", capacity=CAPACITY + extra).capacity == made.capacity


@pytest.mark.parametrize("capacity", [1, (128 << 10) - 1, 2**42 + 8192])
def test_capacities_out_of_range(broker: ringpost.Broker, capacity: int) -> None:
    with pytest.raises(ValueError, match=rf"create queue 'jobs' .*out of range \({capacity} bytes\)"):
        broker.queue("jobs", capacity=capacity)
    assert broker.list() == []


def test_the_default_capacity(broker: ringpost.Broker) -> None:
    assert broker.queue("jobs").capacity == 16 << 20


# ---- listing and deleting -----------------------------------------------------------------------


def test_list_is_sorted(broker: ringpost.Broker) -> None:
    for name in ("b", "a", "é", "B", "c"):
        broker.queue(name, capacity=CAPACITY)
    assert broker.list() == ["B", "a", "b", "c", "é"]


def test_delete_says_if_there_was_one(broker: ringpost.Broker) -> None:
    broker.queue("jobs", capacity=CAPACITY)
    assert broker.delete("jobs") is True
    assert broker.delete("jobs") is False
    assert broker.delete("never there") is False
    assert broker.list() == []


def test_deleting_one_leaves_the_others(broker: ringpost.Broker) -> None:
    keep, gone = (broker.queue(name, capacity=CAPACITY) for name in ("keep", "gone"))
    keep.put("x")
    broker.delete("gone")
    assert keep.get_nowait() == "x"
    for call in (gone.get_nowait, gone.qsize, lambda: gone.put("x"), lambda: gone.put_many("x")):
        with pytest.raises(ringpost.QueueDeleted, match="queue 'gone'"):
            call()


@pytest.mark.parametrize("end", ["delete", "destroy"])
def test_whoever_waits_is_told(broker: ringpost.Broker, end: str) -> None:
    queue = broker.queue("jobs", capacity=CAPACITY, maxsize=1)
    full = broker.queue("full", capacity=CAPACITY, maxsize=1)
    full.put("x")
    raised: list[BaseException] = []
    calls = [queue.get, queue.get_many, lambda: full.put("y"), lambda: full.put_many("yz"), full.join]
    waiting = threading.Barrier(len(calls) + 1, timeout=BOUND)

    def wait_in(call) -> None:
        waiting.wait()
        try:
            call()
        except ringpost.RingpostError as error:
            raised.append(error)

    threads = [threading.Thread(target=wait_in, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    waiting.wait()
    threads[0].join(0.1)  # so that most of them sleep by now: either way they must be told
    if end == "destroy":
        ringpost.connect(broker.url).destroy()
    else:
        assert broker.delete("jobs")
        assert broker.delete("full")
    for thread in threads:
        thread.join(BOUND)
    assert [type(error) for error in raised] == [ringpost.QueueDeleted] * len(calls)


def test_destroy_takes_everything(broker: ringpost.Broker) -> None:
    queues = [broker.queue(name, capacity=CAPACITY) for name in "abc"]
    broker.destroy()
    assert broker.list() == []
    assert not broker._engine._directory.exists()
    for queue in queues:
        with pytest.raises(ringpost.QueueDeleted):
            queue.get_nowait()
    broker.destroy()


def test_a_destroyed_broker_can_be_used_again(broker: ringpost.Broker) -> None:
    broker.queue("jobs", capacity=CAPACITY)
    broker.destroy()
    queue = broker.queue("jobs", capacity=CAPACITY)
    queue.put("x")
    assert queue.get_nowait() == "x"


# ---- closing ------------------------------------------------------------------------------------


def test_closing_keeps_the_data(broker: ringpost.Broker) -> None:
    with ringpost.connect(broker.url) as first:
        first.queue("jobs", capacity=CAPACITY).put("x")
    assert broker.queue("jobs", create=False).get_nowait() == "x"


def test_closing_ends_the_handles_it_gave_out(broker: ringpost.Broker) -> None:
    mine = broker.queue("jobs", capacity=CAPACITY)
    with ringpost.connect(broker.url) as other:
        handles = [other.queue("jobs") for _ in range(3)]
    for handle in handles:
        assert handle.closed
        with pytest.raises(ValueError, match=r"queue 'jobs' of ring:.* is closed"):
            handle.get_nowait()
    assert not mine.closed
    mine.put("x")


def test_a_closed_broker_says_so(broker: ringpost.Broker) -> None:
    other = ringpost.connect(broker.url)
    other.close()
    calls = [lambda: other.queue("jobs"), other.list, lambda: other.delete("jobs"), other.destroy]
    for call in calls:
        with pytest.raises(ValueError, match=rf"the broker {broker.url} is closed: connect\(\) again"):
            call()
    other.close()
    assert broker.list() == []


def test_handles_that_nobody_has_any_more_are_not_kept(broker: ringpost.Broker) -> None:
    handle = broker.queue("jobs", capacity=CAPACITY)
    gone = weakref.ref(handle)
    del handle
    gc.collect()
    assert gone() is None


def test_a_broker_is_closed_when_its_block_raises(broker: ringpost.Broker) -> None:
    other = ringpost.connect(broker.url)
    handle = other.queue("jobs", capacity=CAPACITY)
    with pytest.raises(KeyError), other:
        raise KeyError
    assert handle.closed


# ---- telling about itself, travelling -----------------------------------------------------------


def test_repr(broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs", capacity=CAPACITY)
    assert repr(broker) == f"<ringpost.Broker {broker.url}>"
    assert repr(queue) == "<ringpost.Queue jobs open>"
    queue.close()
    assert repr(queue) == "<ringpost.Queue jobs closed>"


def test_pickled_brokers_and_queues_find_the_same_queue(broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs", capacity=CAPACITY, maxsize=4)
    queue.put("x")
    queue.put("y")
    with pickle.loads(pickle.dumps(broker)) as other:
        assert other.url == broker.url
        assert other.queue("jobs", create=False).get_nowait() == "x"
    with pickle.loads(pickle.dumps(queue)) as copied:
        assert (copied.name, copied.maxsize, copied.get_nowait()) == ("jobs", 4, "y")


def test_a_pickled_queue_may_still_unpickle(broker: ringpost.Broker) -> None:
    queue = broker.queue("jobs", capacity=CAPACITY, pickle=True)
    queue.put({1j})
    with pickle.loads(pickle.dumps(queue)) as copied:
        assert copied.get_nowait() == {1j}


def answer(broker: ringpost.Broker) -> None:
    broker.queue("answers").put(["from", os.getpid(), broker.queue("questions").get(timeout=BOUND)])


def test_a_broker_as_an_argument_of_another_process(broker: ringpost.Broker) -> None:
    broker.queue("questions", capacity=CAPACITY).put("why")
    answers = broker.queue("answers", capacity=CAPACITY)
    process = multiprocessing.get_context("fork").Process(
        target=answer, args=(pickle.loads(pickle.dumps(broker)),)
    )
    process.start()
    try:
        assert answers.get(timeout=BOUND) == ["from", process.pid, "why"]
    finally:
        process.join(BOUND)
    assert process.exitcode == 0
