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
from ringpost.store import format as form
from ringpost.store import transactions
from ringpost.store.registry import Registry
from ringpost.store.writer import Writer

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


def publish_and_die(url: str, step: str, **message: Any) -> None:
    """In a transaction, under the topic "news": in a child that dies there."""
    child = os.fork()
    if child == 0:
        _die_at(step)
        with ringpost.connect(url) as broker, broker.transaction() as tx:
            tx.publish(broker.topic("news"), **message)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def records(broker: ringpost.Broker) -> list[Any]:
    return broker._engine._writer().decided.records()  # type: ignore[attr-defined, no-any-return]


def all_of(topic: ringpost.Topic[Any]) -> list[Any]:
    topic.publish("end")
    found: list[Any] = []
    with topic.subscribe(start="earliest") as subscriber:
        while not found or found[-1] != "end":
            found.append(subscriber.receive(BOUND).body)
    return found[:-1]


def test_what_the_dead_published_is_found_though_retention_is_exceeded(
    url: str, durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has the topic open already goes on before anybody looks for the dead."""
    monkeypatch.setattr("ringpost.store.writer._LOOK", 1000.0)
    news = durable.topic("news", capacity=256 << 10, retention=ringpost.Retention(bytes=100_000))
    publish_and_die(url, "T4 before", body="of the dead")
    for number in range(400):
        news.publish(bytes(10_000) + b"%d" % number)
    assert durable._engine._environment().size() > 4_000_000  # type: ignore[attr-defined]
    durable.queue("other").put(1)  # opening finishes it
    assert records(durable) == []
    news.publish("one more")
    assert durable._engine._environment().size() < 1_000_000  # type: ignore[attr-defined]
    found = all_of(news)
    assert "of the dead" not in found  # it is too old by now, and was not sent once more
    assert found[-2][-3:] == b"399"


def test_what_the_dead_published_stays_where_it_is_though_it_is_superseded(
    url: str, durable: ringpost.Broker, reboot: Reboot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringpost.store.writer._LOOK", 1000.0)
    news = durable.topic("news", capacity=256 << 10, retention=ringpost.Retention(compact=True))
    publish_and_die(url, "T4 before", body="old", key="k")
    news.publish("newer", key="k")
    news.publish("new", key="k")
    broker = reboot()
    broker.queue("other").put(1)
    assert records(broker) == []
    news = broker.topic("news")
    news.publish("something else", key="other")  # what was put off is made up for
    assert all_of(news) == ["new", "something else"]


def test_a_topic_to_which_only_transactions_publish_is_compacted(
    durable: ringpost.Broker, reboot: Reboot
) -> None:
    news = durable.topic("news", retention=ringpost.Retention(compact=True))
    for number in range(50):
        with durable.transaction() as tx:
            tx.publish(news, bytes(10_000) + b"%d" % number, key="k")
    assert durable._engine._environment().size() < 250_000  # type: ignore[attr-defined]
    found = all_of(reboot().topic("news"))
    assert [each[10_000:] for each in found] == [b"49"]


def lose_what_was_published(broker: ringpost.Broker, news: ringpost.Topic[Any]) -> None:
    """All blocks of the topic "news" but the last."""
    broker.flush()
    news.publish("after")
    engine: Any = broker._engine
    environment = engine._environment()
    record = Registry(environment).find("topic", "news")
    assert record is not None
    prefix = form.number_key(record.number)
    with environment.alone(), environment.begin() as writing:
        with writing.cursor(environment.table(form.BLOCKS)) as cursor:
            keys = [bytes(key) for key, _ in cursor if bytes(key[:4]) == prefix]
        assert len(keys) > 1
        for key in keys[:-1]:
            writing.delete(key, db=environment.table(form.BLOCKS))


def test_a_log_that_is_too_damaged_to_look_for_what_was_sent(
    url: str, durable: ringpost.Broker, reboot: Reboot, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are opened as ever, and the rest of the transaction is carried out."""
    news = durable.topic("news")
    news.publish("before")
    durable.queue("orders").put_many(["one", "two"])
    child = os.fork()
    if child == 0:
        _die_at("T4 before")
        with ringpost.connect(url) as broker, broker.transaction() as tx:
            tx.ack(broker.queue("orders").consumer().receive(BOUND))
            tx.publish(broker.topic("news"), "of the dead")
            tx.send("invoices", "first")
        os._exit(1)
    os.waitpid(child, 0)
    lose_what_was_published(durable, news)
    broker = reboot()
    assert bodies(broker.queue("orders")) == ["two"]
    assert "cannot be put" in caplog.text
    assert bodies(broker.queue("invoices")) == ["first"]
    with pytest.raises(ringpost.StorageDamaged, match="cannot be told"):
        broker.topic("news")
    with broker.transaction() as tx:
        tx.send("invoices", "second")
    assert bodies(broker.queue("invoices")) == ["second"]
    broker.delete_topic("news")  # as it says
    assert bodies(broker.queue("invoices")) == []
    assert records(broker) == []
    broker.topic("news").publish("again")


def until_carried_out(broker: ringpost.Broker) -> None:
    deadline = time.monotonic() + BOUND
    while records(broker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert records(broker) == []


def test_who_writes_sees_to_what_the_dead_decided(url: str, durable: ringpost.Broker) -> None:
    """Nobody opens anything, and nothing is given back: else the disk would fill up."""
    news = durable.topic("news", retention=ringpost.Retention(bytes=10_000))
    publish_and_die(url, "T2", body="of the dead")
    news.publish("a")
    until_carried_out(durable)
    assert "of the dead" in all_of(news)


def test_what_it_sends_counts(durable: ringpost.Broker) -> None:
    small = durable.queue("small", maxsize=3)
    small.put("a")
    with durable.transaction() as tx:
        tx.send(small, "b")
        tx.send("small", "c")
        with pytest.raises(ringpost.Full):
            tx.send("small", "d")
    assert bodies(small) == ["a", "b", "c"]
    assert small.put("e") is None


def test_what_was_decided_goes_beyond_maxsize(durable: ringpost.Broker) -> None:
    """Others fill the queue before the end. Nobody waits for them to consume."""
    small = durable.queue("small", maxsize=2)
    with durable.transaction(timeout=BOUND) as tx:
        tx.send(small, "a")
        tx.send(small, b"x" * LARGE)
        small.put("first")
        small.put("second")
    assert records(durable) == []
    with pytest.raises(ringpost.Full):
        small.put_nowait("no")
    assert bodies(small) == ["first", "second", "a", b"x" * LARGE]
    small.put_nowait("again")


def test_what_was_decided_goes_beyond_the_quota(url: str, durable: ringpost.Broker) -> None:
    """The ring is full, and storage takes no more of others."""
    durable.close()
    with ringpost.connect(f"{url}?max_bytes=1m") as broker:
        jobs = broker.queue("jobs", capacity=256 << 10)
        with pytest.raises(ringpost.StorageFailed):  # noqa: PT012
            while True:
                jobs.put(bytes(10_000), durability="memory", timeout=BOUND)
        with broker.transaction() as tx:
            for number in range(50):
                tx.send(jobs, bytes(10_000) + b"%d" % number)
        assert records(broker) == []
        found = [each[10_000:] for each in bodies(jobs)]
        assert found[-50:] == [b"%d" % number for number in range(50)]


@pytest.mark.parametrize("error", [ringpost.StorageFailed(28, "the disk is full"), ringpost.Full()])
def test_what_fails_once_it_is_decided_is_done_later(
    durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The end does not say that nothing was done: who tried again would send twice."""
    durable.queue("orders").put_many(["one", "two"])
    put, failures = transactions._put, [error]

    def put_in_vain(*args: Any) -> None:
        if failures:
            raise failures.pop()
        put(*args)

    with durable.queue("orders").consumer() as consumer:
        message = consumer.receive(BOUND)
        monkeypatch.setattr(transactions, "_put", put_in_vain)
        with durable.transaction() as tx:
            tx.ack(message)
            tx.send("invoices", "first")
        assert message.settled
    assert failures == []
    until_carried_out(durable)
    assert bodies(durable.queue("invoices")) == ["first"]
    assert bodies(durable.queue("orders")) == ["two"]


def test_storage_is_opened_again_in_the_middle_of_one(
    durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a full disk, by another thread."""
    put = transactions._put

    def put_and_open_again(*args: Any) -> None:
        put(*args)
        durable._engine._environment()._reopen()

    monkeypatch.setattr(transactions, "_put", put_and_open_again)
    with durable.transaction() as tx:
        tx.send("invoices", "first")
    assert records(durable) == []
    assert bodies(durable.queue("invoices")) == ["first"]
    assert caplog.text == ""


def test_the_process_is_stopped_that_carries_it_out(
    url: str, durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are told, and go on with what they have open."""
    orders = durable.queue("orders")
    orders.put_many(["one", "two"])
    child = os.fork()
    if child == 0:
        put = transactions._put
        transactions._put = lambda *args: (os.kill(os.getpid(), signal.SIGSTOP), put(*args))[1]
        with ringpost.connect(url) as broker:
            consumer = broker.queue("orders").consumer(prefetch=1)
            with broker.transaction() as tx:
                tx.ack(consumer.receive(BOUND))
                tx.send("invoices", "first")
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    try:
        monkeypatch.setattr("ringpost.engines.durable.PATIENCE", 0.2)
        with pytest.raises(ringpost.Stalled):
            durable.queue("other")
        with pytest.raises(ringpost.Stalled), durable.transaction(timeout=0.2) as tx:
            tx.send(orders, "three")
        consumer = orders.consumer()
        consumer.receive(BOUND).nack()
        again = consumer.receive(BOUND)  # whether a transaction has acked it is looked for
        assert (again.body, again.deliveries) == ("two", 2)
        again.ack()
    finally:
        os.kill(child, signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert records(durable) == []
    assert bodies(durable.queue("invoices")) == ["first"]
    assert orders.empty()


def test_what_was_put_after_a_reboot_is_found_where_nothing_was_stored_before(
    url: str, durable: ringpost.Broker, reboot: Reboot
) -> None:
    """The ring begins where storage ends: what the first one who finishes it puts is not put again."""
    durable.queue("invoices", durability="memory").put_many(range(100))
    for step in ("T2", "T4 before"):
        child = os.fork()
        if child == 0:
            _die_at(step)
            with ringpost.connect(url) as broker:
                if step == "T2":
                    with broker.transaction() as tx:
                        tx.send("invoices", "once")
                broker.queue("other")  # where those of the dead are finished
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        if step == "T2":
            reboot().close()
    with ringpost.connect(url) as broker:
        assert bodies(broker.queue("invoices")) == [*range(100), "once"]


@pytest.mark.parametrize("durability", ["commit", "memory"])
def test_what_was_acked_after_a_reboot_that_forgot_who_had_it(
    url: str, durable: ringpost.Broker, reboot: Reboot, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    """It is among others that were given back, of which somebody else may have been told before."""
    orders = durable.queue("orders")
    orders.put_many(["one", "two", "three", "four"])
    child = os.fork()
    if child == 0:
        _die_at("T2")
        with ringpost.connect(url) as broker:
            orders = broker.queue("orders")
            consumer = orders.consumer(prefetch=1)
            held = [consumer.receive(BOUND), consumer.receive(BOUND)]
            store_groups(orders)
            held.append(consumer.receive(BOUND))
            orders.put("five", durability=durability)
            monkeypatch.setattr(Writer, "_plans", without_groups(Writer._plans))
            with broker.transaction() as tx:
                tx.ack_many([held[0], held[2]])
                tx.send("invoices", "first")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    broker = reboot()
    found = bodies(broker.queue("orders"))
    assert sorted(found) == ["five", "four", "two"]
    assert bodies(broker.queue("invoices")) == ["first"]


def store_groups(queue: ringpost.Queue[Any]) -> None:
    storage: Any = queue._log.storage  # type: ignore[union-attr]
    storage.noted = True
    storage.flush()


def without_groups(plans: Any) -> Any:
    """As if what was held had not been stored since."""

    def make(*args: Any) -> Any:
        made = plans(*args)
        for plan in made:
            plan._groups = list(plan.log.known_groups.values())
        return made

    return make


def test_a_queue_that_is_deleted_before_the_end(durable: ringpost.Broker) -> None:
    """Nothing is done, and it says so."""
    durable.queue("orders").put("one")
    parcels = durable.queue("parcels")
    with durable.queue("orders").consumer() as consumer:
        message = consumer.receive(BOUND)
        with pytest.raises(ringpost.QueueDeleted), durable.transaction() as tx:  # noqa: PT012
            tx.ack(message)
            tx.send(parcels, "x")
            tx.send("invoices", "x")
            durable.delete("parcels")
        message.nack()
    assert records(durable) == []
    assert durable.queue("invoices").empty()
    assert bodies(durable.queue("orders")) == ["one"]


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
    assert transactions._writer.decided.records() == []
    with durable.queue("a").consumer() as consumer, durable.transaction() as tx:
        tx.ack(consumer.receive(timeout=BOUND))
        tx.send("b", 2)
    assert (durable.queue("a").qsize(), durable.queue("b").get(timeout=BOUND)) == (0, 2)
