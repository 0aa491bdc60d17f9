"""How every figure of the project looks, and how it gets into a notebook.

Nothing here touches global state: the style holds inside `figure_style()` only, figures are made
without pyplot, and the user's backend stays what it is.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

BLUE, GREY, VERMILLION = "#0072B2", "#666666", "#D55E00"
GREEN, PURPLE = "#009E73", "#CC79A7"
"""Okabe-Ito: ours or after; baseline or before; rival or fault; two more. Each >= 3:1 on white."""

EndLabel = tuple[float, str, str]
"""Height of a line's end in data units, text, colour."""

PANEL_INCHES = (6.4, 3.6)
STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    "font.size": 9.5,
    "text.color": "#222222",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.xmargin": 0.02,
    "axes.labelcolor": "#444444",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "xtick.labelcolor": "#444444",
    "ytick.labelcolor": "#444444",
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Apply the project's style to figures made inside the `with` block; restore the rest after.

    Example:
        with figure_style():
            fig, ax = new_figure()
            ax.plot([1, 2, 3])
        show(fig, alt="A line from 1 to 3.", caption="The line rises from 1 to 3.")
    """
    with mpl.rc_context(STYLE):
        yield


def new_figure(
    rows: int = 1, columns: int = 1, panel_inches: tuple[float, float] = PANEL_INCHES
) -> tuple[Figure, Axes]:
    """Return a figure of `rows` x `columns` panels and its first axes; use inside `figure_style`.

    All axes are in `figure.axes`, row by row. The figure is not registered with pyplot, so it is
    shown once, by `show`, and needs no closing.
    """
    size = (panel_inches[0] * columns, panel_inches[1] * rows)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=size, layout=layout)
    axes = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    return figure, axes[0]


def label_ends(axes: Axes, labels: list[EndLabel]) -> None:
    """Write labels right of the axes, level with their line's end, moved apart where they overlap.

    Call it last: it needs the final limits of the axes.
    """
    low, high = axes.get_ylim()
    inches = axes.get_position().height * axes.get_figure().get_size_inches()[1]  # pyright: ignore
    line_height = (high - low) / max(inches, 0.5) * 0.165  # one line of text in data units
    floor = -np.inf
    for y, text, colour in sorted(labels):
        height = line_height * (text.count("\n") + 1)
        at = max(y, floor + height / 2)
        floor = at + height / 2
        axes.annotate(
            text,
            (1, at),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=9,
            annotation_clip=False,
        )


def png(figure: Figure) -> bytes:
    """Return the figure as an opaque PNG of at most 256 colours, the same bytes each time."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    with figure_style():
        figure.savefig(drawn, format="rgba", dpi=figure.dpi)
    size = figure.canvas.get_width_height()  # rounded as the drawing is: 9.2 inches are 1012 pixels
    image = Image.frombytes("RGBA", size, drawn.getvalue()).convert("RGB")
    # A palette takes a third of the bytes; our figures have few hues, so nothing is lost.
    image.quantize(256, dither=Image.Dither.NONE).save(packed, format="PNG")
    return packed.getvalue()


def show(figure: Figure, *, alt: str, caption: str) -> None:
    """Show a figure in the notebook with alt text and a visible caption, then let go of it.

    Outside a notebook the caption is printed and the figure dropped.

    Args:
        figure: what to show; pyplot figures are closed, so that they do not appear twice.
        alt: for readers who do not see it: what is plotted, its range, the finding.
        caption: one sentence that starts from what is seen; it stands below the figure.
    """
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(caption)
    else:
        encoded = base64.b64encode(png(figure)).decode()
        bundle = {"image/png": encoded, "text/plain": f"[figure: {alt}]"}
        display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
        display({"text/markdown": caption, "text/plain": caption}, raw=True)
    _close(figure)


def alt_text(figure: Figure) -> str:
    """Return an alt text made of what the panels' titles and axes say."""
    sentences = []
    for axes in figure.axes:
        title = (axes.get_title(loc="left") or axes.get_title()).replace("\n", ": ")
        if axes.axison and title:
            (left, right), (low, high) = axes.dataLim.intervalx, axes.dataLim.intervaly
            drawn = f"{axes.get_ylabel()}, {low:.3g} to {high:.3g}"
            over = f"{axes.get_xlabel()}, {left:.4g} to {right:.4g}"
            sentences.append(f"{title} ({drawn}, against {over}).")
    count = len(sentences)
    opening = f"{count} panels. " if count > 1 else ""
    return opening + " ".join(sentences)


def _close(figure: Figure) -> None:
    manager = getattr(figure.canvas, "manager", None)
    if manager is not None:  # only figures that pyplot made have one
        import matplotlib.pyplot as plt

        plt.close(figure)
