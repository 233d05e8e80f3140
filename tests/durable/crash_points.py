"""Where processes are killed in what stores: the list of all such points, and how one is armed.

Nothing in the library knows of them: the process that is to die wraps the named function from outside, and
kills itself before the wrapped call or after it.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Point(NamedTuple):
    name: str
    scene: str  # see test_crash_points.py
    target: str  # module:qualified.name below ringpost
    after: bool  # the call, or what a context manager does at its end; else before it
    decided: bool = False  # what the scene does is on disk by then
    turn: int = 1  # the so-manyth call
    inside: bool = False  # of a context manager: what it is for is done, and its end is to come


_COMMIT = [
    ("the door is asked for", "store.log:StoredLog.commit_until", False, False),
    ("the door is taken", "store.writer:Writer.write", False, False),
    ("a transaction of LMDB is about to begin", "store.environment:Environment.begin", False, False),
    ("it has begun", "store.writer:_Plan.store", False, False),
    ("its blocks are put", "store.blocks:Blocks.write", True, False),
    ("groups are put, what nobody needs is deleted", "store.writer:_Plan.store", True, False),
    ("it is committed", "store.environment:Environment.begin", True, True),
    ("it is committed, and nobody remembers", "store.writer:_Plan.remember", False, True),
    ("`durable` is not published", "store.writer:_Plan.publish", False, True),
    ("it is published, nobody was woken", "store.writer:_Plan.publish", True, True),
    ("the door is left", "store.log:StoredLog.commit_until", True, True),
]

POINTS = [
    *(Point(f"commit: {name}", "commit", *rest) for name, *rest in _COMMIT),
    Point("T1: held, not decided", "transaction", "store.transactions:Transactions.carry_out", False),
    Point(
        "T2: those of the dead are done", "transaction", "store.transactions:Transactions._finish_all", True
    ),
    Point("T2: the record is not committed", "transaction", "store.environment:Environment.begin", False),
    Point("T2: the record is committed", "transaction", "store.environment:Environment.begin", True, True),
    Point("T3: acked, nothing put", "transaction", "store.transactions:_put", False, True),
    Point("T3: put", "transaction", "store.transactions:_put", True, True),
    Point(
        "T4: the record is about to go", "transaction", "store.transactions:Transactions._end", False, True
    ),
    Point("T4: the record is gone", "transaction", "store.transactions:Transactions._end", True, True),
    Point("finishing: acks of the dead", "finish", "store.transactions:_discard_all", False, True),
    Point("finishing: acks of the dead are done", "finish", "store.transactions:_discard_all", True, True),
    Point(
        "finishing: what is missing", "finish", "store.transactions:Transactions._send_missing", False, True
    ),
    Point("finishing: it is put", "finish", "store.transactions:Transactions._send_missing", True, True),
    Point("finishing: the record is gone", "finish", "store.transactions:Transactions._end", True, True),
    Point("compaction: a block is noted", "compaction", "store.compaction:Compaction.note", False),
    Point("compaction: older ones are marked", "compaction", "store.compaction:Compaction._supersede", True),
    Point(
        "compaction: a block is rewritten", "compaction", "store.compaction:Compaction._write_without", True
    ),
    Point("retention: before it", "retention", "store.retention:apply", False),
    Point("retention: blocks are deleted", "retention", "store.retention:apply", True),
    Point("registry: a queue is about to be added", "registry", "store.registry:Registry.add", False),
    Point("registry: it is added", "registry", "store.registry:Registry.add", True),
    Point("registry: its ring is not made", "registry", "store.registry:Registry._make_ring", False),
    Point("registry: its ring is made", "registry", "store.registry:Registry._make_ring", True),
    Point("registry: a queue is about to go", "removal", "store.registry:Registry.remove", False),
    Point("registry: the first of its records is gone", "removal", "store.registry:Registry._bury", True),
    Point("registry: all its records are gone", "removal", "store.registry:Registry.remove", True, True),
    Point(
        "registry: its ring is there",
        "removal",
        "engines.durable:DurableEngine._finish_removal",
        False,
        True,
    ),
    Point(
        "registry: a level is there", "removal", "engines.durable:DurableEngine._finish_removal", True, True
    ),
    Point(
        "registry: some of what it stored is gone",
        "removal",
        "store.registry:Registry.delete_some",
        True,
        True,
    ),
    Point(
        "registry: one level is left", "removal", "store.registry:Registry.delete_some", False, True, turn=3
    ),
    Point(
        "registry: all of it is gone",
        "removal",
        "engines.durable:DurableEngine._finish_removals",
        True,
        True,
    ),
    Point("schedule: a message is about to be noted", "scheduling", "scheduled:Schedule.add", False),
    Point(
        "schedule: the alarm is set, not committed",
        "scheduling",
        "sidestore:SideStore.begin",
        True,
        inside=True,
    ),
    Point("schedule: it is committed", "scheduling", "sidestore:SideStore.begin", True, True),
    Point("schedule: it is due, not put", "moving", "scheduled:Schedule._put", False, True),
    Point("schedule: it is put, still noted", "moving", "scheduled:Schedule._put", True, True),
    Point("schedule: it is stored, still noted", "moving", "store.later:Unconfirmed.confirm", True, True),
    Point("schedule: it is put, the alarm rings still", "moving", "sidestore:SideStore.begin", True, True),
    Point("dedup: nothing is put", "sending_once", "sidestore:SideStore.begin", False),
    Point("dedup: it is put, not stored", "sending_once", "store.later:Unconfirmed.confirm", False),
    Point("dedup: it is stored, its id is not noted", "sending_once", "dedup:Window._sweep", False),
    Point("dedup: its id is not committed", "sending_once", "dedup:Window._sweep", True),
    Point("dedup: its id is committed", "sending_once", "sidestore:SideStore.begin", True, True),
]


def die_alone() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_together() -> None:
    """All processes of this group, wherever they are."""
    os.killpg(0, signal.SIGKILL)


def arm(point: Point, die: Callable[[], None] = die_alone) -> None:
    """From now on this process dies there."""
    module_name, _, qualified = point.target.partition(":")
    owner: Any = importlib.import_module(f"ringpost.{module_name}")
    *path, name = qualified.split(".")
    for each in path:
        owner = getattr(owner, each)
    real, calls = getattr(owner, name), [0]

    def is_now() -> bool:
        calls[0] += 1
        return calls[0] == point.turn

    def wrapped(*args: Any, **keywords: Any) -> Any:
        if not is_now():
            return real(*args, **keywords)
        if not point.after:
            die()
        result = real(*args, **keywords)
        if not hasattr(result, "__enter__"):
            die()
        return dying_after(result, point.inside, die)

    setattr(owner, name, wrapped)


@contextmanager
def dying_after(manager: Any, inside: bool, die: Callable[[], None]) -> Iterator[Any]:
    with manager as entered:
        yield entered
        if inside:
            die()
    die()
