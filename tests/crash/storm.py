"""Storms: producers and consumers are killed with -9 at random moments, and replaced."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from crash.children import Child, Flag, Nursery
from crash.ledger import Audit, Journal
from crash.workers import Site, consume, drain, produce

ROUNDS = max(1, round(float(os.environ.get("RINGPOST_STORM", "1"))))  # storms, each with its own seed
NEVER = Flag()
LEAST = 20  # kills a second: a breeze is no storm


@dataclass
class Post:
    """A place that is never empty for long."""

    child: Child
    journal: Journal | None  # None: a producer's


@dataclass(frozen=True)
class Weather:
    kills: int
    audit: Audit

    def __str__(self) -> str:
        audit = self.audit
        return (
            f"{self.kills} kills; {audit.confirmed} messages confirmed, {audit.taken} taken, "
            f"{audit.missing} died with their consumers (at most {audit.tolerated})"
        )


def random_seed() -> int:
    """Printed, so that a failure can be had again."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    return seed


def storm(site: Site, fork: Nursery, seconds: float, producers: int = 2, consumers: int = 2) -> Weather:
    """Kill for so long. Returns after everything left was taken and everything was accounted for."""
    rng = random.Random(random_seed())

    def start(journal: Journal | None) -> Post:
        if journal is None:
            return Post(fork(produce, site, site.ledger.new_life(), NEVER), None)
        return Post(fork(consume, site, journal), journal)

    posts = [start(None) for _ in range(producers)]
    posts += [start(site.ledger.new_journal()) for _ in range(consumers)]
    kills = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or kills < LEAST * seconds:  # however slow the machine is
        time.sleep(rng.uniform(0.0001, 0.02))
        post = rng.choice(posts)
        _kill(post)
        kills += 1
        posts[posts.index(post)] = start(post.journal)
    rng.shuffle(posts)
    for post in posts:
        _kill(post)
        kills += 1
    drain(site)
    weather = Weather(kills, site.ledger.audit())
    print(weather)
    return weather


def kill_at_random(
    start: Callable[[], Child], seconds: float, together: int = 4, longest: float = 0.02
) -> int:
    """Keep so many children at work and kill one after another. Returns how many were killed."""
    rng = random.Random(random_seed())
    children = [start() for _ in range(together)]
    kills = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end or kills < LEAST * seconds:
        time.sleep(rng.uniform(0.0001, longest))
        victim = rng.randrange(together)
        assert not children[victim].ended(), "it had to wait too long, or failed"
        children[victim].kill()
        kills += 1
        children[victim] = start()
    for child in children:
        child.kill()
    return kills + together


def _kill(post: Post) -> None:
    """It must have been at work still: whoever waits too long fails, and ends by itself."""
    assert not post.child.ended(), "a survivor had to wait too long, or failed"
    post.child.kill()
    if post.journal is not None:
        post.journal.bury()
