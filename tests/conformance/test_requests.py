"""Requests and replies."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

import ringpost
from conformance.patience import BOUND, Call, eventually


@pytest.fixture
def served(binding: Any, broker: ringpost.Broker) -> ringpost.Queue[Any]:
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
