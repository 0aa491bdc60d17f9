"""The README's picture, drawn from the committed runs: ``python docs/cover.py``."""

from pathlib import Path

from matplotlib.figure import Figure

from cookbook.analysis import (
    alt_text,
    figure_style,
    finding,
    label_ends,
    load_run,
    new_figure,
    reference_runs,
)
from cookbook.analysis.plots import draw_held_out, draw_series
from cookbook.analysis.style import png

PICTURE = Path(__file__).with_name("cover.png")
PANEL_INCHES = (5.2, 2.6)
"""Low, so that the README's table begins on the first screen."""


def cover_figure() -> Figure:
    """Return two panels: a supervised run's loss, a reinforcement-learning run's reward."""
    runs = reference_runs()
    supervised, rewarded = load_run(runs["sl_basic"]), load_run(runs["rl_loop"])
    with figure_style():
        figure, left = new_figure(1, 2, PANEL_INCHES)
        right = figure.axes[1]
        held_out = supervised.series("test/nll")
        label = f"held out\nn = {supervised.config['n_test']}"
        ends = [
            draw_series(left, supervised.series("train_mean_nll"), "training"),
            draw_held_out(left, held_out, label),
        ]
        left.set(title=finding(held_out), ylabel="NLL (nats/token)")
        label_ends(left, ends)
        reward = rewarded.headline()
        label_ends(right, [draw_series(right, reward, "training")])
        right.set(title=finding(reward), ylabel="mean reward of a step", ylim=(-0.03, 1.03))
    return figure


if __name__ == "__main__":
    drawn = cover_figure()
    PICTURE.write_bytes(png(drawn))
    print(alt_text(drawn))
