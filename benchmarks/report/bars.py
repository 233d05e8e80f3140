"""Charts that compare rivals: throughput as bars, latency as percentiles."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from benchmarks.report.style import OURS, TEXT, colour, compact, marker

THROUGHPUT = ("1-to-1", "batches", "4-to-1", "acked", "acked-batches", "fan-out-4", "large")
DURABLE = ("durable", "durable-8", "durable-batches", "durable-later", "durable-backlog")
ARRAYS = ("records", "aio-1-to-1", "aio-batches")
LOANS = ("loan-1", "loan-10", "loan-100")
_PERCENTILES = (("median", 0.9), ("p90", 0.65), ("p99", 0.45), ("p99.9", 0.3))
_TITLE_WIDTH = 48
_BASELINE = "ringpost"


def scored(work: dict[str, Any], metric: str) -> list[tuple[str, dict[str, Any]]]:
    """Rivals that have this metric in this work, best first."""
    found = [
        (name, told["metrics"][metric])
        for name, told in work["rivals"].items()
        if told["metrics"].get(metric) is not None
    ]
    falling = metric == "rate"
    return sorted(found, key=lambda each: float(each[1]["median"]), reverse=falling)


def draw_bars(axes: Any, name: str, work: dict[str, Any], metric: str = "rate") -> None:
    """One work: a bar for each rival with its median, a line from its lowest to its highest repetition."""
    rows = scored(work, metric)[::-1]
    unit = rows[0][1]["unit"]
    for height, (rival, told) in enumerate(rows):
        ours = rival == _BASELINE
        axes.barh(height, told["median"], color=OURS if ours else TEXT, alpha=1 if ours else 0.75, height=0.7)
        axes.plot([told["min"], told["max"]], [height, height], color=TEXT, linewidth=1.2)
        axes.annotate(
            compact(told["median"]),
            (max(told["median"], told["max"]), height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [rival for rival, _ in rows])
    axes.set_title(title_of(name, work), fontsize=10)
    axes.set_xlabel(unit if metric == "rate" else f"{unit} until it is {metric}")
    axes.xaxis.set_major_formatter(lambda value, _: compact(value) if value else "0")
    axes.margins(x=0.14)
    axes.grid(axis="x")
    axes.tick_params(left=False)
    for label, (rival, _) in zip(axes.get_yticklabels(), rows, strict=True):
        if rival == _BASELINE:
            label.set(color=OURS, fontweight="bold")


def draw_percentiles(axes: Any, name: str, work: dict[str, Any]) -> None:
    """One work: for each rival a line from its median to its p99.9, with a mark at each percentile."""
    rows = scored(work, "median")[::-1]
    for height, (rival, _) in enumerate(rows):
        metrics = work["rivals"][rival]["metrics"]
        told = [(metrics[each]["median"], opacity) for each, opacity in _PERCENTILES if metrics.get(each)]
        shade = OURS if rival == _BASELINE else TEXT
        axes.plot([value for value, _ in told], [height] * len(told), color=shade, linewidth=1, alpha=0.5)
        for size, (value, opacity) in zip((60, 48, 38, 30), told, strict=False):
            axes.scatter(value, height, s=size, color=shade, alpha=opacity, linewidths=0)
        axes.annotate(
            f"{told[0][0]:.3g}", (told[0][0], height), xytext=(-7, 0), textcoords="offset points",
            va="center", ha="right", fontsize=9,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(x=0.16)
    axes.set_yticks(range(len(rows)), [rival for rival, _ in rows])
    axes.set_title(title_of(name, work), fontsize=10)
    axes.set_xlabel("µs, from left to right: median, p90, p99, p99.9")
    axes.grid(axis="x")
    axes.tick_params(left=False)
    for label, (rival, _) in zip(axes.get_yticklabels(), rows, strict=True):
        if rival == _BASELINE:
            label.set(color=OURS, fontweight="bold")


def draw_family(axes: Any, points: list[dict[str, Any]], label: str, scale: float | None = None) -> None:
    """A line for each rival, with a band from lowest to highest. With `scale`: times the place, in that."""
    rivals = dict.fromkeys(rival for point in points for rival in point["rivals"])
    for rival in sorted(rivals, key=lambda each: each == _BASELINE):  # ours on top
        told = [
            (point["place"], point["rivals"].get(rival, {}).get("metrics", {}).get("rate"))
            for point in points
        ]
        known = [(place, metric) for place, metric in told if metric]
        if not known:
            continue
        places = [place for place, _ in known]
        factors = [1.0 if scale is None else place / scale for place in places]

        def each(what: str, known: Any = known, factors: Any = factors) -> list[float]:
            return [metric[what] * factor for (_, metric), factor in zip(known, factors, strict=True)]

        ours = rival == _BASELINE
        axes.plot(
            places, each("median"), label=rival, color=colour(rival), marker=marker(rival),
            linewidth=2.6 if ours else 1.2, markersize=6 if ours else 4.5, zorder=3 if ours else 2,
        )  # fmt: skip
        axes.fill_between(places, each("min"), each("max"), color=colour(rival), alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=10 if label == "messages waiting" else 2)
    axes.set_yscale("log")
    axes.set_xticks([point["place"] for point in points])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.yaxis.set_major_formatter(lambda value, _: compact(value))
    axes.grid()


def title_of(name: str, work: dict[str, Any]) -> str:
    """What was measured, with a warning where it says much about the scheduler."""
    few = "" if work["enough_cores"] else f" (too few cores for {work['processes']} processes)"
    return fill(f"{name}: {work['title']}{few}", _TITLE_WIDTH)
