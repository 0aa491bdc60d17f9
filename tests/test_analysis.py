import doctest
import io
import json
import math
import re
import subprocess
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cookbook import analysis
from cookbook.analysis import (
    METRICS,
    alt_text,
    analyze,
    change,
    compare,
    comparison_figure,
    describe,
    figure_style,
    finding,
    load_run,
    mean_interval,
    metric_table,
    new_figure,
    reference_runs,
    results_folder,
    save_results,
    show,
    signs_of_trouble,
    smooth,
    training_figure,
    wilson_interval,
)
from cookbook.analysis.__main__ import main
from cookbook.analysis.intervals import t_quantile95
from cookbook.analysis.style import label_ends, png
from cookbook.analysis.wording import duration, number
from cookbook.errors import DataError
from cookbook.runlog import RunLog

FILES = {"hyperparameters.txt", "training_analysis.png", "training_report.txt"}


def sl_config(**changes):
    config = {
        "model_name": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "dataset": "pocket_tutor",
        "learning_rate": 1e-4,
        "num_epochs": 1,
        "max_steps": 40,
        "seed": 7,
    }
    return {**config, **changes}


def sl_run(path, n=40, fall=0.9, rate=1e-4, **changes):
    """Write a supervised run whose NLL falls by `fall` nats/token, with batch noise 0.1."""
    noise = np.random.default_rng(0).normal(0, 0.1, n)
    with RunLog.open(path, sl_config(learning_rate=rate, **changes), "sl_basic") as log:
        for step in range(n + 1):
            nll = 2.6 - fall * (1 - math.exp(-step / 8))
            held_out = {"test/nll": nll, "test/nll_ci95_low": nll - 0.08}
            held_out |= {"test/nll_ci95_high": nll + 0.08, "test/num_sequences": 48}
            if step == n:
                log.log(step, held_out)
                break
            metrics = {
                "train_mean_nll": nll + noise[step],
                "learning_rate": rate * (1 - step / n),
                "num_tokens": 700,
                "num_loss_tokens": 400,
                "time/total": 1.25,
            }
            metrics |= {"time/total": 2.25, "time/evaluation": 1.0} if step % 10 == 0 else {}
            log.log(step, {**metrics, **(held_out if step % 10 == 0 else {})})
        log.save_checkpoint("final", n, "tinker://r/weights/final", final=True)
    return log.path


def rl_run(path, n=12, top=0.9):
    with RunLog.open(path, {"model_name": "a/b", "learning_rate": 3e-4}, "rl_loop") as log:
        for step in range(n):
            metrics = {
                "env/all/reward/total": 0.1 + (top - 0.1) * step / (n - 1),
                "env/all/by_group/frac_mixed": 0.6,
                "env/all/ac_tokens_per_turn": 14.0 - step,
                "optim/entropy": 0.9 - step * 0.05,
                "optim/kl_sample_train_v1": 0.001 * (-1) ** step,
                "optim/lr": 3e-4,
                "time/total": 2.0,
            }
            log.log(step, metrics)
    return log.path


def foreign_run(path, records):
    """Write a log as another program would: metrics only."""
    path.mkdir()
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes if axes.axison]


# --- reading and computing ----------------------------------------------------------------------


def test_series_and_totals_are_those_of_the_log(tmp_path):
    run = load_run(sl_run(tmp_path / "run"))
    held_out = run.series("test/nll")
    assert held_out.steps.tolist() == [0, 10, 20, 30, 40]
    assert held_out.values[0] == pytest.approx(2.6)
    assert held_out.low[0] == pytest.approx(2.52)
    assert run.total("num_tokens") == 40 * 700
    assert run.tokens_per_s().values == pytest.approx([560.0] * 40)
    assert run.headline().name == "test/nll"
    assert math.isnan(run.total("absent"))


def test_an_alias_is_found_and_a_half_width_becomes_bounds(tmp_path):
    records = [{"step": 0, "optim/lr": 0.5, "test/nll": 2.0, "test/nll_margin": 0.25}]
    run = load_run(foreign_run(tmp_path / "run", records))
    assert run.series("learning_rate").values.tolist() == [0.5]
    assert (run.series("test/nll").low[0], run.series("test/nll").high[0]) == (1.75, 2.25)
    assert run.metrics() == ["test/nll", "optim/lr"]


def test_change_says_what_the_noise_allows(tmp_path):
    falls = change(load_run(sl_run(tmp_path / "a")).series("train_mean_nll"))
    assert (falls.verb, falls.width) == ("falls", 4)
    flat = change(load_run(sl_run(tmp_path / "b", fall=0.0)).series("train_mean_nll"))
    assert flat.verb == "hardly moves"
    held_out = change(load_run(sl_run(tmp_path / "c", fall=0.1)).series("test/nll"))
    assert held_out.noise == pytest.approx(math.hypot(0.08, 0.08))
    assert held_out.verb == "hardly moves"


def test_smoothing_is_a_centred_mean_of_the_stated_window():
    values = np.arange(48.0) ** 2
    means, window = smooth(values)
    assert window == 5
    assert means[20] == pytest.approx(values[18:23].mean())
    assert means[0] == pytest.approx(values[:3].mean())
    assert smooth(values[:5])[1] == 1


def test_the_statistics_table_holds_first_last_best_mean_and_slope(tmp_path):
    records = [{"step": s, "train_mean_nll": v} for s, v in enumerate([4.0, 1.0, 3.0])]
    records.append({"step": 3, "train_mean_nll": math.nan})
    table = metric_table(load_run(foreign_run(tmp_path / "run", records)))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row == {
        "metric": "train_mean_nll",
        "unit": "nats/token",
        "values": "3 of 4",
        "first": "4",
        "last": "3",
        "best (step)": "1 (1)",
        "mean": "2.667",
        "slope per step": "-0.5",
    }
    assert "<td>train_mean_nll</td>" in table._repr_html_()


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # Brown, Cai, DasGupta 2001 give the formula; values checked with an independent program.
    [
        (0, 10, 0.0, 0.2775),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_interval(k, n, low, high):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_interval_contains_the_rate_and_mirrors(n, data):
    k = data.draw(st.integers(0, n))
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    assert wilson_interval(n - k, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("k", "n"), [(1, 0), (-1, 3), (4, 3), (0.5, 3)])
def test_wilson_interval_refuses_what_is_no_count(k, n):
    with pytest.raises(DataError, match="0 <= k <= n"):
        wilson_interval(k, n)


def test_mean_interval_and_its_quantiles():
    known = {1: 12.7062, 2: 4.3027, 3: 3.1824, 5: 2.5706, 30: 2.0423, 1000: 1.9623}
    for degrees, quantile in known.items():
        assert t_quantile95(degrees) == pytest.approx(quantile, rel=2e-3)
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (low + high) / 2 == pytest.approx(2.5)
    assert (high - low) / 2 == pytest.approx(3.1824 * math.sqrt(5 / 3) / 2, rel=2e-3)
    for bad in ([1.0], [1.0, math.nan]):
        with pytest.raises(DataError, match="at least 2 finite"):
            mean_interval(bad)


def test_numbers_and_durations_read_well():
    assert [number(v) for v in (2.3071, 0.00012341, 51200.0, math.nan, -math.inf)] == [
        "2.307",
        "0.0001234",
        "51,200",
        "nan",
        "-inf",
    ]
    assert [duration(s) for s in (0.8412, 59.4, 200, 7500, math.nan)] == [
        "0.841 s",
        "59.4 s",
        "3 min 20 s",
        "2 h 05 min",
        "not logged",
    ]


def test_the_glossary_is_one_table_without_doubles():
    names = [name for metric in METRICS for name in (metric.name, *metric.aliases)]
    assert len(names) == len(set(names))
    assert describe("optim/lr").name == "learning_rate"
    assert describe("time/sampling").unit == "s"
    assert describe("mine").label == "mine"


# --- what is written ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """The log of one supervised run and the folder it was analysed into."""
    root = tmp_path_factory.mktemp("analysed")
    log = sl_run(root / "run")
    return log, analyze(log, root / "out" / "deep")


def test_analyze_writes_the_three_files_the_same_each_time(analysed, tmp_path):
    log, first = analysed
    second = analyze(log, tmp_path / "again")
    assert {file.name for file in first.iterdir()} == FILES
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / "training_analysis.png").stat().st_size < 100_000


def test_the_report_states_what_happened(analysed):
    log, out = analysed
    report = (out / "training_report.txt").read_text()
    for line in (
        r"Held-out NLL falls from 2.6 to 1.71 nats/token in 40 steps\.",
        r"optimiser steps +40 \(0 to 39\)",
        r"tokens +28,000",
        r"trained tokens +16,000",
        r"time in steps +54 s",
        r"median throughput +560 tokens/s",
        r"test/nll +nats/token +2.6 \[2.52, 2.68\] at step 0 +1.706 .* at step 40 +-0.894 ± 0.11",
        r"final +40 +tinker://r/weights/final",
        r"Signs of trouble\n-+\nnone",
    ):
        assert re.search(line, report), line
    assert str(log.parent) not in report


def test_hyperparameters_hold_settings_seed_versions_and_commit(analysed):
    text = (analysed[1] / "hyperparameters.txt").read_text()
    for line in ("learning_rate +0.0001", "Seed\n----\n7", "numpy +2", "python +3", "commit +"):
        assert re.search(line, text), line


def test_the_supervised_figure_has_its_panels_with_findings_as_titles(tmp_path):
    figure = training_figure(load_run(sl_run(tmp_path / "run")))
    assert titles(figure) == [
        "Held-out NLL falls from 2.6 to 1.71 nats/token in 40 steps",
        "Learning rate goes from 1e-04 to 2.5e-06",
        "Throughput: 560 tokens/s in the median step",
        "The median step takes 1.25 s, all 54 s",
    ]
    assert all("step" in axes.get_xlabel() for axes in figure.axes)
    text = alt_text(figure)
    assert text.startswith("4 panels. Held-out NLL falls")
    assert re.search(r"\(NLL \(nats/token\), 1\.\d+ to 2\.\d+, against", text)
    assert "optimiser step, 0 to 40)" in text


def test_the_rl_figure_has_its_panels(tmp_path):
    figure = training_figure(load_run(rl_run(tmp_path / "run")))
    assert titles(figure) == [
        "Reward rises from 0.1 to 0.9 in 12 steps",
        "Entropy falls from 0.9 to 0.35 nats/token in 12 steps",
        "KL sampler to trainer stays within ±0.01 (largest 0.001)",
        "Response length falls from 14 to 3 tokens in 12 steps",
        "Learning rate stays at 3e-04",
        "The median step takes 2 s, all 24 s",
    ]
    assert figure.axes[0].get_ylim() == pytest.approx((-0.03, 1.03))


def test_raw_values_stay_visible_behind_smoothed_ones(tmp_path):
    axes = training_figure(load_run(sl_run(tmp_path / "run"))).axes[0]
    alphas = [line.get_alpha() for line in axes.lines]
    assert alphas.count(0.3) == 1
    assert any("mean of 3 steps" in text.get_text() for text in axes.texts)
    assert any("n = 48" in text.get_text() for text in axes.texts)


# --- incomplete logs ----------------------------------------------------------------------------


def test_a_torn_log_is_drawn_and_said_to_be_torn(tmp_path, capsys):
    log = sl_run(tmp_path / "run")
    with (log / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "train_mea')
    assert main([str(log), str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "note: metrics.jsonl: the last line is torn" in printed
    assert "training_analysis.png" in printed
    assert "last line is torn" in (tmp_path / "out" / "training_report.txt").read_text()


def test_a_broken_line_is_left_out_and_named(tmp_path):
    log = sl_run(tmp_path / "run")
    lines = (log / "metrics.jsonl").read_text().splitlines()
    lines[3] = "oops"
    (log / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    report = (analyze(log, tmp_path / "out") / "training_report.txt").read_text()
    assert "metrics.jsonl line 4: expected one JSON object, got 'oops'" in report
    assert "39 (0 to 39)" in report


def test_an_empty_run_still_gets_its_three_files(tmp_path):
    RunLog.open(tmp_path / "run", sl_config(), "sl_basic").close()
    out = analyze(tmp_path / "run", tmp_path / "out")
    assert {file.name for file in out.iterdir()} == FILES
    report = (out / "training_report.txt").read_text()
    assert "No finite training NLL was logged." in report
    assert "holds no complete step" in report
    figure = training_figure(load_run(tmp_path / "run"))
    assert "Nothing to draw yet" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_run_of_a_few_steps_is_drawn(tmp_path, n):
    records = [{"step": s, "train_mean_nll": 2.0, "learning_rate": 0.0} for s in range(n)]
    run = load_run(foreign_run(tmp_path / "run", records))
    assert len(titles(training_figure(run))) == 2
    assert "config.json: missing" in run.problems


def test_logs_of_other_programs_are_read(tmp_path):
    records = [{"step": 0, "a": 1}, {"step": 0, "b": 2}, {"b": 3}, {"step": 1, "a": math.inf}]
    run = load_run(foreign_run(tmp_path / "run", records))
    assert run.records[0] == {"step": 0, "a": 1, "b": 2}
    assert "1 lines without a step" in " ".join(run.problems)
    assert run.series("a").finite.values.tolist() == [1.0]


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_what_is_no_run_is_a_clear_error(tmp_path, kind, capsys):
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    if kind == "file":
        path.write_text("x")
    with pytest.raises(DataError, match="Give the folder"):
        analyze(path, tmp_path / "out")
    assert main([str(path), str(tmp_path / "out")]) == 1
    assert "error: log path" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- names and saving ---------------------------------------------------------------------------


def test_the_folder_is_named_exactly_as_documented():
    config = {
        "model_name": "Qwen/Qwen3-4B-Instruct-2507",
        "dataset": "s1k",
        "learning_rate": 1e-5,
        "num_epochs": 5,
    }
    folder = results_folder(config, now=datetime(2025, 1, 8, 14, 30, 52))
    assert folder == Path("results/20250108_143052_Qwen3-4B-Instruct-2507_s1k_lr1e-05_ep5")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"dataset": "HuggingFaceH4/no_robots"}, "_no_robots_lr"),
        ({"dataset": "/home/me/my data.jsonl"}, "_my-data_lr"),
        ({"dataset": "C:\\data\\chat.parquet"}, "_chat_lr"),
        ({"model_name": "/models/smol/"}, "_smol_pocket_tutor"),
        ({"model_name": None, "dataset": ""}, "_unknown_unknown_lr"),
        ({"learning_rate": 2.5e-4}, "_lr2.5e-04_"),
        ({"learning_rate": 0}, "_lr0e+00_"),
        ({"learning_rate": 3}, "_lr3e+00_"),
        ({"learning_rate": None}, "_lrunknown_"),
        ({"num_epochs": 12}, "_ep12"),
    ],
)
def test_names_of_other_settings(changes, part):
    assert part in results_folder(sl_config(**changes)).name


@settings(max_examples=100)
@given(
    rate=st.floats(1e-12, 1e3, allow_nan=False),
    epochs=st.integers(1, 999),
    model=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,20}[A-Za-z0-9]", fullmatch=True),
    dataset=st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True),
    now=st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)),
)
def test_every_setting_can_be_read_back_from_the_name(rate, epochs, model, dataset, now):
    config = {"learning_rate": rate, "num_epochs": epochs, "dataset": dataset}
    name = results_folder({**config, "model_name": f"org/{model}"}, now=now).name
    match = re.fullmatch(r"(\d{8}_\d{6})_(.+)_(.+)_lr([\d.]+e[+-]\d{2,3})_ep(\d+)", name)
    assert match
    assert datetime.strptime(match[1], "%Y%m%d_%H%M%S") == now.replace(microsecond=0)
    assert (match[2], match[3]) == (model, dataset)
    assert (float(match[4]), int(match[5])) == (rate, epochs)


def test_save_results_makes_a_folder_per_run_and_notes_it(tmp_path):
    log = sl_run(tmp_path / "run")
    folders = [save_results(log, tmp_path / "results") for _ in range(3)]
    assert len(set(folders)) == 3
    pattern = r"\d{8}_\d{6}_SmolLM2-135M-Instruct_pocket_tutor_lr1e-04_ep1"
    for folder in folders:
        assert re.fullmatch(pattern, folder.name)
        assert {file.name for file in folder.iterdir()} == FILES
    assert (log / "results_path.txt").read_text().strip() == str(folders[-1])


def test_a_failing_analysis_never_loses_the_run(tmp_path, monkeypatch, capsys):
    def fail(run):
        raise RuntimeError("no ink")

    log = sl_run(tmp_path / "run")
    monkeypatch.setattr("cookbook.analysis.results.training_figure", fail)
    folder = save_results(log, tmp_path / "results")
    assert "training_report.txt" in {file.name for file in folder.iterdir()}
    printed = capsys.readouterr().out
    assert "safe in" in printed
    assert "no ink" in printed
    assert "python -m cookbook.analysis" in printed
    (tmp_path / "blocked").write_text("a file where the folder should be")
    assert save_results(log, tmp_path / "blocked") == log
    assert save_results(tmp_path / "absent", tmp_path / "results") == tmp_path / "absent"


# --- comparing and judging ----------------------------------------------------------------------


def test_compare_lists_outcomes_and_only_the_settings_that_differ(tmp_path):
    paths = [
        sl_run(tmp_path / "good"),
        sl_run(tmp_path / "bad", fall=-3.0, rate=1e-2),
        rl_run(tmp_path / "rl"),
    ]
    table = compare(paths)
    assert table.columns[:4] == ("run", "model_name", "learning_rate", "judged by")
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["run"] for row in rows] == ["good", "bad", "rl"]
    assert [row["judged by"] for row in rows] == ["test/nll", "test/nll", "env/all/reward/total"]
    assert [row["learning_rate"] for row in rows] == ["0.0001", "0.01", "0.0003"]
    assert (rows[0]["before"], rows[0]["after"]) == ("2.6", "1.706")
    assert (rows[0]["tokens"], rows[2]["tokens"]) == ("28,000", "-")


def test_small_multiples_share_limits_within_a_metric(tmp_path):
    good, bad = sl_run(tmp_path / "good"), sl_run(tmp_path / "bad", fall=-3.0)
    figure = comparison_figure([good, rl_run(tmp_path / "rl"), bad, good])
    limits = [axes.get_ylim() for axes in figure.axes[:4]]
    assert limits[0] == limits[2] == limits[3] != limits[1]
    assert [axes.axison for axes in figure.axes] == [True] * 4 + [False] * 2
    with pytest.raises(DataError, match="at least one"):
        comparison_figure([])


def trouble(path):
    return " ".join(signs_of_trouble(load_run(path)))


def test_healthy_runs_show_no_sign_of_trouble(tmp_path):
    assert trouble(sl_run(tmp_path / "sl")) == ""
    assert trouble(rl_run(tmp_path / "rl")) == ""


def test_each_sign_of_trouble_is_recognised(tmp_path):
    def of(name, records):
        return trouble(foreign_run(tmp_path / name, records))

    assert "did not change beyond its noise" in trouble(sl_run(tmp_path / "flat", fall=0.0))
    assert "weights never changed" in trouble(sl_run(tmp_path / "zero", fall=0.0, rate=0.0))
    assert "learning_rate is too high" in trouble(sl_run(tmp_path / "worse", fall=-3.0))
    with RunLog.open(tmp_path / "cut", {"max_steps": 99}, "sl_basic") as log:
        log.log(0, {"train_mean_nll": 2.0})
    assert "ends after 1 of 99 planned" in trouble(tmp_path / "cut")
    short = [{"step": s, "train_mean_nll": 2.0 - s, "progress": s / 50} for s in range(5)]
    assert "ends after 5 of 50 planned" in of("short", short)
    nan = [{"step": s, "train_mean_nll": 2.0 if s < 3 else math.nan} for s in range(6)]
    assert "not finite at 3 of 6 steps, first at step 3" in of("nan", nan)
    diverged = load_run(tmp_path / "nan").headline()
    assert finding(diverged) == "Training NLL stops being finite at step 3: the run diverged"
    over = [
        {"step": s, "train_mean_nll": 2 - 0.1 * s, "test/nll": 2 + 0.05 * (s - 4) ** 2}
        for s in range(12)
    ]
    assert "best at step 4" in of("over", over)
    stale = [{"step": s, "kl_sample_train_v1": 0.05} for s in range(4)]
    assert "|KL| between sampler and trainer is 0.05" in of("stale", stale)
    lazy = [{"step": s, "env/all/by_group/frac_mixed": 0.02} for s in range(4)]
    assert "Only 2% of the groups" in of("lazy", lazy)


ROOT = Path(__file__).parents[1]
SICK = {
    "rate_too_high": "Held-out NLL got worse",
    "not_shifted": "Training NLL starts at 11",
    "wrong_mask": "what is trained is not what is measured",
    "overfit": "best at step 5",
    "rl_rate_too_high": "the policy collapsed",
    "no_centring": "the policy collapsed",
    "nothing_rewarded": "Only 0% of the groups",
}


@pytest.mark.parametrize("name", [*SICK, "healthy_sl", "healthy_rl", "reward_hacked"])
def test_a_sick_run_has_one_sign_and_it_is_the_right_one(name):
    """`reward_hacked` looks well to every curve of its own: that is the point of it."""
    signs = signs_of_trouble(load_run(ROOT / "results" / "reference" / "sick" / name))
    assert len(signs) == (name in SICK)
    assert SICK.get(name, "") in " ".join(signs)


def test_what_was_measured_once_did_not_change(tmp_path):
    once = {"step": 0, "train_mean_nll": 2.0, "test/nll": 2.0, "test/nll_ci95_low": 1.5}
    assert trouble(foreign_run(tmp_path / "once", [once | {"test/nll_ci95_high": 2.5}])) == ""


def test_training_loss_that_falls_alone_points_at_the_mask(tmp_path):
    rows = [{"step": s, "train_mean_nll": 3 - 0.2 * s} for s in range(8)]
    for row, held_out in ((rows[0], 3.0), (rows[-1], 2.95)):
        row |= {"test/nll": held_out, "test/nll_ci95_low": held_out - 0.5}
        row |= {"test/nll_ci95_high": held_out + 0.5}
    assert "Look at the mask" in trouble(foreign_run(tmp_path / "mask", rows))


def test_reference_runs_are_found_by_name_or_missed_clearly(tmp_path):
    log = sl_run(tmp_path / "sl_basic")
    assert reference_runs(tmp_path) == {"sl_basic": log}
    with pytest.raises(DataError, match="clone it"):
        reference_runs(tmp_path / "absent")


def test_a_finding_never_claims_what_is_not_there(tmp_path):
    run = load_run(foreign_run(tmp_path / "run", [{"step": 0, "test/nll": 2.0}]))
    assert finding(run.headline()) == "Held-out NLL is 2 nats/token, measured once"
    assert finding(run.series("test/bpb")).startswith("No finite held-out bits per byte")
    flat = load_run(sl_run(tmp_path / "flat", fall=0.0))
    assert "hardly moves" in finding(flat.series("train_mean_nll"))


# --- figures and the notebook -------------------------------------------------------------------


def test_importing_and_drawing_touch_nothing_global(tmp_path):
    sl_run(tmp_path / "run")
    script = f"""
import sys
import matplotlib as mpl
def settings():  # asking for the backend would itself choose one
    return {{key: mpl.rcParams[key] for key in mpl.rcParams if key != "backend"}}
before = settings()
from cookbook.analysis import analyze
analyze({str(tmp_path / "run")!r}, {str(tmp_path / "out")!r})
assert settings() == before
loaded = {{"torch", "tinker", "matplotlib.pyplot"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_style_ends_with_its_block():
    import matplotlib as mpl

    before = mpl.rcParams["axes.spines.top"], mpl.rcParams["font.size"]
    with figure_style():
        inside = mpl.rcParams["axes.spines.top"], mpl.rcParams["font.size"]
    after = mpl.rcParams["axes.spines.top"], mpl.rcParams["font.size"]
    assert inside != before == after


def test_a_panel_has_the_documented_size():
    with figure_style():
        figure, axes = new_figure()
        axes.plot([1, 2])
    assert figure.get_size_inches().tolist() == [6.4, 3.6]
    data = png(figure)
    assert (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) == (704, 396)


@pytest.mark.parametrize("width", [4.6, 6.4, 3.3])
def test_a_picture_is_as_wide_as_it_is_drawn(width):
    with figure_style():
        figure, axes = new_figure(1, 2, (width, 2.1))
        axes.plot([1, 2])
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=figure.dpi)
    pictures = (io.BytesIO(png(figure)), drawn)
    ours, theirs = (np.asarray(Image.open(file).convert("L")) for file in pictures)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).mean() < 1  # of 255; a slanted one has more


def test_end_labels_do_not_overlap():
    with figure_style():
        figure, axes = new_figure()
        axes.set_ylim(0, 1)
        label_ends(
            axes, [(0.5, "b", "red"), (0.5, "a\nwith window", "blue"), (0.501, "c", "green")]
        )
        figure.canvas.draw()
        boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    for below, above in pairwise(boxes):
        assert below.y1 <= above.y0 + 1


NOTEBOOK_CELL = """
from cookbook.analysis import figure_style, new_figure, show
with figure_style():
    figure, axes = new_figure()
    axes.plot([1, 2])
show(figure, alt="A line from 1 to 2.", caption="The line rises from 1 to 2.")
"""


@pytest.mark.slow
def test_show_puts_alt_text_and_caption_into_the_notebook():
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK_CELL)])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    picture, caption = notebook.cells[0].outputs
    assert picture.metadata == {"image/png": {"alt": "A line from 1 to 2."}}
    assert picture.data["image/png"].startswith("iVBOR")
    assert caption.data["text/markdown"] == "The line rises from 1 to 2."


def test_show_outside_a_notebook_prints_the_caption(capsys):
    with figure_style():
        figure, _ = new_figure()
    show(figure, alt="Nothing.", caption="There is nothing to see.")
    assert capsys.readouterr().out == "There is nothing to see.\n"


def test_show_closes_figures_that_pyplot_made():
    import matplotlib.pyplot as plt

    figure = plt.figure()
    show(figure, alt="Nothing.", caption="Closed.")
    assert not plt.fignum_exists(figure.number)


def test_examples_in_docstrings_hold():
    for name in ("intervals", "results"):
        module = sys.modules[f"cookbook.analysis.{name}"]
        assert doctest.testmod(module).failed == 0
    assert analysis.__doc__
