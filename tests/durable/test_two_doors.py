"""The door of storage and the lock of the side store: who has the one may want the other, in one order."""

from __future__ import annotations

import threading
import time
from typing import Any

import ringpost
from ringpost.scheduled import Schedule


def test_who_deletes_does_not_want_the_side_store_within_the_door(durable: ringpost.Broker) -> None:
    """Whoever sends once, or moves what is due, has the side store and wants the door."""
    durable.queue("jobs").producer(dedup_window=60).send("makes the side store", message_id="1")
    durable.queue("other").producer().send("late", delay=60)
    results: list[Any] = []

    def delete() -> None:
        try:
            results.append(durable.delete("other"))
        except ringpost.Stalled as error:
            results.append(error)

    deleting = threading.Thread(target=delete)
    with durable._engine.side_store().alone():
        deleting.start()
        while "other" in durable.list() and not results:
            time.sleep(0.01)
        durable.queue("jobs").put("through the door")
    deleting.join()
    assert results == [True]


def test_what_was_kept_aside_is_deleted(durable: ringpost.Broker) -> None:
    queue = durable.queue("other")
    queue.producer().send("late", delay=60)
    schedule = Schedule(queue._log, durable._engine.side_store)
    assert schedule.count() == 1
    assert durable.delete("other")
    assert schedule.count() == 0


def test_what_cannot_be_deleted_beside_it_does_not_keep_the_queue(
    durable: ringpost.Broker, monkeypatch: Any
) -> None:
    durable.queue("other").producer().send("late", delay=60)
    store = durable._engine.side_store()

    def stalled(*unused: object) -> None:
        raise ringpost.Stalled("somebody is stopped in the side store")

    monkeypatch.setattr(store, "forget", stalled)
    assert durable.delete("other")
    assert "other" not in durable.list()
    assert Schedule(durable.queue("other")._log, durable._engine.side_store).count() == 0
