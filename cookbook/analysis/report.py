"""The two text files of a results folder: the report and the settings."""

import math
from typing import Any

import numpy as np

from cookbook.analysis.diagnosis import signs_of_trouble
from cookbook.analysis.metrics import UNKNOWN, describe
from cookbook.analysis.plots import finding
from cookbook.analysis.run import Run, change, slope
from cookbook.analysis.table import Table
from cookbook.analysis.wording import duration, number


def report_text(run: Run) -> str:
    """Return `training_report.txt`: the same text for the same log, whenever and wherever made."""
    title = f"Training report: {run.name}"
    sections = [
        f"{title}\n{'=' * len(title)}",
        _findings(run),
        _section("Totals", _pairs(_totals(run))),
        _section("Held-out data, before and after", str(held_out_table(run))),
        _section("Metrics", str(metric_table(run))),
        _section("Checkpoints", str(checkpoint_table(run))),
        _section(
            "Signs of trouble", "\n".join(f"- {text}" for text in signs_of_trouble(run)) or "none"
        ),
        _section("About this log", "\n".join(f"- {text}" for text in run.problems) or "complete"),
        _section("What the metrics mean", _glossary(run)),
    ]
    return "\n\n".join(sections) + "\n"


def hyperparameters_text(run: Run) -> str:
    """Return `hyperparameters.txt`: all settings, then what the run was made with."""
    facts = {key: value for key, value in run.facts.items() if key not in ("kind", "versions")}
    settings = run.config or {"(none)": "the log holds no config.json"}
    sections = [
        _section("Settings", _pairs(settings)),
        _section("Seed", str(run.config.get("seed", "not recorded"))),
        _section("Run", _pairs(facts) if facts else "not recorded"),
        _section("Versions", _pairs(run.facts.get("versions") or {"(none)": "not recorded"})),
    ]
    return "\n\n".join(sections) + "\n"


def metric_table(run: Run) -> Table:
    """Return each metric's count, first, last, best, mean and slope."""
    rows = []
    for name in run.metrics():
        series, metric = run.series(name), describe(name)
        finite = series.finite
        statistics = (
            (finite.values[0], finite.values[-1], finite.values.mean(), slope(series))
            if len(finite)
            else (math.nan,) * 4
        )
        first, last, mean, per_step = (number(float(value)) for value in statistics)
        best = _best(finite.steps, finite.values, metric.better)
        count = f"{len(finite)}" + (f" of {len(series)}" if len(finite) < len(series) else "")
        rows.append((name, metric.unit, count, first, last, best, mean, per_step))
    columns = ("metric", "unit", "values", "first", "last", "best (step)", "mean", "slope per step")
    return Table.of(columns, rows)


def held_out_table(run: Run) -> Table:
    """Return first and last value of each held-out metric, with intervals where they are logged."""
    rows = []
    for name in run.metrics():
        finite = run.series(name).finite
        if not name.startswith("test/") or describe(name).better == "-" or not len(finite):
            continue
        went = change(finite)
        ends = [
            _with_interval(finite.values[i], finite.low[i], finite.high[i], finite.steps[i])
            for i in (0, -1)
        ]
        noise = f" ± {number(went.noise, 2)}" if math.isfinite(went.noise) else ""
        rows.append((name, describe(name).unit, *ends, f"{number(went.difference, 3)}{noise}"))
    if not rows:
        rows = [("not measured", "", "", "", "")]
    return Table.of(("metric", "unit", "before", "after", "change (95%)"), rows)


def checkpoint_table(run: Run) -> Table:
    """Return name, step and paths of each recorded checkpoint."""
    fields = ("name", "step", "state_path", "sampler_path")
    rows = [[record.get(field, "-") for field in fields] for record in run.checkpoints]
    return Table.of(fields, rows or [("none saved", "", "", "")])


def _findings(run: Run) -> str:
    return f"{finding(run.headline())}."


def _totals(run: Run) -> dict[str, str]:
    steps = run.trained_steps()
    seconds = run.series("time/total").finite.values
    rate = run.tokens_per_s().values
    span = f" ({steps[0]} to {steps[-1]})" if steps else ""
    return {
        "optimiser steps": f"{len(steps):,}{span}",
        "sequences": _total(run, "num_sequences"),
        "tokens": _total(run, "num_tokens"),
        "trained tokens": _total(run, "num_loss_tokens"),
        "time in steps": duration(run.total("time/total")),
        "median step": duration(float(np.median(seconds)) if len(seconds) else math.nan),
        "median throughput": f"{number(float(np.median(rate)))} tokens/s"
        if len(rate)
        else "not logged",
    }


def _total(run: Run, name: str) -> str:
    total = run.total(name)
    return number(total) if math.isfinite(total) else "not logged"


def _best(steps: np.ndarray, values: np.ndarray, better: str) -> str:
    if better == "-" or not len(values):
        return "-"
    at = int(values.argmin() if better == "lower" else values.argmax())
    return f"{number(float(values[at]))} ({int(steps[at])})"


def _with_interval(value: float, low: float, high: float, step: float) -> str:
    interval = f" [{number(low)}, {number(high)}]" if math.isfinite(low) else ""
    return f"{number(value)}{interval} at step {step:.0f}"


def _glossary(run: Run) -> str:
    known = [describe(name) for name in run.metrics()]
    rows = [(m.name, m.meaning, m.healthy or "-") for m in known if m.meaning != UNKNOWN]
    return str(Table.of(("metric", "meaning", "a healthy run shows"), rows or [("-", "-", "-")]))


def _section(title: str, body: str) -> str:
    return f"{title}\n{'-' * len(title)}\n{body}"


def _pairs(content: dict[str, Any]) -> str:
    width = max(map(len, content), default=0)
    return "\n".join(f"{key.ljust(width)}  {value}" for key, value in content.items())
