"""What is going on, as typed objects. The numbers live in shared memory: any process sees all of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from ringpost._binding.contract import Group, Log


class Recovered(NamedTuple):
    """A queue or topic that a durable broker found on disk, and not in shared memory: after a reboot.

    Attributes:
        kind: "queue" or "topic".
        name: its name.
        next_sequence: where it goes on.
        waiting: messages that are not yet acked, or not by every named subscriber.
    """

    kind: str
    name: str
    next_sequence: int
    waiting: int


@dataclass(frozen=True)
class Holding:
    """Messages in the hands of one process.

    Attributes:
        pid: whose; 0: given back, and not yet in anybody's hands.
        pid_namespace: the inode of the pid namespace where `pid` means it (`stat -L /proc/PID/ns/pid`).
        messages: how many.
        deliveries: how often they were handed out.
        first: sequence of the first one.
        seconds: since when.
        remaining: seconds until they are handed out again; None: when their holder dies.
    """

    pid: int
    pid_namespace: int
    messages: int
    deliveries: int
    first: int
    seconds: float
    remaining: float | None


@dataclass(frozen=True)
class GroupStats:
    """One group of consumers, or one subscriber.

    Attributes:
        name: "" for a queue's own consumers.
        ready: messages to be handed out; with a pattern, those are counted that it may pass over.
        in_flight: handed out, and not yet settled.
        delivered, acked, redelivered, returned: handed out, acked, handed out again, given back: so far.
        rejected, expired, dropped: given up so far: by reject(), by their time to live, for lack of room.
        lost: overwritten before they were handed out, where producers do not wait for this group.
        oldest_age: seconds since the oldest message that is not done with was put; None: there is none.
        lag_bytes: of the ring, that this group keeps from being used again.
        pattern: of the subjects it wants; "": all.
        pid: of the process it ends with; None: it stays.
    """

    name: str
    ready: int
    in_flight: int
    delivered: int
    acked: int
    redelivered: int
    returned: int
    rejected: int
    expired: int
    dropped: int
    lost: int
    oldest_age: float | None
    lag_bytes: int
    pattern: str
    pid: int | None


@dataclass(frozen=True)
class QueueStats:
    """One queue. `sent`: messages ever put; the other numbers are its own consumers'.

    Attributes:
        used_bytes, pool_used: of the ring and of the pool, of `capacity` together.
        participants: processes that have it open.
        holdings: who holds what.
        groups: the further groups, if any.
        dead_lettered: messages in its dead letter queue, if it has one.
    """

    name: str
    sent: int
    ready: int
    unfinished: int
    used_bytes: int
    pool_used: int
    capacity: int
    participants: int
    dead_lettered: int
    consumers: GroupStats
    holdings: tuple[Holding, ...]
    groups: tuple[GroupStats, ...]


@dataclass(frozen=True)
class TopicStats:
    """One topic. `published`: messages ever published."""

    name: str
    published: int
    used_bytes: int
    pool_used: int
    capacity: int
    participants: int
    subscribers: tuple[GroupStats, ...]


@dataclass(frozen=True)
class BrokerStats:
    """Every queue and topic of a broker."""

    url: str
    queues: tuple[QueueStats, ...]
    topics: tuple[TopicStats, ...]


def group_stats(info: dict[str, Any]) -> GroupStats:
    oldest = info["oldest_ns"]
    return GroupStats(
        name=info["name"],
        ready=info["ready"],
        in_flight=info["in_flight"],
        delivered=info["delivered"],
        acked=info["acknowledged"],
        redelivered=info["redelivered"],
        returned=info["returned"],
        rejected=info["rejected"],
        expired=info["expired"],
        dropped=info["dropped"],
        lost=info["lost"],
        oldest_age=max((time.time_ns() - oldest) / 1e9, 0) if oldest else None,
        lag_bytes=info["lag_bytes"],
        pattern=info["pattern"],
        pid=info["pid"] or None,
    )


def holdings(group: Group) -> tuple[Holding, ...]:
    return tuple(
        Holding(
            pid=each["pid"],
            pid_namespace=each["pid_namespace"],
            messages=each["frames"],
            deliveries=each["deliveries"],
            first=each["sequence"],
            seconds=each["held_ns"] / 1e9,
            remaining=None if each["remaining_ns"] < 0 else each["remaining_ns"] / 1e9,
        )
        for each in group.holdings()
    )


def queue_stats(log: Log, name: str, dead_lettered: int) -> QueueStats:
    info = log.info()
    own, *others = [group_stats(each) for each in log.groups()]
    return QueueStats(
        name=name,
        sent=info["next_sequence"],
        ready=info["ready"],
        unfinished=info["unfinished"],
        used_bytes=info["used_bytes"],
        pool_used=info["pool_used"],
        capacity=info["ring_size"] + info["pool_size"],
        participants=info["participants"],
        dead_lettered=dead_lettered,
        consumers=own,
        holdings=holdings(log.group()),
        groups=tuple(others),
    )


def topic_stats(log: Log, name: str) -> TopicStats:
    info = log.info()
    return TopicStats(
        name=name,
        published=info["next_sequence"],
        used_bytes=info["used_bytes"],
        pool_used=info["pool_used"],
        capacity=info["ring_size"] + info["pool_size"],
        participants=info["participants"],
        subscribers=tuple(group_stats(each) for each in log.groups()),
    )
