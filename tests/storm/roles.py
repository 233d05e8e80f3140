"""What each process does, and writes down. Errors that say "not now" are no failures: one tries again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import ringpost
from storm.accounts import HANDLED, PUBLISHED, SENT, Accounts, body, number_of
from storm.topology import Topology

PAUSE = 0.05  # seconds
PATIENCE = 2.0  # seconds that a call may wait
AT_MOST = 100  # seconds that anything may take: who is not done then hangs
TOPIC = "news"
NOT_NOW = (ringpost.Full, ringpost.Empty, ringpost.Stalled, ringpost.StorageFailed, ringpost.LeaseLost)
_PDEATHSIG = 1


class Site:
    """What all processes of a round know."""

    def __init__(self, topology: Topology, place: Path, accounts: Path) -> None:
        self.topology = topology
        self.accounts = Accounts(accounts)
        self.url = topology.url(place)

    def queue(self, broker: ringpost.Broker, name: str) -> ringpost.Queue[Any]:
        """Made by whoever comes first."""
        level = self.topology.level
        if level is None:
            return broker.queue(name, capacity=self.topology.capacity)
        return broker.queue(name, capacity=self.topology.capacity, durability=level)  # type: ignore[arg-type]

    def topic(self, broker: ringpost.Broker) -> ringpost.Topic[Any]:
        """Made by whoever comes first."""
        level = self.topology.level
        if level is None:
            return broker.topic(TOPIC, capacity=self.topology.capacity)
        return broker.topic(TOPIC, capacity=self.topology.capacity, durability=level)  # type: ignore[arg-type]

    def found(self, message: ringpost.Message[Any]) -> int:
        """Its number."""
        return number_of(message.body, self.topology.sizes)


def start(role: Callable[..., None], *args: object) -> int:
    """The pid of a process that does this until it is killed, or 0 ends it with status 0."""
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        code = 1
        try:
            _die_with(parent)
            while not _done(role, *args):
                time.sleep(PAUSE)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def prepare(site: Site) -> None:
    """Subscribers have a place before the first message is published."""
    with ringpost.connect(site.url) as broker:
        for name in site.topology.queues:
            site.queue(broker, name)
        for name in site.topology.subscribers:
            site.topic(broker).subscribe(name=name, start="earliest").close()


def destroy(site: Site) -> None:
    """All of it."""
    with ringpost.connect(site.url) as broker:
        broker.destroy()


def _done(role: Callable[..., None], *args: object) -> bool:
    """False: there was no room to open what it needs."""
    try:
        role(*args)
    except (ringpost.SegmentFull, ringpost.StorageFailed, ringpost.Stalled):
        return False
    return True


def produce(site: Site, life: int) -> None:
    """Sends the numbers from `life` on, one or several a call."""
    chance = random.Random(life)
    with ringpost.connect(site.url) as broker:
        queues = [site.queue(broker, name) for name in site.topology.queues]
        for number in _numbers(life, chance):
            numbers = list(range(number, number + chance.choice((1, 1, 1, 20))))
            bodies = [body(each, site.topology.sizes) for each in numbers]
            queue = chance.choice(queues)
            with contextlib.suppress(*NOT_NOW):
                if len(bodies) == 1:
                    queue.put(bodies[0], timeout=PATIENCE)
                else:
                    queue.put_many(bodies, timeout=PATIENCE)
                site.accounts.write(SENT, numbers)


def publish(site: Site, life: int) -> None:
    """The same, to everybody."""
    chance = random.Random(life)
    with ringpost.connect(site.url) as broker:
        topic = site.topic(broker)
        for number in _numbers(life, chance):
            with contextlib.suppress(*NOT_NOW):
                topic.publish(body(number, site.topology.sizes), subject="a.b", timeout=PATIENCE)
                site.accounts.write(PUBLISHED, [number])


def _numbers(life: int, chance: random.Random) -> Iterator[int]:
    """Far enough apart for a call. In some lives a fork goes on, and its parent waits for it."""
    fork_at = chance.randrange(2000) if chance.random() < 0.2 else -1
    for turn, number in enumerate(count(life, 20)):
        yield number
        if turn == fork_at:
            parent, pid = os.getpid(), os.fork()
            if pid:
                raise ChildProcessError(f"a fork ended by itself: {os.waitpid(pid, 0)}")
            _die_with(parent)


def _die_with(parent: int) -> None:
    """None outlives the storm, and none goes on for ever."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it died meanwhile
    signal.alarm(AT_MOST)


def consume(site: Site, life: int) -> None:
    """Writes down what it got, then acks it; gives some back."""
    chance = random.Random(life)
    with ringpost.connect(site.url) as broker:
        names = site.topology.queues
        with site.queue(broker, names[life % len(names)]).consumer() as consumer:
            while True:
                with contextlib.suppress(*NOT_NOW):
                    messages = consumer.receive_many(chance.choice((1, 10, 50)), timeout=PATIENCE)
                    if chance.random() < 0.05:
                        messages.pop().nack()
                    site.accounts.write(HANDLED, [site.found(each) for each in messages])
                    consumer.ack_many(messages)


def forward(site: Site, life: int) -> None:
    """From the first queue to the last, all or nothing."""
    chance = random.Random(life)
    with ringpost.connect(site.url) as broker:
        source, target = site.topology.queues[0], site.topology.queues[-1]
        site.queue(broker, target)
        with site.queue(broker, source).consumer() as consumer:
            while True:
                with contextlib.suppress(*NOT_NOW):
                    messages = consumer.receive_many(chance.choice((1, 5)), timeout=PATIENCE)
                    with broker.transaction() as tx:
                        for message in messages:
                            site.found(message)
                            tx.ack(message)
                            tx.send(target, message.body)


def subscribe(site: Site, name: str) -> None:
    """Under a name, so that its place stays."""
    with ringpost.connect(site.url) as broker:
        topic = site.topic(broker)
        with topic.subscribe(name=name, start="earliest") as subscriber:
            while True:
                with contextlib.suppress(*NOT_NOW), subscriber.receive(timeout=PATIENCE) as message:
                    site.accounts.write(name, [site.found(message)])


def drain(site: Site) -> None:
    """Everything that is left. What the dead held is nobody's soon, and what they decided in a transaction is
    carried out."""
    with ringpost.connect(site.url) as broker:
        end = time.monotonic() + AT_MOST / 2
        for turn in count():
            for name in site.topology.queues:
                with site.queue(broker, name).consumer() as consumer:
                    _drain(site, consumer, HANDLED)
            left = {name: site.queue(broker, name).stats() for name in site.topology.queues}
            decided = site.topology.level is not None and _environment(broker).has_transactions()
            if turn and not decided and not any(each.unfinished for each in left.values()):
                break
            assert time.monotonic() < end, f"it does not come to an end: {left}, transactions: {decided}"
        for name in site.topology.subscribers:
            with site.topic(broker).subscribe(name=name, start="earliest") as subscriber:
                _drain(site, subscriber, name)


def _environment(broker: ringpost.Broker) -> Any:
    return broker._engine._environment()  # type: ignore[attr-defined]


def _drain(site: Site, source: Any, account: str) -> None:
    while True:
        try:
            messages = source.receive_many(100, timeout=1)
        except ringpost.Stalled:  # which is an Empty
            continue
        except ringpost.Empty:
            return
        site.accounts.write(account, [site.found(each) for each in messages])
        source.ack_many(messages)
