"""The charts of a results.json, as SVG. Run as a program it draws them again:

python -m benchmarks.report.charts benchmarks/results/published
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.report.bars import (
    ARRAYS,
    DURABLE,
    LOANS,
    THROUGHPUT,
    draw_bars,
    draw_family,
    draw_percentiles,
    scored,
)
from benchmarks.report.style import compact, save, styled

_FAMILIES = {
    "size": "bytes in a message",
    "producers": "producers",
    "consumers": "consumers that share the queue",
    "subscribers": "subscribers, each of which gets every message",
    "backlog": "messages waiting",
}
_BARS = {
    "throughput": (THROUGHPUT, "Throughput"),
    "durable": (DURABLE, "Messages on disk"),
    "loops": (ARRAYS, "Records, and asyncio"),
}
_OVERVIEW = ("1-to-1", "batches", "4-to-1")


def draw_all(result: dict[str, Any], directory: Path) -> list[str]:
    """Every chart that these results have numbers for; names of the files."""
    works: dict[str, Any] = result["works"]
    names = []
    with styled() as pyplot:
        bars = {file: _rated(works, wanted) for file, (wanted, _) in _BARS.items()}
        for file, found in bars.items():
            if found:
                title = f"{_BARS[file][1]} (more is better)"
                names.append(_bars(pyplot, result, found, title, directory / f"{file}.svg"))
        loans = [name for name in LOANS if name in works and scored(works[name], "sent")]
        if loans:
            names.append(_loans(pyplot, result, loans, directory / "loans.svg"))
        latencies = [name for name in ("latency", "aio-latency") if name in works]
        latencies = [name for name in latencies if scored(works[name], "median")]
        if latencies:
            names.append(_latencies(pyplot, result, latencies, directory / "latency.svg"))
        if "latency" in latencies and set(_OVERVIEW) <= set(bars["throughput"]):
            panels, title = [*_OVERVIEW, "latency"], "Throughput (more is better), latency"
            names.append(_bars(pyplot, result, panels, title, directory / "overview.svg"))
        for family, label in _FAMILIES.items():
            points = [work for work in works.values() if work["family"] == family]
            if any(scored(point, "rate") for point in points):
                names.append(_family(pyplot, result, points, label, directory / f"scaling-{family}.svg"))
    return names


def _rated(works: dict[str, Any], wanted: tuple[str, ...]) -> list[str]:
    return [name for name in wanted if name in works and scored(works[name], "rate")]


def _bars(pyplot: Any, result: dict[str, Any], panels: list[str], title: str, path: Path) -> str:
    """A panel for each work, two in a row."""
    rows = -(-len(panels) // 2)
    most = max(len(result["works"][name]["rivals"]) for name in panels)
    figure, axes = pyplot.subplots(rows, 2, figsize=(12, rows * (1.5 + 0.24 * most)), squeeze=False)
    for place, name in zip(axes.flat, panels, strict=False):
        draw = draw_percentiles if name == "latency" else draw_bars
        draw(place, name, result["works"][name])
    for place in axes.flat[len(panels) :]:
        place.set_axis_off()
    return _finish(pyplot, figure, result, path, title)


def _loans(pyplot: Any, result: dict[str, Any], names: list[str], path: Path) -> str:
    figure, axes = pyplot.subplots(len(names), 2, figsize=(12, 2.4 * len(names)), squeeze=False)
    for row, name in zip(axes, names, strict=True):
        for place, metric in zip(row, ("sent", "seen"), strict=True):
            draw_bars(place, name, result["works"][name], metric)
    return _finish(pyplot, figure, result, path, "Arrays that are lent (less is better)")


def _latencies(pyplot: Any, result: dict[str, Any], names: list[str], path: Path) -> str:
    figure, axes = pyplot.subplots(len(names), 1, figsize=(9, 4 * len(names)), squeeze=False)
    for place, name in zip(axes.flat, names, strict=True):
        draw_percentiles(place, name, result["works"][name])
    return _finish(pyplot, figure, result, path, "Latency (less is better)")


def _family(pyplot: Any, result: dict[str, Any], points: list[dict[str, Any]], label: str, path: Path) -> str:
    points = sorted(points, key=lambda each: int(each["place"]))
    by_size = points[0]["family"] == "size"
    figure, axes = pyplot.subplots(1, 2 if by_size else 1, figsize=(12 if by_size else 9, 4.6), squeeze=False)
    left, *right = axes.flat
    draw_family(left, points, label)
    left.set_ylabel("messages a second")
    for place in right:
        draw_family(place, points, label, scale=1e9)
        place.set_ylabel("GB a second")
        place.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for place in axes.flat:
        place.set_xticklabels([compact_size(each["place"], by_size) for each in points])
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center")
    return _finish(pyplot, figure, result, path, f"Throughput by {label}")


def compact_size(place: int, is_bytes: bool) -> str:
    """A tick: 65536 bytes as 64 K, 1000000 messages as 1 M."""
    if not is_bytes:
        return compact(place)
    for limit, unit in ((1 << 20, " M"), (1 << 10, " K")):
        if place >= limit:
            return f"{place // limit}{unit}"
    return str(place)


def _finish(pyplot: Any, figure: Any, result: dict[str, Any], path: Path, title: str) -> str:
    machine = result["machine"]
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.supxlabel(
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, {machine['python']}; "
        f"median of {result['repetitions']} repetitions or fewer, lines and bands from lowest to highest; "
        f"load {machine['load_before']:.1f} before; {result['finished'][:10]}",
        x=0.01,
        ha="left",
        fontsize=8,
    )
    return save(pyplot, figure, path, title)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print("\n".join(draw_all(json.loads((folder / "results.json").read_text()), folder)))
