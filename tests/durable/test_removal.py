"""What is left of a queue that was deleted: nothing, whatever went wrong on the way."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from conformance.patience import BOUND

import ringpost
from durable.crash_points import Point, arm
from ringpost.engines import Kind
from ringpost.engines.durable import DurableEngine
from ringpost.store import format as form
from ringpost.store.registry import Registry


def engine_of(broker: ringpost.Broker) -> DurableEngine:
    engine = broker._engine
    assert isinstance(engine, DurableEngine)
    return engine


def numbers_in_storage(broker: ringpost.Broker) -> set[int]:
    """Of logs that have anything there."""
    environment = engine_of(broker)._environment()
    found = set()
    with environment.read() as reading:
        for table in (form.PROGRESS, form.GROUPS, form.PAYLOADS, form.BLOCKS):
            with reading.cursor(environment.table(table)) as cursor:
                found |= {
                    int.from_bytes(key[:4], "big") for key, _ in cursor if bytes(key) not in form.TABLES
                }
    return found


def numbers(broker: ringpost.Broker) -> set[int]:
    return {record.number for _, _, record in Registry(engine_of(broker)._environment()).all()}


def drain(queue: ringpost.Queue[Any]) -> list[Any]:
    found: list[Any] = []
    while not queue.empty():
        found += queue.get_many(block=False)
    return found


def ranked(broker: ringpost.Broker) -> ringpost.Queue[Any]:
    queue = broker.queue("ranked", priorities=True)
    queue.producer().send("high", priority=9)
    queue.producer().send(b"x" * 100_000, priority=3)
    queue.put("low")
    return queue


def test_levels_that_a_queue_left_are_not_those_of_the_next(durable: ringpost.Broker) -> None:
    """As a death within delete() left them once."""
    ranked(durable)
    durable.queue("ranked2", priorities=True).producer().send("another's", priority=9)
    environment = engine_of(durable)._environment()
    with environment.alone(), environment.begin() as writing:
        writing.delete(form.log_key("queue", "ranked"), db=environment.table(form.LOGS))
    again = durable.queue("ranked", priorities=True)
    again.producer().send("new", priority=9)
    assert drain(again) == ["new"]
    assert drain(durable.queue("ranked2")) == ["another's"]
    assert len(engine_of(durable).list_logs(Kind.LEVEL)) == 2


def test_who_has_a_deleted_queue_open_adds_no_level_to_it(durable: ringpost.Broker) -> None:
    producer = ranked(durable).producer()
    durable.delete("ranked")
    with pytest.raises(ringpost.QueueDeleted):
        producer.send("higher", priority=8)
    assert engine_of(durable).list_logs(Kind.LEVEL) == []
    durable.queue("ranked", priorities=True)
    with pytest.raises(ringpost.QueueDeleted):
        producer.send("higher", priority=7)
    assert engine_of(durable).list_logs(Kind.LEVEL) == []


def test_bit_by_bit(durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringpost.store.registry.AT_ONCE", 3)
    ranked(durable)
    durable.queue("jobs").put("stays")
    for number in range(10):
        durable.queue("ranked").put(number)
    durable.delete("ranked")
    assert numbers_in_storage(durable) == numbers(durable)
    assert len(numbers(durable)) == 1
    assert drain(durable.queue("jobs")) == ["stays"]


def test_the_disk_fails_on_the_way(durable: ringpost.Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is deleted all the same; its space is there again later."""
    ranked(durable)
    delete_some, failures = Registry.delete_some, [ringpost.StorageFailed(5, "broken")]

    def delete_in_vain(self: Registry, number: bytes) -> bool:
        if failures:
            raise failures.pop()
        return delete_some(self, number)

    monkeypatch.setattr(Registry, "delete_some", delete_in_vain)
    assert durable.delete("ranked")
    assert not durable.delete("ranked")
    durable.queue("jobs")
    assert numbers_in_storage(durable) == numbers(durable)


def test_a_damaged_note_keeps_nobody_from_anything(durable: ringpost.Broker) -> None:
    durable.queue("jobs").put("stays")
    environment = engine_of(durable)._environment()
    with environment.alone(), environment.begin() as writing:
        writing.put(form.REMOVED + form.number_key(77), b"nonsense", db=environment.table(form.META))
    ranked(durable)
    assert durable.delete("ranked")
    assert numbers_in_storage(durable) == numbers(durable)
    assert drain(durable.queue("jobs")) == ["stays"]


def test_what_was_kept_aside_goes_though_nobody_was_left_to_remove_it(
    url: str, durable: ringpost.Broker
) -> None:
    jobs = durable.queue("jobs")
    jobs.producer().send("late", delay=BOUND)
    child = os.fork()
    if child == 0:
        arm(Point("", "", "store.registry:Registry.remove", True))
        with ringpost.connect(url) as broker:
            broker.delete("jobs")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    durable.queue("other")
    store = engine_of(durable).side_store()
    with store.read() as reading:
        assert sum(reading.stat(table)["entries"] for table in store._tables.values()) == 0
    with pytest.raises(ringpost.QueueDeleted):
        jobs.put("into nothing")
