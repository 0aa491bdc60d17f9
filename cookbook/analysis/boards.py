"""A game of tic-tac-toe as pictures: all boards in a figure, or one by one to step through.

A board is a text of nine letters, row by row: "X", "O", or "." for a free square.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cookbook.analysis.style import BLUE, VERMILLION, figure_style, new_figure
from cookbook.errors import DataError

COLUMNS = 5
COLOURS = {"X": BLUE, "O": VERMILLION}
_CELL = "width:1.7em;height:1.7em;border:1px solid #888;text-align:center;padding:0"


def board_figure(boards: Sequence[str], title: str) -> Figure:
    """Return a game's boards in order, the latest mark of each on grey.

    Args:
        boards: 1 to 10 of them.
        title: of the figure.
    Raises:
        DataError: no board, or too many.
    """
    if not 1 <= len(boards) <= 2 * COLUMNS:
        raise DataError(f"{len(boards)} boards: a game has 1 to {2 * COLUMNS}")
    columns = min(COLUMNS, len(boards))
    rows = -(-len(boards) // columns)
    with figure_style():
        figure, _ = new_figure(rows, columns, panel_inches=(1.25, 1.4))
        for number, axes in enumerate(figure.axes):
            axes.set_axis_off()
            if number < len(boards):
                _draw(axes, boards[number], boards[number - 1] if number else boards[0])
                axes.set_title(f"move {number}" if number else "start", fontsize=8.5, pad=3)
        figure.suptitle(title, fontsize=10.5, fontweight="bold", x=0.02, ha="left")
    return figure


def _draw(axes: Axes, board: str, before: str) -> None:
    axes.set(xlim=(0, 3), ylim=(3, 0), aspect="equal")
    for square, mark in enumerate(board):
        row, column = divmod(square, 3)
        if mark != before[square]:
            axes.axhspan(row, row + 1, column / 3, (column + 1) / 3, color="#dddddd", lw=0)
        if mark in COLOURS:
            axes.text(
                column + 0.5, row + 0.52, mark, color=COLOURS[mark],
                ha="center", va="center", fontsize=15, fontweight="bold",
            )  # fmt: skip
    for line in (1, 2):
        axes.plot([line, line], [0, 3], color="#888888", lw=1)
        axes.plot([0, 3], [line, line], color="#888888", lw=1)


@dataclass(frozen=True)
class GameView:
    """What `game_view` returns; notebooks show it as HTML, `print` as text."""

    title: str
    boards: Sequence[str]
    notes: Sequence[str]

    def _steps(self) -> list[tuple[str, str, int]]:
        """Return what is said of each board, the board, and the place of its latest mark or -1."""
        steps = [("Start", self.boards[0], -1)]
        for number, (before, board) in enumerate(pairwise(self.boards), start=1):
            place = next(i for i in range(9) if board[i] != before[i])
            note = self.notes[number - 1] if self.notes else ""
            told = f"{number}. {board[place]} takes {place + 1}" + (f": {note}" if note else "")
            steps.append((told, board, place))
        return steps

    def __repr__(self) -> str:
        lines = [self.title]
        for told, board, _ in self._steps():
            lines += [told, *(f"    {' '.join(board[i : i + 3])}" for i in (0, 3, 6))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        # Parts of one name close each other: opening the next one is a step.
        name = hashlib.sha256(repr(self).encode()).hexdigest()[:12]
        steps = self._steps()
        parts = [
            f'<details name="game-{name}"{" open" if step is steps[-1] else ""}>'
            f"<summary>{escape(step[0])}</summary>{_table(step[1], step[2])}</details>"
            for step in steps
        ]
        return f"<div><b>{escape(self.title)}</b>{''.join(parts)}</div>"


def game_view(boards: Sequence[str], title: str, notes: Sequence[str] = ()) -> GameView:
    """Return a game to step through: a line for each move that opens its board, no script needed.

    Args:
        boards: of a game in order, at least one; each has one mark more than the one before.
        title: above them.
        notes: what to say of each move, if anything: one for each board but the first.
    Raises:
        DataError: no board, no game, or a wrong number of notes.
    """
    if not boards:
        raise DataError("0 boards: a game has at least one")
    for before, board in pairwise(boards):
        changed = [old for old, new in zip(before, board, strict=True) if old != new]
        if changed != ["."]:
            raise DataError(f"{board!r} is not one move after {before!r}")
    if notes and len(notes) != len(boards) - 1:
        raise DataError(f"{len(notes)} notes for {len(boards) - 1} moves; give one for each")
    return GameView(title, boards, notes)


def _table(board: str, latest: int) -> str:
    cells = []
    for place, mark in enumerate(board):
        colour = f";color:{COLOURS[mark]}" if mark in COLOURS else ""
        grey = ";background:#ddd" if place == latest else ""
        text = f"<b>{mark}</b>" if place == latest else mark if mark in COLOURS else "&nbsp;"
        cells.append(f'<td style="{_CELL}{colour}{grey}">{text}</td>')
    rows = "".join(f"<tr>{''.join(cells[i : i + 3])}</tr>" for i in (0, 3, 6))
    return f'<table style="border-collapse:collapse;margin:.3em 1.2em">{rows}</table>'
