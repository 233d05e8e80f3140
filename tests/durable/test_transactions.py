"""Messages taken from some queues and sent to others, all or nothing."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from conformance.patience import BOUND

import ringpost
from durable.conftest import Reboot
from ringpost.store import transactions

LARGE = 60_000


def bodies(queue: ringpost.Queue[Any]) -> list[Any]:
    found: list[Any] = []
    while not queue.empty():
        found += queue.get_many(block=False)
    return found


def test_all_of_it(durable: ringpost.Broker, reboot: Reboot) -> None:
    orders, parcels = durable.queue("orders"), durable.queue("parcels")
    news = durable.topic("news")
    reader = news.subscribe("#", name="reader")
    orders.put_many(["one", "two", "three"])
    consumer = orders.consumer()
    with durable.transaction() as tx:
        tx.ack(consumer.receive(BOUND))
        tx.ack_many([consumer.receive(BOUND)])
        tx.send("invoices", {"of": "one"}, headers={"paid": True}, message_id="i1")
        tx.send(parcels, b"x" * LARGE)
        tx.send(parcels, "small")
        tx.publish(news, "sold", subject="eu")
        assert durable.queue("invoices").empty()
    message = reader.receive(BOUND)
    assert (message.body, message.subject) == ("sold", "eu")
    consumer.close()
    broker = reboot()
    assert bodies(broker.queue("orders")) == ["three"]
    invoice = broker.queue("invoices").consumer().receive(BOUND)
    assert (invoice.body, dict(invoice.headers), invoice.id) == ({"of": "one"}, {"paid": True}, "i1")
    assert bodies(broker.queue("parcels")) == [b"x" * LARGE, "small"]


def test_nothing_of_it(durable: ringpost.Broker) -> None:
    orders = durable.queue("orders")
    orders.put("one")
    consumer = orders.consumer()
    message = consumer.receive(BOUND)
    with pytest.raises(ZeroDivisionError), durable.transaction() as tx:  # noqa: PT012
        tx.ack(message)
        tx.send("invoices", "no")
        raise ZeroDivisionError
    assert durable.queue("invoices").empty()
    assert not message.settled
    message.ack()
    with pytest.raises(ValueError, match="is over"):
        tx.send("invoices", "no")


def test_a_lost_lease_undoes_it(durable: ringpost.Broker) -> None:
    orders = durable.queue("orders")
    orders.put("one")
    first, second = orders.consumer(lease=0.05), orders.consumer()
    message = first.receive(BOUND)
    other = second.receive(BOUND)
    with pytest.raises(ringpost.LeaseLost), durable.transaction() as tx:  # noqa: PT012
        tx.ack(message)
        tx.send("invoices", "no")
    assert durable.queue("invoices").empty()
    with pytest.raises(ringpost.LeaseLost), durable.transaction() as tx:  # noqa: PT012
        other.ack()
        tx.ack(other)


def test_what_it_cannot_do(durable: ringpost.Broker, broker: ringpost.Broker) -> None:
    small = durable.queue("small", capacity=1 << 20, maxsize=1)
    small.put("x")
    memory = broker.queue("memory")
    memory.put("x")
    with durable.transaction() as tx:
        with pytest.raises(ringpost.MessageTooLarge):
            tx.send(small, bytes(1 << 20))
        with pytest.raises(ringpost.Full):
            tx.send(small, "y")
        with pytest.raises(ringpost.EncodeError):
            tx.send(small, object())
        with pytest.raises(ringpost.Unsupported, match="priorities=True"):
            tx.send(small, "y", priority=3)
        with pytest.raises(ValueError, match="not a durable queue"):
            tx.send(memory, "y")
        with pytest.raises(ValueError, match="not from a durable queue"):
            tx.ack(memory.consumer().receive(BOUND))
    with pytest.raises(ringpost.Unsupported, match="ring:///DIRECTORY"):
        broker.transaction()
    assert bodies(small) == ["x"]


def test_priorities_and_groups(durable: ringpost.Broker) -> None:
    orders, ranked = durable.queue("orders"), durable.queue("ranked", priorities=True)
    copy = orders.consumer(group="copy")
    orders.put("one")
    with durable.transaction() as tx:
        tx.ack(copy.receive(BOUND))
        tx.send(ranked, "low")
        tx.send(ranked, "high", priority=9)
    assert [ranked.get(timeout=BOUND) for _ in range(2)] == ["high", "low"]
    assert orders.qsize() == 1
    with pytest.raises(ringpost.Empty):
        copy.receive(0)


STEPS = ("T1", "T2", "ack", "put 0", "put 1", "put 2", "T4 before", "T4")


@pytest.mark.parametrize("rebooted", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_death_at_each_step(
    url: str, durable: ringpost.Broker, reboot: Reboot, step: str, rebooted: bool
) -> None:
    """Done before T2 is decided: nothing. From then on: everything, once."""
    durable.queue("orders").put_many(["one", "two", "three"])
    child = os.fork()
    if child == 0:
        _die_at(step)
        with ringpost.connect(url) as broker:
            consumer = broker.queue("orders").consumer()
            with broker.transaction() as tx:
                tx.ack(consumer.receive(BOUND))
                tx.ack(consumer.receive(BOUND))
                tx.send("invoices", "first")
                tx.send("invoices", b"x" * LARGE)
                tx.send("parcels", "third")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    broker = reboot() if rebooted else durable
    orders = broker.queue("orders").consumer()
    found = [orders.receive(BOUND).body]
    while True:
        try:
            found.append(orders.receive(0.2).body)
        except ringpost.Empty:
            break
    with broker.transaction() as tx:  # whoever comes next finishes what was decided
        tx.send("other", "x")
    sent = (bodies(broker.queue("invoices")), bodies(broker.queue("parcels")))
    if step == "T1":
        assert sorted(found) == ["one", "three", "two"]
        assert sent == ([], [])
    else:
        assert found == ["three"]
        assert sent == (["first", b"x" * LARGE], ["third"])


def _die_at(step: str) -> None:
    """In a child: kill -9 before the step is done, or right after T2 and T4."""

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    puts = iter(range(100))
    put = transactions._put
    if step == "T1":
        transactions.Transactions.carry_out = die  # type: ignore[method-assign]
    elif step == "ack":
        from ringpost.transaction import Transaction

        settle = Transaction._settle
        Transaction._settle = lambda self: (settle(self), die())[0]  # type: ignore[method-assign]
    elif step == "T2":
        from ringpost.transaction import Transaction

        Transaction._settle = die  # type: ignore[method-assign, assignment]
    elif step.startswith("put"):
        last = int(step[-1])

        def put_some(log: Any, messages: list[Any], label: str) -> None:
            for one in messages:
                put(log, [one], label)
                if next(puts) == last:
                    die()

        transactions._put = put_some
    else:
        end = transactions.Transactions._end

        def end_and_die(self: Any, *args: Any) -> None:
            if step == "T4":
                end(self, *args)
            die()

        transactions.Transactions._end = end_and_die  # type: ignore[method-assign]


def test_a_consumer_that_was_waiting_gets_nothing_that_was_acked(url: str, durable: ringpost.Broker) -> None:
    """The one whose process died right after it decided."""
    orders = durable.queue("orders")
    orders.put_many(["one", "two"])
    child = os.fork()
    if child == 0:
        _die_at("T2")
        with ringpost.connect(url) as broker:
            consumer = broker.queue("orders").consumer(prefetch=1)
            with broker.transaction() as tx:
                tx.ack(consumer.receive(BOUND))
                tx.send("invoices", "first")
        os._exit(1)
    os.waitpid(child, 0)
    assert orders.get(timeout=BOUND) == "two"
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        with pytest.raises(ringpost.Empty):
            orders.get(timeout=0.1)
    assert durable.queue("invoices").get(timeout=BOUND) == "first"


def test_while_others_consume(durable: ringpost.Broker) -> None:
    """What was put, got and acked before somebody looks for it is not sent again."""
    invoices = durable.queue("invoices")
    for number in range(100):
        with durable.transaction() as tx:
            tx.send(invoices, number)
        assert invoices.get(timeout=BOUND) == number
    assert invoices.empty()


def test_after_a_disk_error_storage_is_opened_again(durable: ringpost.Broker) -> None:
    """What was known of its tables is good for nothing then."""
    durable.queue("a").put(1)
    environment = durable._engine._environment()  # type: ignore[attr-defined]
    transactions = durable._engine.transactions()  # type: ignore[attr-defined]
    environment._reopen()
    assert transactions._pending() == []
    with durable.queue("a").consumer() as consumer, durable.transaction() as tx:
        tx.ack(consumer.receive(timeout=BOUND))
        tx.send("b", 2)
    assert (durable.queue("a").qsize(), durable.queue("b").get(timeout=BOUND)) == (0, 2)
