"""How ringpost compares with a rival: above 1 ringpost is the better one, whatever the metric."""

from __future__ import annotations

from benchmarks.rivals import BASELINE
from benchmarks.tournament import Score


def ratio(score: Score, scores: list[Score]) -> float | None:
    """By the medians of the work's first metric; None without numbers of both."""
    metric = score.work.metrics[0]
    ours = next((each for each in scores if _is_baseline(each) and each.work is score.work), None)
    if ours is None or not ours.repetitions or not score.repetitions:
        return None
    better, worse = ours.median(metric.name), score.median(metric.name)
    if not metric.higher_is_better:
        better, worse = worse, better
    return better / worse if worse else None


def _is_baseline(score: Score) -> bool:
    return score.rival.name == BASELINE
