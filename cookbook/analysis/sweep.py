"""Runs that differ in settings: the outcome against one of them, and the curves behind it."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cookbook.analysis.compare import LogPaths, differing_settings
from cookbook.analysis.metrics import describe
from cookbook.analysis.ranking import best_run, outcome, verdict
from cookbook.analysis.run import Run, load_run
from cookbook.analysis.style import (
    BLUE,
    GREY,
    VERMILLION,
    EndLabel,
    figure_style,
    label_ends,
    new_figure,
)
from cookbook.analysis.wording import scientific
from cookbook.errors import DataError

LINES, MARKERS = ("-", "--", ":", "-."), "osD^"
"""Of the runs that share all other settings; a cycle, told apart by their labels too."""


def sweep_figure(log_paths: LogPaths, setting: str = "learning_rate") -> Figure:
    """Return two panels: the runs' last held-out values against a setting, and their curves.

    Runs that share all other settings (but the seed) are joined by a line, through the mean where
    several have the same value. Bars are 95% intervals. Runs that share their test rows differ
    more surely than bars that overlap suggest. A run that stopped being finite is marked at the
    top. The title names a winner only as far as the noise allows.

    Raises:
        DataError: fewer than two runs, a run without the setting, or runs that are judged by
            different metrics.
    """
    runs = sorted_runs(log_paths, setting)
    with figure_style():
        figure, left = new_figure(1, 2, (5.2, 3.6))
        best = best_run(runs)
        _draw_outcomes(left, runs, setting, best)
        _draw_curves(figure.axes[1], runs, setting, best)
    return figure


def sorted_runs(log_paths: LogPaths, setting: str) -> list[Run]:
    """Return the runs in rising order of a setting.

    Raises:
        DataError: as `sweep_figure`.
    """
    runs = [load_run(path) for path in log_paths]
    if len(runs) < 2:
        raise DataError(f"A sweep needs at least two runs, got {len(runs)}. Give more log paths.")
    for run in runs:
        if not isinstance(run.config.get(setting), int | float | str):
            raise DataError(
                f"{run.path}: setting {setting!r} is {run.config.get(setting)!r}, expected a number"
                " or a text. Name a setting of these runs, such as "
                f"{', '.join(list(run.config)[:4]) or 'none is recorded'}."
            )
    metrics = {run.headline().name for run in runs}
    if len(metrics) > 1:
        raise DataError(
            f"The runs are judged by {', '.join(sorted(metrics))}. Compare runs of one kind."
        )
    numeric = all(_is_number(run.config[setting]) for run in runs)
    return sorted(
        runs, key=lambda run: run.config[setting] if numeric else str(run.config[setting])
    )


def main_setting(runs: Sequence[Run]) -> str | None:
    """Return the setting to draw runs against: the learning rate, else a number, that differs."""
    names = [name for name in differing_settings(runs) if all(name in run.config for run in runs)]
    numbers = [n for n in names if all(_is_number(run.config[n]) for run in runs) and n != "seed"]
    texts = [n for n in names if all(isinstance(run.config[n], str) for run in runs)]
    order = ["learning_rate"] if "learning_rate" in numbers else [*numbers, *texts]
    return order[0] if order else "seed" if "seed" in names else None


def run_label(run: Run, setting: str, others: Sequence[str]) -> str:
    """Return what tells a run from the others: `3e-03, lora rank 8`."""
    return ", ".join([_shown(run.config[setting]), *filter(None, [_others_text(run, others)])])


def other_settings(runs: Sequence[Run], setting: str) -> list[str]:
    """Return the settings besides `setting` in which the runs differ."""
    return [name for name in differing_settings(runs) if name != setting]


def _draw_outcomes(axes: Axes, runs: Sequence[Run], setting: str, best: Run | None) -> None:
    ended = [run for run in runs if np.isfinite(outcome(run).value)]
    places = _places(axes, runs, setting)
    others = [name for name in other_settings(runs, setting) if name != "seed"]
    groups: dict[str, list[Run]] = {}
    for run in ended:
        groups.setdefault(_others_text(run, others), []).append(run)
    labels: list[EndLabel] = []
    for (text, group), line, marker in zip(
        groups.items(), itertools.cycle(LINES), itertools.cycle(MARKERS), strict=False
    ):
        x = list(dict.fromkeys(places(run) for run in group))
        means = [np.mean([outcome(run).value for run in group if places(run) == at]) for at in x]
        axes.plot(x, means, color=GREY, linewidth=1.2, linestyle=line)
        labels.append((float(means[-1]), text, GREY))
        for run in group:
            told, colour = outcome(run), BLUE if run is best else GREY
            bars = [told.noise] if np.isfinite(told.noise) else None
            axes.errorbar(
                [places(run)], [told.value], bars, fmt=marker, color=colour, lw=1.2, capsize=3
            )
    for run in runs:
        if run not in ended:
            at_top = axes.get_xaxis_transform()
            axes.plot(places(run), 0.97, "x", color=VERMILLION, ms=8, transform=at_top)
    axes.set_ylabel(describe(runs[0].headline().name).axis)
    axes.set_title(verdict(runs, lambda run: run_label(run, setting, others)))
    label_ends(axes, [*_before(axes, runs), *(labels if len(groups) > 1 else [])])


def _places(axes: Axes, runs: Sequence[Run], setting: str) -> Any:
    """Lay out the x-axis; return the function that gives a run's place on it."""
    values = list(dict.fromkeys(run.config[setting] for run in runs))
    numeric = all(_is_number(value) for value in values)
    at = {value: value if numeric else float(i) for i, value in enumerate(values)}
    if numeric and min(values) > 0 and max(values) / min(values) >= 10:
        axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks([at[value] for value in values], [_shown(value) for value in values])
    axes.margins(x=0.1)
    axes.set_xlabel(setting.replace("_", " "))
    return lambda run: at[run.config[setting]]


def _before(axes: Axes, runs: Sequence[Run]) -> list[EndLabel]:
    """Draw where all runs began, if that is one place; return its label."""
    first = [run.headline().values[0] for run in runs if len(run.headline())]
    if len(first) < len(runs) or not np.allclose(first, first[0], rtol=1e-3):
        return []
    axes.axhline(first[0], color=GREY, linestyle=":", linewidth=1.3)
    return [(float(first[0]), "before\ntraining", GREY)]


def _draw_curves(axes: Axes, runs: Sequence[Run], setting: str, best: Run | None) -> None:
    labels: list[EndLabel] = []
    others = other_settings(runs, setting)
    for run in runs:
        finite, colour = run.headline().finite, BLUE if run is best else GREY
        axes.plot(finite.steps, finite.values, color=colour, marker="o", linewidth=1.5)
        if len(finite):
            labels.append((float(finite.values[-1]), run_label(run, setting, others), colour))
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(describe(runs[0].headline().name).axis)
    axes.set_title(f"{len(runs)} runs, labelled by {setting.replace('_', ' ')}")
    label_ends(axes, labels)


def _others_text(run: Run, others: Sequence[str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_shown(run.config.get(name))}" for name in others)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if not _is_number(value):
        return "-" if value is None else str(value).rstrip("/").split("/")[-1]
    return scientific(value) if 0 < abs(value) < 0.1 else f"{value:g}"
