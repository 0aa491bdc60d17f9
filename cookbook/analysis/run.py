"""A training run as read back from its folder: series, changes and totals."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cookbook.analysis.intervals import Z95
from cookbook.analysis.metrics import HEADLINES, describe, rank
from cookbook.errors import DataError
from cookbook.runlog import folder, lines
from cookbook.runlog.log import CHECKPOINTS, METRICS

Floats = NDArray[np.float64]
_NOT_TRAINING = ("step", "progress", "test/", "time/evaluation")
_BOUND_SUFFIXES = ("_margin", "_ci95_low", "_ci95_high")


@dataclass(frozen=True)
class Series:
    """One metric over the steps that logged it; all arrays (N,)."""

    name: str
    steps: Floats
    values: Floats
    low: Floats
    """Lower end of each value's 95% interval, NaN where the log has none."""
    high: Floats
    """Upper end of it."""

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def finite(self) -> "Series":
        """The part of the series whose values are finite."""
        keep = np.isfinite(self.values)
        return Series(self.name, *(x[keep] for x in (self.steps, self.values, self.low, self.high)))


@dataclass(frozen=True)
class Change:
    """How a metric went from the start to the end of a run."""

    first: float
    last: float
    noise: float
    """95% half-width of `last - first`; NaN when there is too little to tell."""
    width: int
    """Number of logged values averaged at each end."""

    @property
    def difference(self) -> float:
        """Last minus first, in the metric's unit."""
        return self.last - self.first

    @property
    def verb(self) -> str:
        """What the metric does, as a verb; "rises" and "falls" only if it exceeds the noise."""
        if not math.isfinite(self.last):
            return "stops being finite"
        if not math.isnan(self.noise) and abs(self.difference) <= self.noise:
            return "hardly moves"
        return "rises" if self.difference > 0 else "falls" if self.difference else "does not move"


@dataclass(frozen=True)
class Run:
    """Everything a run folder says, with what is wrong with it in `problems`."""

    path: Path
    name: str
    config: dict[str, Any]
    facts: dict[str, Any]
    records: list[lines.Record]
    """One record per step, in rising order; of a step logged twice the later values count."""
    checkpoints: list[lines.Record]
    problems: list[str]

    def metrics(self) -> list[str]:
        """Return the names of all numeric metrics: the glossary's first, in its order."""
        names = {
            key
            for record in self.records
            for key, value in record.items()
            if key != "step" and _is_number(value) and not key.endswith(_BOUND_SUFFIXES)
        }
        return sorted(names, key=rank)

    def trained_steps(self) -> list[int]:
        """Return the steps that were trained, without those that log an evaluation only."""
        return [
            record["step"]
            for record in self.records
            if any(not key.startswith(_NOT_TRAINING) for key in record)
        ]

    def series(self, name: str) -> Series:
        """Return the metric called `name`, or one of its aliases; empty if it is not logged."""
        metric = describe(name)
        for key in (name, metric.name, *metric.aliases):
            having = [record for record in self.records if _is_number(record.get(key))]
            rows = [(record["step"], record[key], *_bounds(record, key)) for record in having]
            if rows:
                return Series(key, *np.array(rows, dtype=float).T)
        return Series(name, *np.empty((4, 0)))

    def headline(self) -> Series:
        """Return the series the run is judged by; empty if the log has none of them."""
        for name in HEADLINES:
            series = self.series(name)
            if len(series.finite):
                return series
        return self.series(HEADLINES[-1])

    def tokens_per_s(self) -> Series:
        """Return tokens per second of each step that logs tokens and time, evaluations left out."""
        rows = []
        for record in self.records:
            tokens, seconds = record.get("num_tokens"), record.get("time/total")
            if _is_number(tokens) and _is_number(seconds):
                training = seconds - record.get("time/evaluation", 0.0)
                if training > 0:
                    rows.append((record["step"], tokens / training, math.nan, math.nan))
        return Series("tokens_per_s", *np.array(rows, dtype=float).reshape(-1, 4).T).finite

    def total(self, name: str) -> float:
        """Return the sum of a metric over all steps, NaN if it is not logged."""
        values = self.series(name).finite.values
        return float(values.sum()) if len(values) else math.nan


def load_run(log_path: str | os.PathLike[str]) -> Run:
    """Return the run in `log_path`, however incomplete.

    Raises:
        DataError: there is no such folder, or nothing in it that a run writes.
    """
    path = Path(log_path).expanduser()
    if not path.is_dir():
        raise DataError(f"log path {path} is not a folder. Give the folder of a training run.")
    if not any((path / name).exists() for name in (METRICS, CHECKPOINTS, folder.CONFIG)):
        raise DataError(
            f"log path {path} holds no run: expected {METRICS}, {CHECKPOINTS} or {folder.CONFIG}. "
            "Give the folder that the training run printed as its log path."
        )
    problems: list[str] = []
    records = _merge_steps(_read_lines(path / METRICS, problems), problems)
    if not records:
        problems.append(f"{METRICS} holds no complete step: the run ended before it logged one.")
    checkpoints = _read_lines(path / CHECKPOINTS, problems)
    config = _read_object(path, folder.CONFIG, problems)
    facts = _read_object(path, folder.RUN, problems) if (path / folder.RUN).exists() else {}
    return Run(path, path.resolve().name, config, facts, records, checkpoints, problems)


def change(series: Series) -> Change:
    """Return how a series went from its start to its end.

    Held-out values are compared one to one. Values of single batches are noisy, so the means of the
    first and last tenth (1 to 10 values) are compared.
    """
    finite = series.finite
    count = len(finite)
    if not count:
        return Change(math.nan, math.nan, math.nan, 0)
    width = 1 if series.name.startswith("test/") else min(10, max(1, count // 10))
    first, last = finite.values[:width].mean(), finite.values[-width:].mean()
    if not math.isfinite(series.values[-1]):
        last = series.values[-1]  # it diverged; the last good values are not where it ended
    return Change(float(first), float(last), _noise_of_difference(finite, width), width)


def smooth(values: Floats) -> tuple[Floats, int]:
    """Return the centred moving average (N,) of `values` and its window in steps.

    The window is a twelfth of the run, odd, at least 3; near the ends it is cut to what is there.
    Fewer than 20 values are returned as they are, window 1.
    """
    count = len(values)
    if count < 20:
        return values, 1
    half = max(1, count // 24)
    means = [values[max(0, i - half) : i + half + 1].mean() for i in range(count)]
    return np.array(means), 2 * half + 1


def slope(series: Series) -> float:
    """Return the least-squares slope per step over the finite values; NaN below two of them."""
    finite = series.finite
    if len(finite) < 2:
        return math.nan
    if np.ptp(finite.values) == 0:
        return 0.0  # the fit would return rounding noise
    return float(np.polyfit(finite.steps, finite.values, 1)[0])


def _noise_of_difference(finite: Series, width: int) -> float:
    """Return the 95% half-width of (mean of the last `width`) - (mean of the first `width`).

    With logged intervals: both half-widths in quadrature, which is too wide, and so on the safe
    side, where both ends are measured on the same examples. Otherwise from the scatter of
    successive values (von Neumann 1941: s² = mean square successive difference / 2), which a slow
    trend hardly enters.
    """
    half_widths = (finite.high - finite.low)[[0, -1]] / 2
    if np.isfinite(half_widths).all():
        return float(np.hypot(*half_widths))
    if len(finite) < 4:
        return math.nan
    variance = float(np.mean(np.diff(finite.values) ** 2)) / 2
    return Z95 * math.sqrt(2 * variance / width)


def _read_lines(file: Path, problems: list[str]) -> list[lines.Record]:
    found = lines.scan(file)
    problems.extend(found.faults)
    if found.torn:
        problems.append(f"{file.name}: the last line is torn (the run was killed) and left out.")
    return found.records


def _read_object(path: Path, name: str, problems: list[str]) -> dict[str, Any]:
    try:
        return folder.read_config(path) if name == folder.CONFIG else folder.read_facts(path)
    except DataError as error:
        problems.append(f"{name}: {'missing' if not (path / name).exists() else error}")
        return {}


def _merge_steps(records: list[lines.Record], problems: list[str]) -> list[lines.Record]:
    merged: dict[int, lines.Record] = {}
    stray = [record for record in records if not _is_number(record.get("step"))]
    if stray:
        problems.append(f"{METRICS}: {len(stray)} lines without a step are left out.")
    for record in records:
        if _is_number(record.get("step")):
            merged.setdefault(record["step"], {}).update(record)
    return [merged[step] for step in sorted(merged)]


def _bounds(record: lines.Record, key: str) -> tuple[float, float]:
    """Return the 95% interval logged as `_margin` (half-width) or `_ci95_low` and `_ci95_high`."""
    half = record.get(f"{key}_margin")
    if _is_number(half):
        return record[key] - half, record[key] + half
    low, high = record.get(f"{key}_ci95_low"), record.get(f"{key}_ci95_high")
    return (low, high) if _is_number(low) and _is_number(high) else (math.nan, math.nan)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
