"""The figure of a sweep shows what the logs hold; the committed one is of the committed runs."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cookbook import cli
from cookbook.analysis import (
    best_of_table,
    compare,
    load_run,
    reference_runs,
    sweep_figure,
    training_figure,
    write_comparison,
)
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


def grid(folder: Path, outcomes: dict[tuple[float, Any], float], name: str = "rank") -> list[Path]:
    """Write a run for each (rate, other setting): from 3.0 to its outcome, each ± 0.25."""
    paths = []
    for number, ((rate, other), end) in enumerate(outcomes.items()):
        paths.append(run(folder / str(number), rate, [3.0, end]))
        config = {"learning_rate": rate, name: other}
        (paths[-1] / "config.json").write_text(json.dumps(config))
    return paths


def test_runs_that_share_the_other_settings_are_joined_and_labelled(tmp_path):
    ends = {(1e-3, 4): 2.8, (1e-2, 32): 2.0, (1e-3, 32): 2.6, (1e-2, 4): 2.7}
    paths = grid(tmp_path, ends)
    left, right = sweep_figure(paths).axes
    lines = [line for line in left.lines if line.get_linestyle() in ("-", "--")]
    drawn = {line.get_linestyle(): [*zip(*line.get_data(), strict=True)] for line in lines}
    assert drawn == {"-": [(1e-3, 2.8), (1e-2, 2.7)], "--": [(1e-3, 2.6), (1e-2, 2.0)]}
    assert {t.get_text() for t in left.texts} == {"before\ntraining", "rank 4", "rank 32"}
    assert right.texts[0].get_text() == "1e-02, rank 32"
    assert left.get_title(loc="left") == "Held-out NLL is best, 2 at 1e-02, rank 32"
    bars = [bar.get_segments()[0] for bar in left.collections]
    logged = sorted((rate, end - 0.25, end + 0.25) for (rate, _), end in ends.items())
    assert np.allclose(sorted((b[0][0], b[0][1], b[1][1]) for b in bars), logged)


def test_seeds_are_one_line_through_their_means(tmp_path):
    paths = grid(tmp_path, {(1e-3, 0): 2.0, (1e-3, 1): 3.0, (1e-2, 0): 1.0, (1e-2, 1): 1.5}, "seed")
    left = sweep_figure(paths).axes[0]
    (line,) = [line for line in left.lines if line.get_linestyle() == "-"]
    assert [*zip(*line.get_data(), strict=True)] == [(1e-3, 2.5), (1e-2, 1.25)]
    assert len(left.collections) == 4


def test_a_setting_that_is_a_text_has_a_place_for_each_value(tmp_path):
    paths = grid(tmp_path, {(1e-3, "data/a.jsonl"): 2.0, (1e-3, "b"): 1.0}, "dataset")
    left = sweep_figure(paths, "dataset").axes[0]
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["b", "a.jsonl"]
    assert left.get_title(loc="left") == "Held-out NLL is best, 1 at b"


@pytest.mark.parametrize(
    ("ends", "margin", "told"),
    [  # of two margins of 0.25, in quadrature: 0.354
        ([2.0, 2.5], 0.25, "Held-out NLL is best, 2 at 1e-03"),
        ([2.0, 2.3], 0.25, "Held-out NLL: no run is best beyond noise\n2 at 1e-03 leads within it"),
        ([2.5, 2.0, 2.3], 0.25, "Held-out NLL is best, 2 at 2e-03\n3e-03 is within noise of it"),
        (
            [2.0, 2.3, 2.3, 2.3, 2.3, 9],
            0.25,
            "2 at 1e-03\n4 others are within noise of it",
        ),
        ([2.0, 2.3], None, "Held-out NLL is best, 2 at 1e-03\n(noise not known)"),
    ],
)
def test_a_difference_within_its_noise_is_called_so(tmp_path, ends, margin, told):
    paths = [run(tmp_path / str(n), 1e-3 * (n + 1), [3.0, end]) for n, end in enumerate(ends)]
    if margin is None:
        for path in paths:
            log = path / "metrics.jsonl"
            log.write_text(log.read_text().replace("_margin", "_other"))
    assert sweep_figure(paths).axes[0].get_title(loc="left").endswith(told)


def test_held_out_rewards_decide_and_title_a_run_that_logs_both(tmp_path):
    path = run(tmp_path / "a", 1e-3, [0.1, 0.5], "test/env/all/reward/total")
    lines = (path / "metrics.jsonl").read_text().splitlines()
    both = [{**json.loads(line), "env/all/reward/total": 0.9} for line in lines]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in both))
    title = training_figure(load_run(path)).axes[0].get_title(loc="left")
    assert title.startswith("Held-out")
    assert "0.1 to 0.5" in title
    assert compare([path]).rows[0][1:4] == ("test/env/all/reward/total", "0.1", "0.5")


def test_best_of_table_ranks_and_says_what_is_within_noise(tmp_path):
    ends = [2.2, 2.0, math.nan, 2.9]
    paths = [run(tmp_path / f"r{n}", 1e-3 * (n + 1), [3.0, end]) for n, end in enumerate(ends)]
    table = best_of_table(paths)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["run"], row["standing"]) for row in rows] == [
        ("r1", "best"),
        ("r0", "within noise"),
        ("r3", "worse"),
        ("r2", "diverged"),
    ]
    assert rows[0]["change (95%)"] == "-1 ± 0.35"
    with pytest.raises(DataError, match="one kind"):
        best_of_table([])


class Page(HTMLParser):
    """What a page fetches and holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.fetched: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.rows += tag == "tr"
        if tag == "img":
            self.images.append(dict(attrs))
        if tag in ("script", "link", "iframe"):
            self.fetched.append(tag)


def test_the_report_is_whole_in_one_html_file_and_says_the_same_in_markdown(tmp_path):
    paths = grid(tmp_path / "runs", {(1e-3, 4): 2.8, (1e-2, 4): 2.0, (1e-2, 8): 2.1})
    files = {file.name: file for file in write_comparison(paths, tmp_path / "out")}
    html, markdown = (files[f"report.{kind}"].read_text() for kind in ("html", "md"))
    page = Page(html)
    assert [image["src"][:22] for image in page.images if image["src"]] == [
        "data:image/png;base64,"
    ] * 2
    assert all(image["alt"] for image in page.images)
    assert page.fetched == []
    assert page.rows == 1 + 3
    told = "Held-out NLL is best, 2 at 1e-02, rank 4; 1e-02, rank 8 is within noise of it."
    for text in (html, markdown):
        assert told in text
        assert "nobody measured" in text
    for name in ("comparison.png", "runs.png"):
        assert f"]({name})" in markdown
        assert files[name].read_bytes().startswith(b"\x89PNG")
    assert "| 1 | 0.01 | 4 | best | test/nll | 3 | 2 |" in markdown


def test_runs_of_several_kinds_are_shown_side_by_side_without_a_winner(tmp_path):
    paths = [
        run(tmp_path / "a", 1e-3, [3.0, 2.0]),
        run(tmp_path / "b", 1e-3, [0.1, 0.2], "test/env/all/reward/total"),
    ]
    names = [file.name for file in write_comparison(paths, tmp_path / "out")]
    assert names == ["comparison.txt", "runs.png", "report.md", "report.html"]
    assert "best" not in (tmp_path / "out" / "report.md").read_text()


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
    with pytest.raises(DataError, match=r"'rank' is None, expected a number.*learning_rate"):
        sweep_figure([one, one], "rank")
    other = run(tmp_path / "b", 1e-2, [0.1, 0.2], "test/env/all/reward/total")
    with pytest.raises(DataError, match=r"judged by test/env/all/reward/total, test/nll"):
        sweep_figure([one, other])


def test_the_command_writes_table_and_figure(tmp_path, capsys):
    paths = [run(tmp_path / name, rate, [3.0, 2.0]) for name, rate in (("b", 0.2), ("a", 0.1))]
    assert cli.main(["compare", *map(str, paths), str(tmp_path / "out")]) == 0
    told = [Path(line) for line in capsys.readouterr().out.split()]
    names = ["comparison.txt", "comparison.png", "runs.png", "report.md", "report.html"]
    assert [file.name for file in told] == names
    table, picture = told[:2]
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
    table, picture, *_ = write_comparison(committed, tmp_path)
    assert (SWEEP / table.name).read_text() == table.read_text()
    assert picture.read_bytes()[16:24] == (SWEEP / picture.name).read_bytes()[16:24]  # its size
