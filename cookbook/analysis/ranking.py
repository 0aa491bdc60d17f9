"""Which of several runs is best, and whether the difference is more than its noise."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cookbook.analysis.metrics import describe
from cookbook.analysis.run import Run, change
from cookbook.analysis.wording import number, sentence_case

BEST, TIED, WORSE = "best", "within noise", "worse"
UNKNOWN, DIVERGED = "noise not known", "diverged"
MAX_NAMED = 24
"""Characters of the runs that a title names."""


@dataclass(frozen=True)
class Outcome:
    """Where a run ended, in the unit of the metric it is judged by."""

    value: float
    noise: float
    """95% half-width; NaN when the log does not tell."""


def outcome(run: Run) -> Outcome:
    """Return a run's last held-out value with its logged interval.

    Values of single batches are noisy: there it is the mean of the last ones, and the noise comes
    from their scatter (see `change`).
    """
    series = run.headline()
    went = change(series)
    if len(series) and np.isfinite([series.low[-1], series.high[-1]]).all():
        return Outcome(went.last, float(series.high[-1] - series.low[-1]) / 2)
    scatter = math.nan if series.name.startswith("test/") else went.noise / math.sqrt(2)
    return Outcome(went.last, scatter)


def ranked(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, best first; those that did not end with a finite value come last."""
    if not runs:
        return []
    sign = -1 if describe(runs[0].headline().name).better == "higher" else 1
    ends = {id(run): outcome(run).value for run in runs}
    return sorted(
        runs, key=lambda run: sign * ends[id(run)] if math.isfinite(ends[id(run)]) else math.inf
    )


def best_run(runs: Sequence[Run]) -> Run | None:
    """Return the best run; None if none ended with a finite value."""
    first = next(iter(ranked(runs)), None)
    return first if first and math.isfinite(outcome(first).value) else None


def standing(run: Run, best: Run | None) -> str:
    """Return how a run stands to the best one: one of the five words above.

    The noise of a difference is both half-widths in quadrature. Runs that share their test rows
    differ more surely than that, so "within noise" is on the safe side.
    """
    if run is best:
        return BEST
    mine = outcome(run)
    if best is None or not math.isfinite(mine.value):
        return DIVERGED
    theirs = outcome(best)
    noise = math.hypot(mine.noise, theirs.noise)
    if math.isnan(noise):
        return UNKNOWN
    return TIED if abs(mine.value - theirs.value) <= noise else WORSE


def verdict(runs: Sequence[Run], label: Callable[[Run], str]) -> str:
    """Return what a comparison shows, in one or two lines; no winner where noise could be one.

    Args:
        runs: at least two, judged by the same metric.
        label: what tells a run from the others.
    """
    best = best_run(runs)
    if best is None:
        return "No run ended with a finite value"
    name = sentence_case(describe(best.headline().name).label)
    told = f"{number(outcome(best).value, 3)} at {label(best)}"
    stands = [(run, standing(run, best)) for run in runs if run is not best]
    tied = [label(run) for run, stand in stands if stand == TIED]
    if tied and all(stand == TIED for _, stand in stands):
        return f"{name}: no run is best beyond noise\n{told} leads within it"
    finding = f"{name} is best, {told}"
    if tied:
        who = " and ".join(tied)
        if len(who) > MAX_NAMED:
            who = "another" if len(tied) == 1 else f"{len(tied)} others"
        return f"{finding}\n{who} {'is' if len(tied) == 1 else 'are'} within noise of it"
    unknown = any(stand == UNKNOWN for _, stand in stands)
    return f"{finding}\n(noise not known)" if unknown else finding
