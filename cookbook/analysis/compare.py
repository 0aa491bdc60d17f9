"""Several runs side by side: one table, and small multiples of what they are judged by."""

import math
import os
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cookbook.analysis.metrics import describe
from cookbook.analysis.plots import draw_held_out, draw_series
from cookbook.analysis.run import Run, change, load_run
from cookbook.analysis.style import GREY, EndLabel, figure_style, label_ends, new_figure
from cookbook.analysis.table import Table
from cookbook.analysis.wording import duration, number
from cookbook.errors import DataError
from cookbook.runlog.folder import MAY_DIFFER

LogPaths = Sequence[str | os.PathLike[str]]
OUTCOME = ("judged by", "before", "after", "change (95%)", "steps", "tokens", "time")
"""Columns of `outcome_row`."""


def compare(log_paths: LogPaths) -> Table:
    """Return one row per run: the settings that differ, the outcome, steps, tokens and time.

    Raises:
        DataError: one of the paths holds no run.
    """
    runs = [load_run(path) for path in log_paths]
    settings = differing_settings(runs)
    rows = [
        [run.name, *(setting_text(run, name) for name in settings), *outcome_row(run)]
        for run in runs
    ]
    return Table.of(("run", *settings, *OUTCOME), rows)


def comparison_figure(log_paths: LogPaths) -> Figure:
    """Return small multiples, one panel per run; panels of the same metric share their y-axis.

    Raises:
        DataError: one of the paths holds no run, or there are no paths.
    """
    runs = [load_run(path) for path in log_paths]
    if not runs:
        raise DataError("comparison_figure: expected at least one log path, got none.")
    columns = min(3, len(runs))
    with figure_style():
        figure, _ = new_figure(math.ceil(len(runs) / columns), columns, (4.4, 3.2))
        panels = figure.axes[: len(runs)]
        labels = [_draw_headline(axes, run) for axes, run in zip(panels, runs, strict=True)]
        _share_limits(panels)
        for axes, label in zip(panels, labels, strict=True):
            label_ends(axes, [label])
        for axes in figure.axes[len(runs) :]:
            axes.set_axis_off()
    return figure


def differing_settings(runs: Sequence[Run]) -> list[str]:
    """Return the settings that have several values among the runs that record them."""
    names = dict.fromkeys(name for run in runs for name in run.config if name not in MAY_DIFFER)
    values = {
        name: {setting_text(run, name) for run in runs if name in run.config} for name in names
    }
    return [name for name in names if len(values[name]) > 1]


def setting_text(run: Run, name: str) -> str:
    """Return one setting of a run as text, "-" where it records none."""
    value: Any = run.config.get(name, "-")
    return f"{value:g}" if isinstance(value, float) else str(value)


def outcome_row(run: Run) -> list[str]:
    """Return a run's outcome, steps, tokens and time as text, as `OUTCOME` names them."""
    series = run.headline()
    went, tokens = change(series), run.total("num_tokens")
    noise = f" ± {number(went.noise, 2)}" if math.isfinite(went.noise) else ""
    return [
        series.name if went.width else "nothing logged",
        number(went.first),
        number(went.last),
        f"{number(went.difference, 3)}{noise}",
        f"{len(run.trained_steps()):,}",
        number(tokens) if math.isfinite(tokens) else "-",
        duration(run.total("time/total")),
    ]


def _draw_headline(axes: Axes, run: Run) -> EndLabel:
    series = run.headline()
    went, metric = change(series), describe(series.name)
    draw = draw_held_out if series.name.startswith("test/") else draw_series
    label = draw(axes, series, "") if went.width else (0.0, "nothing\nlogged", GREY)
    axes.set_title(f"{run.name}\n{went.verb}: {number(went.first, 3)} to {number(went.last, 3)}")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(metric.axis)
    return label


def _share_limits(panels: Sequence[Axes]) -> None:
    """Give panels of the same quantity the same y-axis."""
    for ylabel in {axes.get_ylabel() for axes in panels}:
        alike = [axes for axes in panels if axes.get_ylabel() == ylabel]
        low = min(axes.get_ylim()[0] for axes in alike)
        high = max(axes.get_ylim()[1] for axes in alike)
        for axes in alike:
            axes.set_ylim(low, high)
