"""Arrays in place: loans on the sending side, views on the receiving one."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from unit.test_arrays import ARRAYS, OBJECTS, same

import ringpost

MakeQueue = Callable[..., ringpost.Queue[Any]]

CAPACITY = 1 << 20
LARGE = 100_000  # bytes, of which the pool holds five
ORDERS = ["C", "F"]


def pool_used(queue: ringpost.Queue[Any]) -> int:
    gc.collect()
    return int(queue._log.info()["pool_used"])


def address(array: numpy.ndarray[Any, Any]) -> int:
    return int(array.ctypes.data)


def lend(queue: ringpost.Queue[Any], value: int, size: int = LARGE) -> None:
    with queue.producer().loan(size, "u1") as array:
        array[...] = value


def fill_the_pool(queue: ringpost.Queue[Any], value: int) -> int:
    """Every byte of it that nobody holds; how many messages that took."""
    sent = 0
    try:
        while True:
            with queue.producer(overflow="raise").loan(20_000, "u1") as array:
                array[...] = value
            del array
            sent += 1
    except ringpost.Full:
        return sent


# ---- loans --------------------------------------------------------------------------------------


def test_any_array_is_lent(queue: ringpost.Queue[Any]) -> None:
    for name, array in ARRAYS.items():
        for order in ORDERS:
            loan = queue.producer().loan(array.shape, array.dtype, order=order)
            assert loan.array.flags[f"{order}_CONTIGUOUS"], name
            loan.array[...] = array
            sent = loan.array.tobytes("A")
            loan.commit()
            assert queue.qsize() == 1
            with queue.consumer() as consumer, consumer.receive(timeout=0) as message:
                view = message.array
                assert (view.dtype, view.shape, view.tobytes("A")) == (array.dtype, array.shape, sent), name
                assert view.flags[f"{order}_CONTIGUOUS"], name
                assert not view.flags.writeable, name


@pytest.mark.parametrize("name", ARRAYS)
def test_any_array_that_was_sent_is_viewed(broker: ringpost.Broker, binding: Any, name: str) -> None:
    queue = broker.queue("sent")
    queue.producer().send(ARRAYS[name])
    with queue.consumer() as consumer, consumer.receive(timeout=0) as message:
        assert same(message.array, ARRAYS[name])
        assert not message.array.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            message.array.flags.writeable = True


def test_a_dtype_of_arrays_is_more_dimensions(queue: ringpost.Queue[Any]) -> None:
    with queue.producer().loan(3, "(2,)f8") as array:
        array[...] = [1, 2]
    back = queue.get_nowait()
    assert (back.dtype, back.tolist()) == (numpy.dtype("f8"), [[1, 2]] * 3)


def test_nothing_is_there_before_commit(queue: ringpost.Queue[Any]) -> None:
    loan = queue.producer().loan((2, 3), "i4")
    assert queue.empty()
    assert loan.array.shape == (2, 3)
    assert loan.open
    loan.array[...] = 7
    loan.commit()
    assert not loan.open
    assert queue.qsize() == 1
    assert (queue.get_nowait() == numpy.full((2, 3), 7)).all()


def test_an_exception_aborts(queue: ringpost.Queue[Any]) -> None:
    def fail() -> None:
        with queue.producer().loan(LARGE, "u1") as array:
            array[...] = 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert queue.empty()
    assert pool_used(queue) == 0


def test_abort_in_the_block(queue: ringpost.Queue[Any]) -> None:
    loan = queue.producer().loan(LARGE, "u1")
    with loan as array:
        loan.abort()
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert queue.empty()
    loan.abort()
    with pytest.raises(ValueError, match="before"):
        loan.commit()
    with pytest.raises(ValueError, match="before"):
        _ = loan.array
    del array
    assert pool_used(queue) == 0


def test_a_forgotten_loan_is_none(queue: ringpost.Queue[Any]) -> None:
    queue.producer().loan(LARGE, "u1")
    assert pool_used(queue) == 0
    assert queue.empty()


def test_headers_come_along_and_items_are_aligned(queue: ringpost.Queue[Any]) -> None:
    for length in range(0, 70, 3):
        headers = {"x" * length: 1}
        with queue.producer().loan(3, "f8", headers=headers, correlation_id="c", ttl=60) as array:
            assert address(array) % 64 == 0
            array[...] = length
        with queue.consumer() as consumer, consumer.receive(timeout=0) as message:
            assert message.headers == headers
            assert message.correlation_id == "c"
            assert message.ttl_ms == 60_000
            assert address(message.array) % 64 == 0
            assert message.body.flags.aligned
            assert message.array.tolist() == message.body.tolist() == [length] * 3


@pytest.mark.parametrize("array", OBJECTS.values(), ids=OBJECTS.keys())
def test_objects_are_not_lent(queue: ringpost.Queue[Any], array: numpy.ndarray[Any, Any]) -> None:
    with pytest.raises(ringpost.EncodeError, match="Python objects"):
        queue.producer().loan(3, array.dtype)


def test_bad_loans(make: MakeQueue) -> None:
    queue = make(capacity=CAPACITY)
    producer = queue.producer(overflow="raise")
    with pytest.raises(ringpost.MessageTooLarge):
        producer.loan(CAPACITY, "u1")
    with pytest.raises(ValueError, match="negative"):
        producer.loan((2, -1), "u1")
    with pytest.raises(ValueError, match="'order'"):
        producer.loan(2, "u1", order="K")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        producer.loan(2, "no dtype")
    for shape in (3.9, (3.9,), "34", [numpy.float64(2)], None):
        with pytest.raises(TypeError):
            producer.loan(shape, "u1")
    held = producer.loan(CAPACITY // 2 - 8192, "u1")
    with pytest.raises(ringpost.Full):
        producer.loan(CAPACITY // 4, "u1")
    held.abort()
    assert pool_used(queue) == 0


def test_a_loan_of_a_queue_that_was_shut_down_stays_open(queue: ringpost.Queue[Any]) -> None:
    loan = queue.producer().loan(LARGE, "u1")
    queue.shutdown()
    with pytest.raises(ringpost.ShutDown):
        loan.commit()
    assert loan.open
    loan.abort()
    assert pool_used(queue) == 0


def test_typed_queues_lend_nothing(broker: ringpost.Broker) -> None:
    with pytest.raises(ringpost.EncodeError):
        broker.queue("typed", type=dict[str, int]).producer().loan(3)


def test_priorities(broker: ringpost.Broker) -> None:
    queue = broker.queue("levels", priorities=True)
    for priority in (0, 5):
        with queue.producer().loan(LARGE, "u1", priority=priority) as array:
            array[...] = priority
    with queue.consumer() as consumer:
        assert [consumer.receive(timeout=1).array[0] for _ in range(2)] == [5, 0]


def test_drop_oldest_makes_room(make: MakeQueue) -> None:
    queue = make(capacity=CAPACITY)
    producer = queue.producer(overflow="drop-oldest")
    for number in range(20):
        with producer.loan(LARGE, "u1") as array:
            array[...] = number
        del array
    assert queue.get_nowait()[0] > 0


# ---- views --------------------------------------------------------------------------------------


def test_a_view_is_shared_memory(queue: ringpost.Queue[Any]) -> None:
    lend(queue, 1)
    with queue.consumer() as consumer:
        message = consumer.receive(timeout=0)
        assert address(message.array) == address(message.array)
        assert message.body.tobytes() == message.array.tobytes()
        assert address(message.body) != address(message.array)


@pytest.mark.parametrize("end", ["ack", "reject", "release", "nothing"])
def test_a_view_that_is_kept_never_sees_other_messages(make: MakeQueue, end: str) -> None:
    """Nothing that is sent afterwards lies where the view looks, however full the pool is."""
    queue = make(capacity=CAPACITY)
    lend(queue, 1)
    consumer = queue.consumer(auto_ack=end == "nothing")
    message = consumer.receive(timeout=0)
    view = message.array[10:20]
    if end == "release":
        message.release()
        message.ack()
    elif end != "nothing":
        getattr(message, end)()
    if end != "nothing":
        with pytest.raises(ValueError, match="released"):
            _ = message.array
    del message
    kept = pool_used(queue)
    assert kept >= LARGE
    for value in range(2, 12):
        sent = fill_the_pool(queue, value)
        assert sent > 5
        for _ in range(sent):
            got = consumer.receive(timeout=0)
            assert (got.array == value).all()
            got.settled or got.ack()
            del got
        assert (view == 1).all()
    del view
    queue.put(b"x" * (CAPACITY // 2))  # needs every byte of the pool
    consumer.close()


def test_a_view_outlives_the_handles(make: MakeQueue) -> None:
    queue = make()
    lend(queue, 9)
    with queue.consumer() as consumer:
        view = consumer.receive(timeout=0).array
    queue.close()
    del consumer
    gc.collect()
    assert (view == 9).all()


def test_a_message_given_back_may_be_viewed_twice(queue: ringpost.Queue[Any]) -> None:
    lend(queue, 4)
    with queue.consumer() as first, queue.consumer() as second:
        message = first.receive(timeout=0)
        view = message.array
        message.nack()
        again = second.receive(timeout=1)
        assert address(again.array) == address(view)
        again.ack()
        del again, message
        assert pool_used(queue) >= LARGE
        assert (view == 4).all()


def test_the_body_after_ack(queue: ringpost.Queue[Any]) -> None:
    """A message that nobody looked at keeps its payload until it is gone itself."""
    lend(queue, 3)
    with queue.consumer() as consumer:
        message = consumer.receive(timeout=0)
        message.ack()
        assert (message.body == 3).all()
        assert (message.array == 3).all()  # of the copy


def test_payloads_that_are_no_arrays(broker: ringpost.Broker) -> None:
    queue = broker.queue("bytes")
    text = b"ab" * LARGE
    queue.put(text)
    queue.put(b"small")
    with queue.consumer() as consumer:
        large, small = consumer.receive(timeout=0), consumer.receive(timeout=0)
        assert (large.size, small.size) == (len(text), 5)
        assert bytes(memoryview(large.view())) == text == large.body
        assert bytes(memoryview(small.view())) == b"small"
        for message in (large, small):
            with pytest.raises(TypeError, match="no array but bytes"):
                _ = message.array


def test_every_kind_of_buffer_is_read_only(queue: ringpost.Queue[Any]) -> None:
    lend(queue, 3)
    with queue.consumer() as consumer:
        message = consumer.receive(timeout=0)
        view = memoryview(message.view())
        assert view.readonly
        assert numpy.frombuffer(view, "u1").flags.writeable is False


def test_dlpack(queue: ringpost.Queue[Any]) -> None:
    """DLPack knows no read-only memory before its version 1: numpy says so itself."""
    with queue.producer().loan((3, 4), "f4") as array:
        numpy.from_dlpack(array)[...] = 2.5
        del array
    with queue.consumer() as consumer:
        view = consumer.receive(timeout=0).array
        if numpy.lib.NumpyVersion(numpy.__version__) >= "2.1.0":
            other = numpy.from_dlpack(view)
            assert address(other) == address(view)
            assert (other == 2.5).all()
        else:
            with pytest.raises(BufferError, match="readonly"):
                numpy.from_dlpack(view)
        assert (numpy.from_dlpack(view.copy()) == 2.5).all()


def test_a_kept_loan_cannot_reach_other_messages(make: MakeQueue) -> None:
    queue = make(capacity=CAPACITY)
    loan = queue.producer().loan(LARGE, "u1")
    array = loan.array
    part = array[:100]  # numpy does not tell it that it is read-only now
    array[...] = 1
    loan.commit()
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 2
    del array
    assert (queue.get_nowait() == 1).all()
    part[...] = 77
    sent = fill_the_pool(queue, 3)
    assert sent
    part[...] = 78
    assert all((queue.get_nowait() == 3).all() for _ in range(sent))


def test_too_many_views_are_copies(broker: ringpost.Broker) -> None:
    topic = broker.topic("frames")
    subscribers = [topic.subscribe() for _ in range(40)]
    with topic.loan(LARGE, "u1", subject="a.b") as array:
        array[...] = 5
    views = [each.receive(timeout=1).array for each in subscribers]
    assert all((view == 5).all() for view in views)
    in_place = [view for view in views if address(view) % 4096 == address(array) % 4096]
    assert 0 < len(in_place) <= 31


# ---- topics -------------------------------------------------------------------------------------


def test_topics_lend_and_show(broker: ringpost.Broker) -> None:
    topic = broker.topic("prices")
    first, second = topic.subscribe("eu.*"), topic.subscribe("#", name="audit")
    other = topic.subscribe("us.*")
    with topic.loan((2, 10_000), "f8", subject="eu.dax", headers={"n": 1}) as array:
        array[...] = 1.5
    for subscriber in (first, second):
        message = subscriber.receive(timeout=1)
        assert message.subject == "eu.dax"
        assert message.headers == {"n": 1}
        assert address(message.array) % 64 == 0
        assert (message.array == 1.5).all()
    with pytest.raises(ringpost.Empty):
        other.receive(timeout=0)


def test_a_view_of_a_topic_survives_its_history(broker: ringpost.Broker) -> None:
    topic = broker.topic("frames", capacity=CAPACITY)
    subscriber = topic.subscribe()
    kept = []
    for number in range(30):
        with topic.loan(LARGE, "u1", timeout=0) as array:
            array[...] = number
        message = subscriber.receive(timeout=0)
        if number in (3, 17):
            kept.append((number, message.array))
        del message, array
    assert all((view == number).all() for number, view in kept)


def test_a_full_topic(broker: ringpost.Broker) -> None:
    topic = broker.topic("frames", capacity=CAPACITY)
    subscriber = topic.subscribe(on_lag="error")
    for _ in range(4):
        topic.loan(LARGE, "u1").commit()
    with pytest.raises(ringpost.Full, match="on_lag"):
        topic.loan(LARGE, "u1")
    assert subscriber.receive(timeout=0).array.shape == (LARGE,)


# ---- lifetimes ----------------------------------------------------------------------------------


def test_arrays_go_at_once(queue: ringpost.Queue[Any]) -> None:
    lend(queue, 1)
    consumer = queue.consumer()
    message = consumer.receive(timeout=0)
    view = weakref.ref(message.array)
    assert view() is None
    message.ack()
    consumer.close()


def test_a_forked_child_cannot_commit_its_parents_loan(queue: ringpost.Queue[Any]) -> None:
    loan = queue.producer().loan(LARGE, "u1")
    child = os.fork()
    if child == 0:
        try:
            loan.commit()
        except ValueError as error:
            os._exit(0 if "parent" in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    loan.array[...] = 6
    loan.commit()
    assert (queue.get_nowait() == 6).all()
