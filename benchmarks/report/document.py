"""The JSON: everything that was measured, each repetition of it."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime, timezone
from typing import Any

from benchmarks.options import Options
from benchmarks.report.machine import cores, describe
from benchmarks.report.ratio import ratio
from benchmarks.rivals.installed import version_of
from benchmarks.tournament import Score
from benchmarks.works.base import Work


def document(options: Options, scores: list[Score], loads: tuple[float, float]) -> dict[str, Any]:
    """`loads`: the machine's load average before and after."""
    works = dict.fromkeys(score.work for score in scores)
    rivals = dict.fromkeys(score.rival for score in scores)
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {**describe(), "load_before": loads[0], "load_after": loads[1]},
        "seconds": options.seconds,
        "repetitions": options.repetitions,
        "versions": {rival.name: version_of(rival) for rival in rivals},
        "works": {work.name: _work(work, scores) for work in works},
    }


def _work(work: Work, scores: list[Score]) -> dict[str, Any]:
    return {
        "title": work.title,
        "family": work.family,
        "place": work.place,
        "processes": work.processes,
        "enough_cores": work.processes <= cores(),
        "rivals": {each.rival.name: _score(each, scores) for each in scores if each.work is work},
    }


def _score(score: Score, scores: list[Score]) -> dict[str, Any]:
    return {
        "version": version_of(score.rival),
        "note": score.rival.note,
        "absent": score.absent,
        "errors": score.errors,
        "ringpost_advantage": ratio(score, scores),
        "metrics": {metric.name: _metric(score, metric.name, metric.unit) for metric in score.work.metrics},
    }


def _metric(score: Score, name: str, unit: str) -> dict[str, Any] | None:
    values = score.values(name)
    if not values:
        return None
    return {
        "unit": unit,
        "median": score.median(name),
        "min": min(values),
        "max": max(values),
        "repetitions": values,
    }
