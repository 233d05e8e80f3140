"""The arguments of the command."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rivals import RIVALS
from benchmarks.rivals.base import Rival
from benchmarks.works import QUICK, QUICK_RIVALS, WORKS
from benchmarks.works.base import Work

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Options:
    """What to measure, and for how long."""

    rivals: tuple[Rival, ...]
    works: tuple[Work, ...]
    seconds: float
    repetitions: int
    limit: float
    out: Path
    quick: bool
    chosen: bool
    """Rivals were asked for by name."""

    def asked_for(self, rival: Rival, work: Work) -> bool:
        """A quick run leaves the families to a few, unless told who."""
        return not (self.quick and work.family and not self.chosen) or rival.name in QUICK_RIVALS


def parse(arguments: list[str] | None = None) -> Options:
    """Options from the command line; exits with a message if they make no sense."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure ringpost beside others, in one run; print tables, write results and charts.",
    )
    _add_arguments(parser)
    given = parser.parse_args(arguments)
    rivals = _chosen(parser, "rival", RIVALS, given.only)
    works = _works(parser, given.work, given.quick)
    if not any(isinstance(rival, work.needs) for rival in rivals for work in works):
        parser.error("none of these rivals can do any of these works")
    seconds = given.seconds or (0.2 if given.quick else 0.8)
    repetitions = given.repetitions or (2 if given.quick else 5)
    return Options(
        rivals=rivals,
        works=works,
        seconds=seconds,
        repetitions=repetitions,
        limit=10 + 20 * seconds,
        out=given.out or RESULTS / ("quick" if given.quick else "full"),
        quick=given.quick,
        chosen=bool(given.only),
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    rivals, works = ", ".join(each.name for each in RIVALS), ", ".join(each.name for each in WORKS)
    parser.add_argument("--quick", action="store_true", help="two to three minutes, less exact")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one of {rivals}; repeatable")
    parser.add_argument(
        "--work", action="append", metavar="NAME", help=f"one of {works}, or a family of them; repeatable"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="how long one measurement takes")
    parser.add_argument("--repetitions", type=int, metavar="N", help="how often each is measured")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIRECTORY",
        help="where results.json and the charts go (default: benchmarks/results/quick or full)",
    )


def _works(parser: argparse.ArgumentParser, names: list[str] | None, quick: bool) -> tuple[Work, ...]:
    families = dict.fromkeys(work.family for work in WORKS if work.family)
    asked = [
        each.name for each in WORKS for name in names or () if name in families and name == each.family
    ] + [name for name in names or () if name not in families]
    chosen: tuple[Work, ...] = _chosen(parser, "work", WORKS, asked)
    if quick and not names:
        return tuple(work for work in chosen if work.name in QUICK)
    return chosen


def _chosen(
    parser: argparse.ArgumentParser, what: str, known: tuple[Any, ...], names: list[str] | None
) -> Any:
    if not names:
        return known
    unknown = set(names) - {each.name for each in known}
    if unknown:
        there_are = ", ".join(each.name for each in known)
        parser.error(f"no such {what}: {', '.join(sorted(unknown))}; there are {there_are}")
    return tuple(each for each in known if each.name in names)
