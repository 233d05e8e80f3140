"""All measurements of a run, in an order that is fair: rivals take turns, so that noise hits all alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from benchmarks.options import Options
from benchmarks.rivals.base import Rival
from benchmarks.rivals.installed import why_not
from benchmarks.session import measure
from benchmarks.works.base import Work


@dataclass
class Score:
    """What one rival did in one work."""

    rival: Rival
    work: Work
    repetitions: list[dict[str, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    absent: str | None = None
    """Why it was not measured at all."""

    def values(self, metric: str) -> list[float]:
        """One metric of all repetitions that succeeded."""
        return [each[metric] for each in self.repetitions]

    def median(self, metric: str) -> float:
        """Only if there is a repetition that succeeded."""
        return median(self.values(metric))


def play(
    options: Options, progress: Callable[[str], None], keep: Callable[[list[Score]], None]
) -> list[Score]:
    """Measure everything that the options ask for. `keep` gets what there is after each repetition."""
    scores = [
        _entry(rival, work)
        for work in options.works
        for rival in options.rivals
        if isinstance(rival, work.needs) and options.asked_for(rival, work)
    ]
    for repetition in range(options.repetitions):
        for score in scores:
            if score.absent or repetition >= score.work.most_repetitions:
                continue
            progress(f"{repetition + 1}/{options.repetitions} {score.work.name}: {score.rival.name}")
            _repeat(score, options)
        keep(scores)
    return scores


def _entry(rival: Rival, work: Work) -> Score:
    absent = work.lacking() or why_not(rival)
    if absent is None and not work.fits(rival):
        absent = "-"
    return Score(rival, work, absent=absent)


def _repeat(score: Score, options: Options) -> None:
    limit = max(options.limit, score.work.patience)
    try:
        score.repetitions.append(measure(score.rival, score.work, options.seconds, limit))
    except Exception as error:  # whatever a rival does wrong is a result, not the end of the run
        score.errors.append(str(error) or type(error).__name__)
