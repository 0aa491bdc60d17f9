"""Figures of learning from comparisons: a judge's calibration, a policy's proxy and true score."""

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
from matplotlib.figure import Figure

from cookbook.analysis import figure_style, label_ends, load_run, new_figure
from cookbook.analysis.plots import draw_series
from cookbook.analysis.style import BLUE, GREY, VERMILLION
from cookbook.preferences.verdicts import CalibrationBin, calibration_error

LogPath = str | PathLike[str]
PROXY, TRUE = "win", "asks_back"
"""Metrics below `test/env/all/`: what the judge gives, and what is there."""


def judge_figure(log_path: LogPath) -> Figure:
    """Return the label's NLL of a judge's training by step, and that of a coin."""
    nll = load_run(log_path).series("train_mean_nll")
    with figure_style():
        figure, axes = new_figure(panel_inches=(6.4, 2.8))
        axes.axhline(np.log(2), color=GREY, linestyle=":")
        labels = [draw_series(axes, nll, "label"), (float(np.log(2)), "a coin", GREY)]
        axes.set_ylabel("NLL of the label (nats)")
        axes.set_ylim(bottom=0)
        axes.set_title(f"The label's NLL goes from {nll.values[0]:.2f} to {nll.values[-1]:.2f}")
        label_ends(axes, labels)
    return figure


def calibration_figure(bins: Sequence[CalibrationBin]) -> Figure:
    """Return how often a judge is right by how sure it is, with 95% Wilson intervals."""
    predicted, share = ([getattr(each, name) for each in bins] for name in ("predicted", "share"))
    errors = [[each.share - each.low for each in bins], [each.high - each.share for each in bins]]
    with figure_style():
        figure, axes = new_figure(panel_inches=(4.6, 3.4))
        axes.plot([0.5, 1], [0.5, 1], color=GREY, linestyle=":")
        axes.errorbar(predicted, share, errors, color=BLUE, marker="o", capsize=3)
        axes.set(xlabel="how sure the judge is", ylabel="how often it is right", ylim=(None, 1.03))
        axes.set_title(f"Calibration error {calibration_error(bins):.2f}")
    return figure


def scores_by_distance(log_path: LogPath) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a run's KL from the reference at each evaluation, its proxy and its true score (N).

    An evaluation at step s is of the weights that sample step s; nobody samples with those of the
    last one, so it has the KL of the step before.
    """
    run = load_run(log_path)
    distance = run.series("kl_policy_base").finite
    proxy, true = (run.series(f"test/env/all/{name}") for name in (PROXY, TRUE))
    if not len(distance):
        return np.zeros(len(proxy)), proxy.values, true.values
    return np.interp(proxy.steps, distance.steps, distance.values), proxy.values, true.values


def scores_figure(runs: Mapping[str, LogPath]) -> Figure:
    """Return the proxy and the true score against the distance from the reference, run by run."""
    with figure_style():
        figure, _ = new_figure(1, len(runs), panel_inches=(3.7, 3.2))
        for axes, (name, log_path) in zip(figure.axes, runs.items(), strict=True):
            distance, proxy, true = scores_by_distance(log_path)
            axes.plot(distance, proxy, color=VERMILLION, marker="o")
            axes.plot(distance, true, color=BLUE, marker="s")
            axes.set(xlabel="KL from the reference (nats/token)", ylabel="held-out share")
            axes.set_ylim(-0.03, 1.03)
            axes.set_title(name)
            if len(proxy):
                axes.set_title(f"{name}: ends at {proxy[-1]:.2f} and {true[-1]:.2f}")
                judge = (float(proxy[-1]), "judge\n(proxy)", VERMILLION)
                label_ends(axes, [judge, (float(true[-1]), "asks back\n(true)", BLUE)])
    return figure
