"""Requests and replies."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, Call, eventually
from ringpost.envelope import Envelope, seal


@pytest.fixture
def served(binding: Any, broker: ringpost.Broker) -> Iterator[ringpost.Queue[Any]]:
    """A queue whose one consumer squares what comes, until the queue is shut down."""
    queue = broker.queue("squares")

    def serve() -> None:
        for message in queue.consumer():
            with message:
                message.reply(message.body**2)

    call = Call(serve)
    yield queue
    queue.shutdown()
    call.result()


def test_the_answer_comes_back(broker: ringpost.Broker, served: ringpost.Queue[Any]) -> None:
    assert broker.request("squares", 12, timeout=BOUND) == 144
    assert broker.request(served, 3, timeout=BOUND) == 9


def test_each_asker_gets_its_own_answer(broker: ringpost.Broker, served: ringpost.Queue[Any]) -> None:
    calls = [Call(broker.request, "squares", number, BOUND) for number in range(30)]
    assert [call.result() for call in calls] == [number**2 for number in range(30)]


def test_another_process_answers(binding: Any, broker: ringpost.Broker) -> None:
    child = os.fork()
    if child == 0:
        try:
            with broker.queue("upper").consumer().receive(BOUND) as message:
                message.reply(message.body.upper(), headers={"by": os.getpid()})
        finally:
            os._exit(0)
    assert broker.request("upper", "abc", timeout=BOUND) == "ABC"
    os.waitpid(child, 0)


def test_a_forked_child_asks_for_itself(broker: ringpost.Broker, served: ringpost.Queue[Any]) -> None:
    assert broker.request("squares", 2, timeout=BOUND) == 4
    child = os.fork()
    if child == 0:
        os._exit(0 if broker.request("squares", 5, timeout=BOUND) == 25 else 1)
    assert broker.request("squares", 3, timeout=BOUND) == 9
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_no_answer_is_a_timeout_and_a_late_one_disturbs_nobody(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("slow")
    with pytest.raises(TimeoutError, match="slow"):
        broker.request("slow", "first", timeout=0.05)
    queue.producer()  # its time to live was the timeout: nobody has to answer any more
    with queue.consumer() as consumer:
        with pytest.raises(ringpost.Empty):
            consumer.receive(0)
        call = Call(broker.request, "slow", "second", 0.2)
        late = consumer.receive(BOUND)
        with pytest.raises(TimeoutError):
            call.result()
        late.reply("too late")
        late.ack()
        call = Call(broker.request, "slow", "third", BOUND)
        with consumer.receive(BOUND) as message:
            message.reply("in time")
        assert call.result() == "in time"


def test_an_answer_to_the_dead_says_so(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    child = os.fork()
    if child == 0:
        threading.Thread(target=broker.request, args=("q", "x"), daemon=True).start()
        eventually(lambda: queue.qsize() == 1)
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    broker._engine.collect()
    with queue.consumer().receive(BOUND) as message, pytest.raises(ringpost.QueueNotFound):
        message.reply("anybody there?")


def test_a_message_that_asks_nothing_has_no_answer(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    queue.put("x")
    with pytest.raises(ValueError, match="reply_to"):
        queue.consumer().receive(0).reply("y")


def test_an_error_in_the_request_is_raised(binding: Any, broker: ringpost.Broker) -> None:
    broker.queue("q").shutdown()
    with pytest.raises(ringpost.ShutDown):
        broker.request("q", "x", timeout=1)
    with pytest.raises(ringpost.EncodeError):
        broker.request("other", object(), timeout=1)


def test_reply_queues_are_gone_after_close(binding: Any, shm_dir: Any, served: Any) -> None:
    with ringpost.connect(served._broker.url) as broker:
        broker.request("squares", 1, timeout=BOUND)
        assert list(shm_dir.rglob("*.replies"))
    eventually(lambda: not list(shm_dir.rglob("*.replies")))


def test_a_forked_child_that_closes_takes_no_answers_from_its_parent(
    broker: ringpost.Broker, served: ringpost.Queue[Any]
) -> None:
    assert broker.request("squares", 2, timeout=BOUND) == 4
    child = os.fork()
    if child == 0:
        broker.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert broker.request("squares", 3, timeout=BOUND) == 9


def test_another_answers_if_the_first_is_killed(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    child = os.fork()
    if child == 0:
        queue.consumer().receive(BOUND)
        os.kill(os.getpid(), 9)
    call = Call(broker.request, queue, "abc", BOUND)
    os.waitpid(child, 0)
    with queue.consumer().receive(BOUND) as message:
        assert message.redelivered
        message.reply(message.body.upper())
    assert call.result() == "ABC"


def test_without_another_it_is_a_timeout(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    child = os.fork()
    if child == 0:
        queue.consumer().receive(BOUND)
        os.kill(os.getpid(), 9)
    with pytest.raises(TimeoutError):
        broker.request(queue, "abc", timeout=0.2)
    os.waitpid(child, 0)


def test_one_who_fails_to_answer_gives_the_request_back(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    call = Call(broker.request, queue, "x", BOUND)
    with queue.consumer() as consumer:
        with pytest.raises(ringpost.EncodeError), consumer.receive(BOUND) as message:
            message.reply(object())
        with consumer.receive(BOUND) as message:
            message.reply("better")
    assert call.result() == "better"


def test_the_first_answer_counts(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    with queue.consumer() as consumer:
        for number in range(3):
            call = Call(broker.request, queue, number, BOUND)
            with consumer.receive(BOUND) as message:
                message.reply(number)
                message.reply("once more")
            assert call.result() == number


def test_an_answer_that_cannot_be_decoded_is_raised(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    with queue.consumer() as consumer:
        call = Call(broker.request, queue, "x", BOUND)
        with consumer.receive(BOUND) as message:
            replies = broker._open_reply_queue(message.reply_to or "", create=False)
            envelope = seal(Envelope(correlation_id=message.correlation_id))
            replies._log.send_raw(1, b"\xff\xfe", None, envelope)  # no UTF-8
            replies.close()
        with pytest.raises(ringpost.DecodeError):
            call.result()
        call = Call(broker.request, queue, "y", BOUND)
        with consumer.receive(BOUND) as message:
            message.reply("still there")
        assert call.result() == "still there"


def test_closing_ends_the_requests_of_other_threads(binding: Any, shm_dir: Any) -> None:
    with ringpost.connect("ring:closes-early") as other, other.queue("q") as queue:
        broker = ringpost.connect(other.url)
        call = Call(broker.request, "q", "x", BOUND)
        message = queue.consumer().receive(BOUND)
        broker.close()
        with pytest.raises(ValueError, match="closed before an answer"):
            call.result()
        with pytest.raises(ringpost.QueueNotFound):
            message.reply("too late")
        other.destroy()


def test_a_request_says_what_its_sender_said(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q")
    call = Call(broker.request, queue, None, BOUND, headers={"tenant": 7})
    with queue.consumer() as consumer, consumer.receive(BOUND) as message:
        assert (message.body, message.headers) == (None, {"tenant": 7})
        assert message.correlation_id
        message.reply(None)
    assert call.result() is None


def test_a_full_queue_takes_no_longer_than_the_timeout(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q", maxsize=1)
    queue.put("in the way")
    call = Call(broker.request, "q", "x", 0.1)
    with pytest.raises(ringpost.Full):
        call.result()


def test_waiting_for_room_is_part_of_the_timeout(binding: Any, broker: ringpost.Broker) -> None:
    queue = broker.queue("q", maxsize=1)
    queue.put("in the way")
    start = time.monotonic()
    call = Call(broker.request, "q", "x", 2)
    time.sleep(1)
    assert queue.get() == "in the way"
    with pytest.raises(TimeoutError):
        call.result()
    assert 1.9 < time.monotonic() - start < 2.9


def test_requests_are_answered_after_another_has_destroyed_the_broker(binding: Any) -> None:
    with ringpost.connect("ring:made-again") as broker:
        for _ in range(3):
            with broker.queue("q") as queue, queue.consumer() as consumer:
                call = Call(broker.request, queue, "x", BOUND)
                with consumer.receive(BOUND) as message:
                    message.reply("y")
                assert call.result() == "y"
                unanswered = Call(broker.request, queue, "nobody answers")
                consumer.receive(BOUND)
                destroy_in_child(broker.url)
                with pytest.raises(ringpost.QueueDeleted, match="before an answer"):
                    unanswered.result()


def destroy_in_child(url: str) -> None:
    child = os.fork()
    if child == 0:
        ringpost.connect(url).destroy()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_threads_that_answer_one_who_is_gone_all_hear_of_it(binding: Any, broker: ringpost.Broker) -> None:
    """Wherever the others are when the first finds out."""
    with ringpost.connect(broker.url) as other:
        call = Call(other.request, broker.queue("q"), "x", BOUND)
        message = broker.queue("q").consumer().receive(BOUND)
        message.reply("y")
        assert call.result() == "y"
        replies, reply_to = broker._replies, str(message.reply_to)
        queue = replies.queue_of(reply_to)
        late = [queue.producer(), queue.producer()]
    with pytest.raises(ringpost.QueueNotFound):
        message.reply("too late")
    for producer in late:
        with pytest.raises(ringpost.QueueNotFound):
            replies.send_to(producer, reply_to, "too late", {})
    replies._others[reply_to] = queue  # closed
    with pytest.raises(ringpost.QueueNotFound):
        message.reply("too late")
    replies._others[reply_to] = queue
    replies._forget_the_gone()
    assert not replies._others


def test_an_answer_that_is_no_answer_is_told_from_one_to_the_gone(
    binding: Any, broker: ringpost.Broker
) -> None:
    call = Call(broker.request, broker.queue("q"), "x", BOUND)
    message = broker.queue("q").consumer().receive(BOUND)
    with pytest.raises(ValueError, match="ttl"):
        message.reply("y", ttl=-1)
    message.reply("y")
    assert call.result() == "y"
