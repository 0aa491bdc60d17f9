"""The figure of a sweep shows what the logs hold; the committed one is of the committed runs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cookbook import cli
from cookbook.analysis import compare, reference_runs, sweep_figure, write_comparison
from cookbook.analysis.reference import REFERENCE
from cookbook.errors import DataError
from cookbook.runlog import read_config, read_metrics

SWEEP = REFERENCE / "chat_sl_sweep"


def run(folder: Path, rate: Any, values: list[float], metric: str = "test/nll") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"learning_rate": rate, "dataset": "d"}))
    lines = [{"step": 4 * n, metric: v, f"{metric}_margin": 0.25} for n, v in enumerate(values)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def drawn(figure: Any) -> tuple[list[tuple[float, float]], list[list[float]]]:
    """Return the points (setting, last value) of the left panel and the right panel's curves."""
    left, right = figure.axes
    points = next(line for line in left.lines if len(line.get_xdata()) > 1)
    pairs = zip(points.get_xdata(), points.get_ydata(), strict=True)
    return [(float(x), float(y)) for x, y in pairs], [[*line.get_ydata()] for line in right.lines]


def test_points_curves_and_title_are_those_of_the_logs(tmp_path):
    paths = [
        run(tmp_path / "c", 1e-2, [3.0, 2.5, 2.75]),
        run(tmp_path / "a", 1e-4, [3.0, 2.9, 2.8]),
        run(tmp_path / "b", 1e-3, [3.0, 2.2, 2.1]),
    ]
    figure = sweep_figure(paths)
    points, curves = drawn(figure)
    assert points == [(1e-4, 2.8), (1e-3, 2.1), (1e-2, 2.75)]
    assert curves == [[3.0, 2.9, 2.8], [3.0, 2.2, 2.1], [3.0, 2.5, 2.75]]
    left, right = figure.axes
    assert left.get_title(loc="left") == "Held-out NLL is best, 2.1 at 1e-03"
    assert left.get_xscale() == "log"
    assert {text.get_text() for text in left.texts} == {"before\ntraining"}
    assert [text.get_text() for text in right.texts] == ["1e-03", "1e-02", "1e-04"]


def test_more_is_better_for_rewards_and_few_settings_stand_on_a_plain_axis(tmp_path):
    reward = "test/env/all/reward/total"
    paths = [run(tmp_path / str(r), r, [0.1, r / 10], reward) for r in (2, 4)]
    figure = sweep_figure(paths)
    assert "0.4 at 4" in figure.axes[0].get_title(loc="left")
    assert figure.axes[0].get_xscale() == "linear"


def test_a_diverged_run_is_marked_and_never_the_best(tmp_path):
    paths = [
        run(tmp_path / "a", 1e-3, [3.0, 2.0]),
        run(tmp_path / "b", 1e-1, [3.0, math.nan]),
        run(tmp_path / "c", 1e-2, [3.0, 2.5]),
    ]
    figure = sweep_figure(paths)
    points, _ = drawn(figure)
    assert points == [(1e-3, 2.0), (1e-2, 2.5)]
    (mark,) = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert mark.get_xdata()[0] == 1e-1
    everywhere = [run(tmp_path / f"d{n}", 1.0 + n, [3.0, math.inf]) for n in range(2)]
    title = sweep_figure(everywhere).axes[0].get_title(loc="left")
    assert title == "No run ended with a finite value"


def test_runs_that_make_no_sweep(tmp_path):
    one = run(tmp_path / "a", 1e-3, [3.0, 2.0])
    with pytest.raises(DataError, match="at least two runs, got 1"):
        sweep_figure([one])
    with pytest.raises(DataError, match=r"'dataset' is 'd', expected a number.*learning_rate"):
        sweep_figure([one, one], "dataset")
    other = run(tmp_path / "b", 1e-2, [0.1, 0.2], "test/env/all/reward/total")
    with pytest.raises(DataError, match=r"judged by test/env/all/reward/total, test/nll"):
        sweep_figure([one, other])


def test_the_command_writes_table_and_figure(tmp_path, capsys):
    paths = [run(tmp_path / name, rate, [3.0, 2.0]) for name, rate in (("b", 0.2), ("a", 0.1))]
    assert cli.main(["compare", *map(str, paths), str(tmp_path / "out")]) == 0
    table, picture = (Path(line) for line in capsys.readouterr().out.split())
    assert table.read_text() == f"{compare(paths[::-1])}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["compare", str(paths[0]), str(tmp_path / "out"), "--by", "seed"]) == 1
    assert "at least two runs" in capsys.readouterr().err


# ---- the committed sweep of chat_sl


@pytest.fixture(scope="module")
def committed() -> list[Path]:
    return list(reference_runs(SWEEP).values())


def test_the_committed_runs_differ_in_the_learning_rate_alone(committed):
    configs = [read_config(path) for path in committed]
    assert len({config.pop("learning_rate") for config in configs}) == len(configs) == 4
    for config in configs:
        config.pop("log_path")
    assert all(config == configs[0] for config in configs)
    firsts = [read_metrics(path)[0]["test/nll"] for path in committed]
    assert np.allclose(firsts, firsts[0], atol=1e-3)


def test_the_committed_claims_are_of_these_runs(committed):
    for path in committed:
        told = json.loads((path / "claims.json").read_text())
        lines = [line["test/nll"] for line in read_metrics(path) if "test/nll" in line]
        # The notebook asks the sampler, the trainer itself: equal but for rounding.
        assert [told["nll_before"], told["nll_after"]] == pytest.approx(
            [lines[0], lines[-1]], abs=0.01
        )


def test_the_committed_figure_shows_the_numbers_of_the_committed_logs(committed, tmp_path):
    points, curves = drawn(sweep_figure(committed))
    logged = {
        read_config(path)["learning_rate"]: [
            line["test/nll"] for line in read_metrics(path) if "test/nll" in line
        ]
        for path in committed
    }
    assert points == [(rate, logged[rate][-1]) for rate in sorted(logged)]
    assert curves == [logged[rate] for rate in sorted(logged)]
    table, picture = write_comparison(committed, tmp_path)
    assert (SWEEP / table.name).read_text() == table.read_text()
    assert picture.read_bytes()[16:24] == (SWEEP / picture.name).read_bytes()[16:24]  # its size
