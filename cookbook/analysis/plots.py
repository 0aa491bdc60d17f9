"""The panels of `training_analysis.png`: one function each, drawn only if its metric is there.

Every title is a finding computed from the data; raw values stay visible behind smoothed ones.
"""

import math
from collections.abc import Callable, Collection

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cookbook.analysis.metrics import describe
from cookbook.analysis.run import Run, Series, change, smooth
from cookbook.analysis.style import (
    BLUE,
    GREY,
    PURPLE,
    VERMILLION,
    EndLabel,
    figure_style,
    label_ends,
    new_figure,
)
from cookbook.analysis.wording import duration, number, scientific, sentence_case

Panel = Callable[[Axes, Run], None]
REWARDS = ("env/all/reward/total", "test/env/all/reward/total")
KL_LIMIT = 0.01
"""Above this |KL| between sampler and trainer the samples are no longer nearly on-policy."""


def training_figure(run: Run, only: Collection[str] = ()) -> Figure:
    """Return a panel for each metric of a run that has one (`only`: for these), or why none is."""
    drawn = [
        panel
        for metrics, panel in PANELS
        if any(_has(run, name) for name in metrics) and (not only or {*only} & {*metrics})
    ]
    columns = 1 if len(drawn) < 2 else 2
    with figure_style():
        figure, first = new_figure(max(1, math.ceil(len(drawn) / columns)), columns)
        for axes, panel in zip(figure.axes, drawn, strict=False):
            panel(axes, run)
        for axes in figure.axes[len(drawn) :]:
            axes.set_axis_off()
        figure.suptitle(_settings_line(run), x=0.01, ha="left", fontsize=9, color=GREY)
        if not drawn:
            _say_empty(first, run)
    return figure


def reward_figure(run: Run) -> Figure:
    """Return the curve of a reinforcement-learning run alone, to watch while it trains."""
    with figure_style():
        figure, axes = new_figure()
        if any(_has(run, name) for name in REWARDS):
            _draw_reward(axes, run)
        else:
            _say_empty(axes, run)
    return figure


def finding(series: Series) -> str:
    """Return one sentence on how `series` went, with numbers and unit."""
    metric = describe(series.name)
    went = change(series)
    if not went.width:
        return f"No finite {metric.label} was logged."
    unit = f" {metric.unit}" if metric.unit not in ("", "per episode", "fraction") else ""
    name, steps = sentence_case(metric.label), int(series.steps[-1] - series.steps[0])
    if not series.name.startswith("test/"):
        steps += 1  # each value was measured before its step's update
    if not math.isfinite(went.last):
        bad = series.steps[~np.isfinite(series.values)][0]
        return f"{name} stops being finite at step {bad:.0f}: the run diverged"
    if len(series.finite) == 1:
        return f"{name} is {number(went.last, 3)}{unit}, measured once"
    over = f"{unit} in {steps:,} steps"
    if went.verb in ("rises", "falls"):
        return f"{name} {went.verb} from {number(went.first, 3)} to {number(went.last, 3)}{over}"
    return f"{name} {went.verb}: {number(went.first, 3)} to {number(went.last, 3)}{over}"


def draw_series(axes: Axes, series: Series, label: str, colour: str = BLUE) -> EndLabel:
    """Draw a noisy series raw and smoothed; return its end label for `label_ends`."""
    finite = series.finite
    smoothed, window = smooth(finite.values)
    if window > 1:
        axes.plot(finite.steps, finite.values, color=colour, alpha=0.3, linewidth=1)
        label = f"{label}\nmean of {window} steps".strip()
    marker = "o" if len(finite) < 20 and window == 1 else None
    axes.plot(finite.steps, smoothed, color=colour, marker=marker)
    _mark_non_finite(axes, series)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return (smoothed[-1] if len(finite) else 0.0, label, colour)


def draw_held_out(axes: Axes, series: Series, label: str) -> EndLabel:
    """Draw held-out values with their 95% intervals; return the end label for `label_ends`."""
    finite = series.finite
    known = np.isfinite(finite.low)
    axes.plot(finite.steps, finite.values, color=PURPLE, marker="o", linestyle="--")
    if known.any():
        errors = np.abs(np.stack([finite.values - finite.low, finite.high - finite.values]))
        axes.errorbar(
            finite.steps[known],
            finite.values[known],
            yerr=errors[:, known],
            fmt="none",
            ecolor=PURPLE,
            elinewidth=1.2,
            capsize=3,
        )
        label += "\n95% interval"
    return finite.values[-1], label.strip(), PURPLE


def _draw_nll(axes: Axes, run: Run) -> None:
    held_out, train = run.series("test/nll"), run.series("train_mean_nll")
    labels = []
    if len(train.finite):
        labels.append(draw_series(axes, train, "training"))
    if len(held_out.finite):
        labels.append(draw_held_out(axes, held_out, _with_count("held out", run)))
    _finish(axes, run.headline(), "NLL (nats/token)", labels)


def _draw_reward(axes: Axes, run: Run) -> None:
    reward, held_out = (run.series(name) for name in REWARDS)
    labels = []
    if len(reward.finite):
        labels.append(draw_series(axes, reward, "training"))
    if len(held_out.finite):
        labels.append(draw_held_out(axes, held_out, _with_count("held out", run)))
    values = np.concatenate([reward.finite.values, held_out.finite.values])
    if values.min() >= 0 and values.max() <= 1:
        axes.set_ylim(-0.03, 1.03)
    main = held_out if len(held_out.finite) > 1 or not len(reward.finite) else reward
    start = change(main).first
    axes.axhline(start, color=GREY, linestyle=":", linewidth=1.3)
    labels.append((start, "at the start", GREY))
    _finish(axes, main, "mean reward per episode", labels)


def _draw_kl(axes: Axes, run: Run) -> None:
    series = run.series("kl_sample_train_v1")
    label = draw_series(axes, series, "KL")
    worst = float(np.abs(series.finite.values).max()) if len(series.finite) else math.nan
    for limit in (-KL_LIMIT, KL_LIMIT):
        axes.axhline(limit, color=GREY, linestyle=":", linewidth=1.3)
    side = "stays within" if worst <= KL_LIMIT else "leaves"
    axes.set_title(f"KL sampler to trainer {side} ±{KL_LIMIT} (largest {number(worst, 2)})")
    axes.set_ylabel("KL (nats/token)")
    label_ends(axes, [label, (KL_LIMIT, "healthy limit", GREY)])


def _draw_learning_rate(axes: Axes, run: Run) -> None:
    finite = run.series("learning_rate").finite
    axes.plot(finite.steps, finite.values, color=BLUE)
    first, last = _rate(finite.values[0]), _rate(finite.values[-1])
    went = f"stays at {first}" if np.ptp(finite.values) == 0 else f"goes from {first} to {last}"
    axes.set_title(f"Learning rate {went}")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("Adam step size")
    axes.set_ylim(0, float(finite.values.max()) * 1.08 or 1)
    axes.yaxis.set_major_formatter(lambda rate, _: _rate(rate))


def _draw_throughput(axes: Axes, run: Run) -> None:
    series = run.tokens_per_s()
    label = draw_series(axes, series, "batch")
    median = float(np.median(series.values))
    axes.set_title(f"Throughput: {number(median, 3)} tokens/s in the median step")
    axes.set_ylabel("tokens/s")
    axes.set_ylim(bottom=0)
    label_ends(axes, [label])


def _draw_time(axes: Axes, run: Run) -> None:
    series = run.series("time/total")
    label = draw_series(axes, series, "step")
    values = series.finite.values
    axes.set_title(
        f"The median step takes {duration(float(np.median(values)))}, all {duration(values.sum())}"
    )
    axes.set_ylabel("wall time (s)")
    axes.set_ylim(bottom=0)
    label_ends(axes, [label])


def _plain_panel(name: str, label: str) -> Panel:
    """Return a panel that draws one noisy series, and where logged its held-out counterpart."""

    def draw(axes: Axes, run: Run) -> None:
        series, held_out = run.series(name), run.series(f"test/{name}")
        labels = [draw_series(axes, series, label)]
        if len(held_out.finite):
            labels.append(draw_held_out(axes, held_out, _with_count("held out", run)))
            series = held_out
        _finish(axes, series, describe(name).axis, labels)

    return draw


def _chosen_and_rejected(kind: str, main: str, ylabel: str) -> Panel:
    """Return a panel of one metric of chosen and rejected answers, titled by the finding on one."""

    def draw(axes: Axes, run: Run) -> None:
        low = draw_series(axes, run.series(f"rejected_{kind}"), "rejected", VERMILLION)
        labels = [draw_series(axes, run.series(f"chosen_{kind}"), "chosen"), low]
        _finish(axes, run.series(main), ylabel, labels)

    return draw


PANELS: tuple[tuple[tuple[str, ...], Panel], ...] = (
    (("test/nll", "train_mean_nll"), _draw_nll),
    (REWARDS, _draw_reward),
    (("ranking_accuracy",), _plain_panel("ranking_accuracy", "training")),
    (("margin",), _chosen_and_rejected("reward", "margin", "implicit reward")),
    (("chosen_logprob",), _chosen_and_rejected("logprob", "chosen_logprob", "log p (nats/answer)")),
    (("implicit_kl",), _plain_panel("implicit_kl", "training")),
    (("env/all/teacher_kl",), _plain_panel("env/all/teacher_kl", "KL")),
    (("optim/entropy",), _plain_panel("optim/entropy", "entropy")),
    (("kl_sample_train_v1",), _draw_kl),
    (("env/all/ac_tokens_per_turn",), _plain_panel("env/all/ac_tokens_per_turn", "length")),
    (("learning_rate",), _draw_learning_rate),
    (("tokens_per_s",), _draw_throughput),
    (("time/total",), _draw_time),
)
"""Which metrics call for which panel: any one of them is enough."""


def _has(run: Run, metric: str) -> bool:
    series = run.tokens_per_s() if metric == "tokens_per_s" else run.series(metric)
    return len(series.finite) > 0


def _finish(axes: Axes, series: Series, ylabel: str, labels: list[EndLabel]) -> None:
    axes.set_title(finding(series))
    axes.set_ylabel(ylabel)
    label_ends(axes, labels)


def _with_count(label: str, run: Run) -> str:
    names = ("test/num_sequences", "test/env/all/total_episodes")
    logged = [run.series(name).finite.values for name in names]
    counts = [int(values[-1]) for values in logged if len(values)]
    count = counts[0] if counts else run.config.get("n_test")
    return f"{label}, n = {count}" if count else label


def _mark_non_finite(axes: Axes, series: Series) -> None:
    bad = series.steps[~np.isfinite(series.values)]
    if len(bad):
        axes.axvspan(bad[0], series.steps[-1], color=VERMILLION, alpha=0.15, linewidth=0)
        axes.axvline(bad[0], color=VERMILLION, linewidth=1.5)
        axes.text(
            bad[0],
            0.97,
            "  not finite",
            color=VERMILLION,
            va="top",
            transform=axes.get_xaxis_transform(),
        )


def _rate(value: float) -> str:
    return scientific(float(f"{value:.3g}")) if value else "0"


def _settings_line(run: Run) -> str:
    """Return what tells this run from others, for the figure's first line."""
    settings = run.config
    model = str(settings.get("model_name", "")).rstrip("/").split("/")[-1]
    rate = settings.get("learning_rate")
    parts = [
        run.name,
        model,
        str(settings.get("dataset", "")),
        f"learning rate {_rate(rate)}" if isinstance(rate, int | float) else "",
        f"seed {settings['seed']}" if "seed" in settings else "",
    ]
    return "  ·  ".join(part for part in parts if part)


def _say_empty(axes: Axes, run: Run) -> None:
    axes.set_axis_off()
    text = "\n".join(["Nothing to draw yet.", *run.problems[:4]])
    axes.text(0.5, 0.5, text, ha="center", va="center", wrap=True, color=GREY, fontsize=11)
