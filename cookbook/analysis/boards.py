"""A game of tic-tac-toe as pictures, a board for every move."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cookbook.analysis.style import BLUE, VERMILLION, figure_style, new_figure
from cookbook.errors import DataError

COLUMNS = 5
COLOURS = {"X": BLUE, "O": VERMILLION}


def board_figure(boards: Sequence[str], title: str) -> Figure:
    """Return a game's boards in order, the latest mark of each on grey.

    Args:
        boards: 1 to 10 texts of nine letters, row by row: "X", "O", or "." for a free square.
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
