"""Runs that differ in one setting: the outcome against the setting, and the curves behind it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cookbook.analysis.compare import LogPaths, compare
from cookbook.analysis.metrics import describe
from cookbook.analysis.run import Run, load_run
from cookbook.analysis.style import (
    BLUE,
    GREY,
    VERMILLION,
    figure_style,
    label_ends,
    new_figure,
    png,
)
from cookbook.analysis.wording import number, scientific, sentence_case
from cookbook.errors import DataError

TABLE, PICTURE = "comparison.txt", "comparison.png"


def sweep_figure(log_paths: LogPaths, setting: str = "learning_rate") -> Figure:
    """Return two panels: the runs' last held-out values against a setting, and their curves.

    Bars are the logged 95% intervals. Runs that share their test rows differ more surely than bars
    that overlap suggest. A run that stopped being finite is marked at the top.

    Raises:
        DataError: fewer than two runs, a run without the setting as a number, or runs that are
            judged by different metrics.
    """
    runs = _sorted_runs(log_paths, setting)
    with figure_style():
        figure, left = new_figure(1, 2, (5.2, 3.6))
        best = _best(runs)
        _draw_outcomes(left, runs, setting, best)
        _draw_curves(figure.axes[1], runs, setting, best)
    return figure


def write_comparison(
    log_paths: LogPaths, output_dir: str | Path, setting: str = "learning_rate"
) -> list[Path]:
    """Write the table and the figure of a sweep into `output_dir`; return the two files.

    Raises:
        DataError: as `sweep_figure`.
    """
    runs = _sorted_runs(log_paths, setting)
    ordered = [run.path for run in runs]
    folder = Path(output_dir).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TABLE).write_text(f"{compare(ordered)}\n", encoding="utf-8")
    (folder / PICTURE).write_bytes(png(sweep_figure(ordered, setting)))
    return [folder / TABLE, folder / PICTURE]


def _sorted_runs(log_paths: LogPaths, setting: str) -> list[Run]:
    runs = [load_run(path) for path in log_paths]
    if len(runs) < 2:
        raise DataError(f"A sweep needs at least two runs, got {len(runs)}. Give more log paths.")
    for run in runs:
        value: Any = run.config.get(setting)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError(
                f"{run.path}: setting {setting!r} is {value!r}, expected a number. Name a setting "
                f"of these runs, such as {', '.join(list(run.config)[:4]) or 'none is recorded'}."
            )
    metrics = {run.headline().name for run in runs}
    if len(metrics) > 1:
        raise DataError(
            f"The runs are judged by {', '.join(sorted(metrics))}. Compare runs of one kind."
        )
    return sorted(runs, key=lambda run: run.config[setting])


def _best(runs: Sequence[Run]) -> Run | None:
    """Return the run with the best last value; None if no run ended with a finite one."""
    ended = [run for run in runs if _is_finite(run)]
    sign = -1 if describe(runs[0].headline().name).better == "higher" else 1
    return min(ended, key=lambda run: sign * run.headline().values[-1], default=None)


def _is_finite(run: Run) -> bool:
    values = run.headline().values
    return len(values) > 0 and math.isfinite(values[-1])


def _draw_outcomes(axes: Axes, runs: Sequence[Run], setting: str, best: Run | None) -> None:
    ended = [run for run in runs if _is_finite(run)]
    settings = [run.config[setting] for run in ended]
    last = [run.headline().values[-1] for run in ended]
    axes.plot(settings, last, color=GREY, linewidth=1.2)
    for run, x, y in zip(ended, settings, last, strict=True):
        series, colour = run.headline(), BLUE if run is best else GREY
        bounds = np.array([[y - series.low[-1]], [series.high[-1] - y]])
        bars = bounds if np.isfinite(bounds).all() else None
        axes.errorbar([x], [y], yerr=bars, fmt="o", color=colour, elinewidth=1.2, capsize=3)
    for run in runs:
        if run not in ended:
            at_top = axes.get_xaxis_transform()
            axes.plot(run.config[setting], 0.97, "x", color=VERMILLION, ms=8, transform=at_top)
    values = [run.config[setting] for run in runs]
    if min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(values, [_shown(value) for value in values])
    axes.margins(x=0.1)
    metric = describe(runs[0].headline().name)
    axes.set_xlabel(setting.replace("_", " "))
    axes.set_ylabel(metric.axis)
    first = [run.headline().values[0] for run in runs if len(run.headline())]
    if len(first) == len(runs) and np.allclose(first, first[0], rtol=1e-3):
        axes.axhline(first[0], color=GREY, linestyle=":", linewidth=1.3)
        label_ends(axes, [(first[0], "before\ntraining", GREY)])
    if best is None:
        axes.set_title("No run ended with a finite value")
    else:
        told = f"{number(best.headline().values[-1], 3)} at {_shown(best.config[setting])}"
        axes.set_title(f"{sentence_case(metric.label)} is best, {told}")


def _draw_curves(axes: Axes, runs: Sequence[Run], setting: str, best: Run | None) -> None:
    labels = []
    for run in runs:
        finite, colour = run.headline().finite, BLUE if run is best else GREY
        axes.plot(finite.steps, finite.values, color=colour, marker="o", linewidth=1.5)
        if len(finite):
            labels.append((float(finite.values[-1]), _shown(run.config[setting]), colour))
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(describe(runs[0].headline().name).axis)
    axes.set_title(f"{len(runs)} runs, labelled by {setting.replace('_', ' ')}")
    label_ends(axes, labels)


def _shown(value: float) -> str:
    return scientific(value) if 0 < abs(value) < 0.1 else f"{value:g}"
