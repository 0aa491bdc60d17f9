"""The figures say what was measured."""

import json

import numpy as np
import pytest

from cookbook.analysis.style import png
from cookbook.preferences import calibration, plots


def write_run(folder, lines):
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    text = "\n".join(json.dumps({"step": step, **line}) for step, line in enumerate(lines))
    (folder / "metrics.jsonl").write_text(text + "\n")
    return folder


def test_a_judges_training(tmp_path):
    path = write_run(tmp_path / "rm", [{"train_mean_nll": 1.8}, {"train_mean_nll": 0.25}])
    figure = plots.judge_figure(path)
    assert figure.axes[0].get_title(loc="left") == "The label's NLL goes from 1.80 to 0.25"
    assert png(figure)


def test_calibration_is_drawn_with_its_error():
    bins = calibration([0.6, 0.6, 0.9, 0.9], [True, False, True, True], 2)
    figure = plots.calibration_figure(bins)
    assert figure.axes[0].get_title(loc="left") == "Calibration error 0.10"
    assert png(figure)


def scores(win, true, kl=None):
    measured = {} if kl is None else {"kl_policy_base": kl}
    return {"test/env/all/win": win, "test/env/all/asks_back": true, **measured}


def test_scores_stand_at_the_distance_of_their_weights(tmp_path):
    lines = [
        scores(0.5, 0.4, 0.0),
        {"kl_policy_base": 0.2},
        scores(0.8, 0.7, 0.3),
        scores(0.9, 0.6),
    ]
    path = write_run(tmp_path / "rl", lines)
    distance, proxy, true = plots.scores_by_distance(path)
    assert distance == pytest.approx([0, 0.3, 0.3])  # the last weights sampled nothing
    assert proxy == pytest.approx([0.5, 0.8, 0.9])
    assert true == pytest.approx([0.4, 0.7, 0.6])
    figure = plots.scores_figure({"held": path})
    assert figure.axes[0].get_title(loc="left") == "held: ends at 0.90 and 0.60"
    assert png(figure)


def test_a_run_without_a_reference_has_no_distance(tmp_path):
    path = write_run(tmp_path / "rl", [scores(0.5, 0.4), scores(0.8, 0.7)])
    assert (plots.scores_by_distance(path)[0] == np.zeros(2)).all()
