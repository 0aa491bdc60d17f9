"""The learning path as data: which notebooks there are, what each builds on, what each takes.

Order, aim and prerequisites come from the tables in notebooks/README.md, minutes from the stamps
that executing the notebooks wrote. Nothing is kept twice.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cookbook.errors import DataError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
_ROW = re.compile(r"\| *\d+ *\| *\[(\w+)\]\(\1\.ipynb\) *\| *(.*?) *\| *(.*?) *\|")
_HEADING = re.compile(r"#+ (.+)")


@dataclass(frozen=True)
class Stop:
    """One notebook of the learning path."""

    name: str
    section: str
    """The heading above its row."""
    you_learn: str
    read_first: tuple[str, ...]
    """Names of the notebooks that it builds on."""
    seconds: float | None
    """How long its last stored run took; None if it has never been stored."""

    @property
    def minutes(self) -> str:
        """The time as a reader plans with it: in quarters of a minute, at least one."""
        if self.seconds is None:
            return "?"
        quarters = max(1, round(self.seconds / 15))
        whole, part = divmod(quarters, 4)
        return f"{whole or ''}{('', '¼', '½', '¾')[part]}"


def learning_path(folder: Path = NOTEBOOKS) -> list[Stop]:
    """Return the stops in the order in which one reads them.

    Raises:
        DataError: the notebooks are not there (the package is installed without its repository),
            or a row builds on a notebook that does not come before it.
    """
    table = folder / "README.md"
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    stops: list[Stop] = []
    section = ""
    for line in lines:
        if heading := _HEADING.fullmatch(line):
            section = heading[1]
        elif row := _ROW.fullmatch(line):
            name, you_learn, read_first = row.groups()
            needed = tuple(re.findall(r"\w+", read_first))
            if unknown := {*needed} - {stop.name for stop in stops}:
                raise DataError(f"{table}: {name} builds on {min(unknown)}, which is not above it")
            seconds = _seconds(folder / f"{name}.ipynb")
            stops.append(Stop(name, section, you_learn, needed, seconds))
    if not stops:
        raise DataError(
            f"no learning path in {table}. It comes with the repository, not with the package: "
            "clone it and work from there."
        )
    return stops


def _seconds(path: Path) -> float | None:
    if not path.is_file():
        return None
    stamp = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("cookbook", {})
    return stamp.get("seconds")


def path_figure(stops: list[Stop]) -> Any:
    """Return a figure of the path: each notebook with its minutes, linked to what it builds on.

    A notebook stands one column right of the last of those that it builds on.
    """
    from cookbook.analysis.style import BLUE, GREY, figure_style, new_figure

    columns: dict[str, int] = {}
    for stop in stops:
        columns[stop.name] = 1 + max((columns[name] for name in stop.read_first), default=-1)
    rows = _rows(stops)
    with figure_style():
        figure, axes = new_figure(panel_inches=(9.2, 0.29 * len(stops) + 0.9))
        for stop in stops:
            x, y = columns[stop.name], rows[stop.name]
            for name in stop.read_first:
                start, below = columns[name], rows[name]
                axes.plot([start, start, x], [below, y, y], color="#bbbbbb", linewidth=1, zorder=0)
            axes.plot(x, y, "o", color=GREY if stop.name.startswith("concept_") else BLUE)
            told = f"{stop.name}  {stop.minutes} min"
            axes.annotate(told, (x, y), (7, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set(xlim=(-0.1, max(columns.values()) + 0.9), ylim=(len(stops) - 0.4, -0.6))
        total = sum(stop.seconds or 0 for stop in stops) / 60
        axes.set_title(f"{len(stops)} notebooks, {total:.0f} minutes of computing in all")
        axes.axis("off")
    return figure


def _rows(stops: list[Stop]) -> dict[str, int]:
    """Return each notebook's line: below the last one that it builds on, its followers next."""
    rows: dict[str, int] = {}

    def place(stop: Stop) -> None:
        rows[stop.name] = len(rows)
        for other in stops:
            if other.read_first and other.read_first[-1] == stop.name:
                place(other)

    for stop in stops:
        if not stop.read_first:
            place(stop)
    return rows
