"""The trainer, on a service without a model: a killed run goes on as the same one."""

import json
import math
import random
import signal
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cookbook.analysis import describe, load_run, training_figure
from cookbook.analysis.metrics import UNKNOWN
from cookbook.errors import ConfigError, DataError
from cookbook.loop import Stopped
from cookbook.preferences import Config, train
from cookbook.preferences.reference import FILE
from cookbook.runlog import lines, read_checkpoints, read_metrics
from tests.fake_training import Killed

BAD = {
    "model_name": ["", 3],
    "dataset": ["", None],
    "learning_rate": [-1e-3, math.nan, "1e-4", True],
    "beta": [0, -0.1, math.inf, None],
    "lora_rank": [0, 2.0],
    "batch_size": [0],
    "num_epochs": [0],
    "max_steps": [-1, None],
    "lr_schedule": ["linar"],
    "max_length": [1],
    "start_from": [None],
    "eval_every": [-1],
    "save_every": [-1],
    "n_test": [-1, 0.5],
    "seed": [-1],
    "log_path": [None],
    "if_exists": ["ask"],
    "wandb_project": [None],
    "wandb_name": [1],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_each_bad_setting_is_named_with_its_value(name, value):
    with pytest.raises(ConfigError, match=r"^1 setting is wrong:\n  ") as error:
        Config(**{name: value})
    assert f"{name} = {value!r}: expected " in str(error.value)


def test_every_setting_has_a_rule():
    assert set(BAD) == {field.name for field in fields(Config)}


def run(config, server, **options):
    return train(config, server, on_step=server.tick, **options)


def timeless(log_path):
    """Return all metrics of a run but the times."""
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(log_path)
    ]


def references(log_path):
    return {line["pair"]: line for line in lines.read(log_path / FILE)}


def outcome(result, server):
    """Return weights (steps with data, gradients and sizes), metrics and reference of a run."""
    weights = server.checkpoints[result.state_path]
    return weights, timeless(result.log_path), references(result.log_path)


def test_a_run(config, server):
    result = run(config, server)
    weights, metrics, reference = outcome(result, server)
    assert [rate for _, rate in weights[1:]] == pytest.approx(
        [1e-2 * (1 - t / 6) for t in range(6)]
    )
    assert [len(batch) for batch, _ in weights[1:]] == [6, 6, 4] * 2  # two datums for each pair
    assert [line["num_pairs"] for line in metrics[:6]] == [3, 3, 2] * 2
    assert [line["step"] for line in metrics if "test/accuracy" in line] == [0, 2, 4, 6]
    assert len(reference) == 11
    assert len(lines.read(result.log_path / FILE)) == 11  # each pair once, in both epochs

    # The reference is the weights that the run starts from.
    first = metrics[0]
    assert first["dpo_loss"] == first["test/dpo_loss"] == pytest.approx(math.log(2))
    assert first["accuracy"] == first["test/accuracy"] == 0.5
    assert first["margin"] == first["test/margin"] == first["test/implicit_kl"] == 0
    assert metrics[1]["implicit_kl"] > 0
    assert result.before["test/ranking_accuracy"] == first["test/ranking_accuracy"]
    assert result.after["test/margin"] == metrics[6]["test/margin"] != 0
    assert len(read_checkpoints(result.log_path)) == 3


def test_the_first_gradient_is_half_of_beta_over_the_batch(config, server):
    """At the start sigmoid(-margin) is 1/2; the sign tells chosen from rejected."""
    result = run(replace(config, max_steps=1), server)
    ((batch, _),) = server.checkpoints[result.state_path][1:]
    for index, (_, gradient) in enumerate(batch):
        wanted = (1 if index % 2 else -1) * config.beta / 2 / 3
        (slope,) = {value for value in gradient if value}  # the same on every answer token
        assert slope == pytest.approx(wanted, rel=1e-5)


def test_every_metric_is_in_the_glossary(config, server):
    logged = {name for line in read_metrics(run(config, server).log_path) for name in line}
    bare = {name.removesuffix("_ci95_low").removesuffix("_ci95_high") for name in logged}
    assert {"test/implicit_kl", "ranking_accuracy"} <= bare
    assert not [name for name in bare - {"step"} if describe(name).meaning == UNKNOWN]
    assert describe("test/margin").label == "held-out reward margin"


def test_curves_of_a_run(config, server):
    result = run(config, server)
    curves = ("ranking_accuracy", "margin", "chosen_logprob", "implicit_kl")
    panels = training_figure(load_run(result.log_path), curves).axes
    assert [axes.get_ylabel() for axes in panels] == [
        "ranking accuracy (fraction)",
        "implicit reward",
        "log p (nats/answer)",
        "implicit KL (nats/token)",
    ]
    assert all(len(axes.lines) > 1 for axes in panels)
    assert panels[0].get_title(loc="left").startswith("Held-out ranking accuracy")
    assert len(training_figure(load_run(result.log_path)).axes) > len(panels)


def test_only_the_pairs_that_are_used_are_computed(config, server):
    result = run(replace(config, max_steps=1), server)
    assert len(references(result.log_path)) == 3 + 3


def test_ties_are_left_out(config, server, tmp_path):
    rows = [
        {"prompt": f"{i}?", "answer_a": "x", "answer_b": "y", "label": "Tie" if i % 2 else "B"}
        for i in range(10)
    ]
    data = tmp_path / "ties.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    result = run(replace(config, dataset=str(data), n_test=0, num_epochs=1), server)
    assert [line["num_pairs"] for line in timeless(result.log_path)] == [3, 2]


def test_pairs_that_are_too_long(config, server):
    with (
        pytest.warns(UserWarning, match=r"\d of 8 comparisons are left out"),
        pytest.warns(UserWarning, match=r"\d of 3 comparisons are left out"),
    ):
        result = run(replace(config, max_length=50, batch_size=8), server)
    assert 0 < timeless(result.log_path)[0]["num_pairs"] < 8
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(DataError, match="Step 0 has no pair within"),
    ):
        run(replace(config, max_length=10, log_path=config.log_path + "2"), server)


def test_another_loss_of_a_pair(config, server):
    seen = []

    def hinge(chosen, rejected, reference_chosen, reference_rejected, beta):
        seen.append(len(chosen))
        return (1 - beta * (chosen - reference_chosen - rejected + reference_rejected)).relu()

    metrics = timeless(run(config, server, pair_loss=hinge).log_path)
    assert metrics[0]["dpo_loss"] == pytest.approx(1)
    assert {3, 2} <= set(seen)


def test_a_finished_run_is_not_trained_again(config, server, capsys):
    first = run(config, server)
    calls = server.n_calls
    assert run(config, server) == first
    assert server.n_calls == calls
    assert "finished already" in capsys.readouterr().out


# ---- killed and resumed: the same run, with the same reference


@pytest.fixture
def straight(config, server, tmp_path):
    result = run(replace(config, log_path=str(tmp_path / "straight")), server)
    calls, server.n_calls = server.n_calls, 0
    return outcome(result, server), calls


def test_killed_at_any_call_and_resumed_is_the_same_run(config, server, straight, tmp_path):
    expected, calls = straight
    assert calls > 50
    for call in range(1, calls + 1, 2):
        killed = replace(config, log_path=str(tmp_path / f"killed-{call}"))
        server.n_calls, server.die_at = 0, call
        with pytest.raises(Killed):
            run(killed, server)
        server.die_at = None
        assert outcome(run(killed, server), server) == expected, f"killed at {call}"


def test_killed_again_and_again(config, server, straight):
    expected, calls = straight
    rng = random.Random(0)
    for _ in range(12):
        server.n_calls, server.die_at = 0, rng.randrange(1, calls // 3)
        with pytest.raises(Killed):
            run(config, server)
    server.die_at = None
    assert outcome(run(config, server), server) == expected


def test_interrupt_saves_the_step_in_flight(config, server, straight):
    expected, calls = straight
    at = calls // 2
    server.on_call = lambda count: signal.raise_signal(signal.SIGINT) if count == at else None
    with pytest.raises(Stopped) as stopped:
        run(config, server)
    done = len(read_metrics(config.log_path))
    assert read_checkpoints(config.log_path)[-1]["step"] == done
    assert f"Interrupted after step {done} of 6" in str(stopped.value)
    assert outcome(run(config, server), server) == expected


@pytest.fixture
def begun(config, server, straight):
    """A run that was killed after its first checkpoint."""
    server.n_calls, server.die_at = 0, 3 * straight[1] // 4
    with pytest.raises(Killed):
        run(config, server)
    server.die_at = None
    assert read_checkpoints(config.log_path)
    return config


def test_a_torn_last_line_of_the_reference_is_never_taken_from_other_weights(begun, server):
    with (Path(begun.log_path) / FILE).open("r+b") as torn:
        torn.truncate(torn.seek(0, 2) - 20)
    with pytest.raises(ConfigError, match=r"reference.jsonl lacks 1 of 11 pairs, .*[24] "):
        run(begun, server)


def test_other_data_under_a_begun_run_are_refused(begun, server):
    data = Path(begun.dataset)
    data.write_text(data.read_text().replace("yes", "certainly"))
    with pytest.raises(ConfigError, match=r"lacks 11 of 11 pairs.*no longer the reference.*over"):
        run(begun, server)


def test_a_start_that_was_killed_while_computing_the_reference_keeps_what_it_has(
    config, server, straight, monkeypatch
):
    monkeypatch.setattr("cookbook.preferences.reference.PAIRS_PER_SAVE", 2)
    expected, _ = straight
    server.n_calls, server.die_at = 0, 7
    with pytest.raises(Killed):
        run(config, server)
    server.die_at = None
    assert 0 < len(references(Path(config.log_path))) < 11
    assert outcome(run(config, server), server) == expected
