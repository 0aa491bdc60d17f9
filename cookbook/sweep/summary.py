"""The end of a sweep: a table of its runs and the comparison of those that trained."""

import math
import sys
from typing import Any

from cookbook.analysis import Table, change, load_run, write_comparison
from cookbook.analysis.wording import duration, number
from cookbook.errors import DataError
from cookbook.sweep.state import ENDED, Run, Sweep


def summarise(sweep: Sweep) -> None:
    """Print the table; write table, picture and report of the comparison into the folder."""
    print(summary_table(sweep))
    paths = [sweep.path(run) for run in sweep.runs if run.status in ENDED and _trained(sweep, run)]
    if len(paths) < 2:
        print(f"{len(paths)} of {len(sweep.runs)} runs can be compared: no comparison written.")
        return
    try:
        for file in write_comparison(paths, sweep.folder):
            print(file)
    except DataError as error:
        print(f"No comparison written: {error}", file=sys.stderr)


def summary_table(sweep: Sweep) -> Table:
    """Return a row per run: its parameters, how it ended and what it is judged by."""
    names = list(dict.fromkeys(name for run in sweep.runs for name in run.parameters))
    rows = []
    for run in sweep.runs:
        given = [_told(run.parameters.get(name, "default")) for name in names]
        took = duration(run.seconds) if run.seconds else "-"
        rows.append([*given, run.status, *_outcome(sweep, run), took, run.error])
    return Table.of((*names, "status", "judged by", "before", "after", "time", "error"), rows)


def _outcome(sweep: Sweep, run: Run) -> list[str]:
    if not _trained(sweep, run):
        return ["-", "-", "-"]
    series = load_run(sweep.path(run)).headline()
    went = change(series)
    return [series.name, number(went.first), number(went.last)]


def _trained(sweep: Sweep, run: Run) -> bool:
    """Return whether the run's folder holds a log with something to judge it by."""
    try:
        went = change(load_run(sweep.path(run)).headline())
    except DataError:
        return False
    return not math.isnan(went.first)


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
