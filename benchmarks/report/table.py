"""The plain text tables: one a work, best rival first."""

from __future__ import annotations

from textwrap import shorten

from benchmarks.options import Options
from benchmarks.report.machine import cores, describe
from benchmarks.report.ratio import ratio
from benchmarks.rivals import BASELINE
from benchmarks.rivals.installed import version_of
from benchmarks.tournament import Score
from benchmarks.works.base import Metric, Work

_LONGEST_REASON = 100


def render(scores: list[Score], options: Options, load: float) -> str:
    """All tables, with the machine above and the notes below. `load`: the load average before."""
    works = list(dict.fromkeys(score.work for score in scores))
    tables = [_table(work, [each for each in scores if each.work is work]) for work in works]
    return "\n\n".join([_head(options, load), *tables, _notes(scores)])


def _head(options: Options, load: float) -> str:
    machine = describe()
    return (
        f"{machine['cpu']}, {machine['cores']} cores, load {load:.1f} before; "
        f"Linux {machine['kernel']}, {machine['python']}\n"
        f"median (min - max) of {options.repetitions} repetitions of {options.seconds} s, rivals in turns"
    )


def _table(work: Work, scores: list[Score]) -> str:
    metric = work.metrics[0]
    ranked = sorted((each for each in scores if each.repetitions), key=lambda each: _rank(each, metric))
    rows = [_heading(work)]
    rows += [_row(each, scores) for each in ranked]
    rows += [[each.rival.name, version_of(each.rival), _why(each)] for each in scores if not each.repetitions]
    return _title(work) + "\n" + _aligned(rows)


def _rank(score: Score, metric: Metric) -> float:
    value = score.median(metric.name)
    return -value if metric.higher_is_better else value


def _title(work: Work) -> str:
    which = "higher" if work.metrics[0].higher_is_better else "lower"
    line = f"{work.name}: {work.title} ({which} is better; {cores()} cores"
    if work.processes > cores():
        line += f" for {work.processes} processes: too few cores"
    return line + ")"


def _heading(work: Work) -> list[str]:
    first, *others = work.metrics
    heading = ["rival", "version", _column(first), "min - max", f"{BASELINE}'s advantage"]
    return heading + [_column(metric) for metric in others]


def _column(metric: Metric) -> str:
    return metric.unit if metric.name in ("rate", "cpu") else f"{metric.name} {metric.unit}"


def _row(score: Score, scores: list[Score]) -> list[str]:
    first, *others = score.work.metrics
    values = score.values(first.name)
    against = ratio(score, scores)
    row = [
        score.rival.name,
        version_of(score.rival),
        _number(score.median(first.name)),
        f"{_number(min(values))} - {_number(max(values))}",
        "-" if against is None else f"{against:.2f} x",
    ]
    row += [_number(score.median(metric.name)) for metric in others]
    return row + ([_why(score)] if score.errors else [])


def _why(score: Score) -> str:
    if score.absent:
        return score.absent
    tries = len(score.errors) + len(score.repetitions)
    reason = shorten(score.errors[0], _LONGEST_REASON)
    return f"failed {len(score.errors)} of {tries}: {reason}"


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _aligned(rows: list[list[str]]) -> str:
    """Names to the left, numbers to the right; a reason instead of numbers takes the room it needs."""
    columns = len(rows[0])
    full = [row for row in rows if len(row) >= columns]
    widths = [max(len(row[column]) for row in full + rows[:1]) for column in range(columns)]
    widths[:2] = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: list[str], widths: list[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    if len(row) < len(widths):
        return "  " + "  ".join([*cells, *row[2:]])
    cells += [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=False)]
    return "  " + "  ".join([*cells, *row[len(widths) :]])


def _notes(scores: list[Score]) -> str:
    rivals = dict.fromkeys(score.rival for score in scores)
    width = max(len(rival.name) for rival in rivals)
    lines = [f"  {rival.name.ljust(width)}  {rival.note}" for rival in rivals if rival.note]
    return "\n".join(["How each was used:", *lines])
