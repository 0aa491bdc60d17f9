import json
import math
import random
import signal
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import tinker
from transformers import AutoTokenizer

from cookbook.data import load_conversations
from cookbook.errors import ConfigError, DataError, ServiceError
from cookbook.loop import Stopped
from cookbook.models import DEFAULT_MODEL
from cookbook.rendering import NothingToTrainError, get_renderer, render_training
from cookbook.runlog import read_checkpoints, read_config, read_metrics
from cookbook.supervised import (
    Config,
    Evaluation,
    Examples,
    build_datums,
    datum_from_tokens,
    evaluate_nll,
    learning_rate_multiplier,
    total_steps,
    train,
    weighted_nll,
)
from tests.fake_training import Killed, Server

N_ROWS, N_TEST = 11, 3


@pytest.fixture(scope="module")
def tokenizer(model_dir):
    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def renderer(tokenizer):
    return get_renderer(tokenizer, DEFAULT_MODEL)


@pytest.fixture
def server(tokenizer):
    return Server(tokenizer)


def chat(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.fixture
def config(tmp_path):
    """8 rows to train on in 2 epochs of 3 + 3 + 2: 6 steps."""
    data = tmp_path / "rows.jsonl"
    rows = [{"messages": chat(f"question {i}?", f"answer {i} " * (i + 1))} for i in range(N_ROWS)]
    data.write_text("\n".join(map(json.dumps, rows)))
    return Config(
        dataset=str(data),
        n_test=N_TEST,
        batch_size=3,
        num_epochs=2,
        learning_rate=1e-2,
        eval_every=2,
        save_every=2,
        seed=5,
        log_path=str(tmp_path / "run"),
    )


def run(config, server, **options):
    return train(config, server, on_step=server.tick, **options)


def timeless(log_path):
    """Return all metrics of a run but the times."""
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(log_path)
    ]


def outcome(result, server):
    weights = server.checkpoints[result.state_path]
    assert server.checkpoints[result.sampler_path] == weights
    return weights, timeless(result.log_path)


# ---- settings


BAD = {
    "model_name": ["", 3],
    "dataset": ["", None],
    "learning_rate": [-1e-3, math.nan, math.inf, "1e-4", True],
    "lora_rank": [0, 2.0, True],
    "batch_size": [0, -1],
    "num_epochs": [0, "1"],
    "max_steps": [-1, 1.5, None],
    "lr_schedule": ["linar", None],
    "train_on": ["assistant"],
    "max_length": [1, 0],
    "eval_every": [-1, None],
    "save_every": [-1],
    "n_test": [-1, 0.5],
    "seed": [-1, "0"],
    "log_path": [None, 3],
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


def test_all_faults_are_listed_at_once():
    parameters = {"learnign_rate": 1e-4, "zzzz": 1, "seed": -1, "batch_size": 0, "num_epochs": 2}
    with pytest.raises(ConfigError) as error:
        Config.from_parameters(parameters)
    assert str(error.value).splitlines()[0] == "4 settings are wrong:"
    assert "'learnign_rate' is not a setting. Did you mean 'learning_rate'?" in str(error.value)
    assert "'zzzz' is not a setting. Known: model_name, dataset," in str(error.value)
    assert "seed = -1: expected a whole number from 0 on." in str(error.value)
    assert "batch_size = 0: expected a whole number from 1 on." in str(error.value)


def test_from_parameters_keeps_the_values():
    config = Config.from_parameters({"learning_rate": 0, "max_steps": 5, "dataset": "a/b"})
    assert (config.learning_rate, config.max_steps, config.dataset) == (0, 5, "a/b")


def test_describe_prints_what_differs(capsys):
    Config(learning_rate=0.5, log_path="here").describe()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Settings that differ from the defaults:"
    assert lines[1:] == [
        f"  learning_rate = 0.5  (default {Config.__dataclass_fields__['learning_rate'].default})",
        "  log_path = 'here'  (default '')",
    ]


def test_a_fresh_log_path_is_chosen_once():
    first, second = Config(dataset="x/chats.jsonl"), Config(dataset="x/chats.jsonl")
    assert first.log_path != second.log_path
    assert "sl-chats-" in first.log_path
    assert replace(first, seed=1).log_path == first.log_path


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
        ("constant", [1, 1, 1, 1]),
    ],
)
def test_schedules(schedule, expected):
    values = [learning_rate_multiplier(schedule, step, 4) for step in range(4)]
    assert values == pytest.approx(expected)


# ---- datums


def test_datum_shifts_by_one():
    datum = datum_from_tokens([5, 6, 7, 8], [1.0, 0.0, 1.0, 1.0])
    assert datum.model_input.to_ints() == [5, 6, 7]
    assert datum.loss_fn_inputs["target_tokens"].data == [6, 7, 8]
    assert datum.loss_fn_inputs["weights"].data == [0, 0.5, 0.5]
    raw = datum_from_tokens([5, 6, 7, 8], [1.0, 0.0, 1.0, 1.0], reduction="none")
    assert raw.loss_fn_inputs["weights"].data == [0, 1, 1]


def test_datum_of_a_conversation_keeps_every_trained_token(tokenizer, renderer):
    tokens, weights = render_training(renderer, chat("q", "some answer"))
    inputs = datum_from_tokens(tokens, weights).loss_fn_inputs
    kept = np.asarray(inputs["weights"].data)
    assert (kept > 0).sum() == sum(weights)
    assert kept.sum() == pytest.approx(1, abs=1e-6)
    trained = np.asarray(inputs["target_tokens"].data)[kept > 0]
    assert tokenizer.decode(trained) == "some answer<|im_end|>"


@pytest.mark.parametrize(
    ("tokens", "weights", "words"),
    [
        ([1, 2], [1.0], "Got 2 tokens but 1 weights"),
        ([1, 2], [1.0, 0.0], "nothing would be trained"),
        ([1], [1.0], "nothing would be trained"),
        ([], [], "nothing would be trained"),
    ],
)
def test_bad_datums(tokens, weights, words):
    with pytest.raises(DataError, match=words):
        datum_from_tokens(tokens, weights)


def test_conversations_without_a_target_are_left_out_aloud(renderer):
    long, short = chat("q " * 90, "a"), chat("q", "a")
    with pytest.warns(
        UserWarning, match=r"left out. Nothing to train is left within max_length=80"
    ):
        assert len(build_datums(renderer, [long, short], max_length=80)) == 1
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(NothingToTrainError, match="None of 2 conversations"),
    ):
        build_datums(renderer, [long, long], max_length=80)


# ---- evaluation


class KnownLogprobs:
    """A client that gives target t the log-probability -t / 100."""

    def __init__(self, sampling):
        self.requests = []
        if sampling:
            self.compute_logprobs = self._compute_logprobs
        else:
            self.forward = self._forward

    def _forward(self, datums, loss_fn):
        self.requests.append(len(datums))
        values = [np.array(d.loss_fn_inputs["target_tokens"].data) / -100 for d in datums]
        outputs = [{"logprobs": tinker.TensorData.from_numpy(v.astype(np.float32))} for v in values]
        return SimpleNamespace(result=lambda: SimpleNamespace(loss_fn_outputs=outputs))

    def _compute_logprobs(self, prompt):
        values = [None, *(-token / 100 for token in prompt.to_ints()[1:])]
        return SimpleNamespace(result=lambda: values)


@pytest.mark.parametrize("sampling", [False, True])
def test_evaluation_by_hand(tokenizer, sampling):
    abc = tokenizer.encode("abc", add_special_tokens=False)
    assert len(abc) == 1
    datums = [
        datum_from_tokens([1, 40, 60], [0.0, 1.0, 1.0]),
        datum_from_tokens([1, 9, 30, *abc, 2], [0.0, 0.0, 0.0, 1.0, 1.0]),  # 2 is <|im_end|>
    ]
    result = evaluate_nll(KnownLogprobs(sampling), datums, tokenizer)
    assert result.n_tokens == [2, 2]
    assert result.loss_sums == pytest.approx([1.0, (abc[0] + 2) / 100])
    assert result.nll == pytest.approx((1.0 + (abc[0] + 2) / 100) / 4)
    assert result.n_bytes == len(tokenizer.decode([40, 60])) + 3
    bits = (1.0 + abc[0] / 100) / math.log(2)
    assert result.bits_per_byte == pytest.approx(bits / result.n_bytes)


def test_evaluation_is_sent_in_modest_chunks(tokenizer):
    client = KnownLogprobs(sampling=False)
    evaluate_nll(client, [datum_from_tokens([1, 40], [0.0, 1.0])] * 37, tokenizer)
    assert max(client.requests) <= 16
    assert sum(client.requests) == 37


def test_bytes_are_utf8_bytes(tokenizer):
    tokens = [1, *tokenizer.encode("日本é", add_special_tokens=False), 2]
    datum = datum_from_tokens(tokens, [0.0] + [1.0] * (len(tokens) - 1))
    assert evaluate_nll(KnownLogprobs(False), [datum], tokenizer).n_bytes == 8


def test_nothing_to_evaluate(tokenizer):
    with pytest.raises(ConfigError, match="Set n_test to 1 or more"):
        evaluate_nll(KnownLogprobs(False), [], tokenizer)


def evaluation(loss_sums, n_tokens):
    return Evaluation(loss_sums=loss_sums, n_tokens=n_tokens, n_bytes=1, byte_loss_sum=1.0)


def test_interval_of_equal_lengths_is_the_textbook_one():
    values = [1.0, 2.0, 4.0, 5.0]
    expected = 1.96 * np.std(values, ddof=1) / math.sqrt(4)
    assert evaluation(values, [1] * 4).margin == pytest.approx(expected)
    assert evaluation([7 * v for v in values], [7] * 4).margin == pytest.approx(expected)


def test_interval_covers_the_truth_in_95_of_100():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        n = rng.integers(2, 30, size=60)
        rate = rng.gamma(4, 0.5, size=60)  # mean 2 nats a token, independent of the length
        drawn = evaluation(list(n * rate), list(n))
        inside += abs(drawn.nll - 2) < drawn.margin
    assert 0.91 < inside / 400 < 0.98


def test_paired_change_ignores_how_hard_examples_are():
    before = evaluation([10.0, 200.0, 33.0], [5, 20, 11])
    after = evaluation([10 - 2.5, 200 - 10.0, 33 - 5.5], [5, 20, 11])  # 0.5 less on each token
    change, margin = after.minus(before)
    assert (change, margin) == (pytest.approx(-0.5), pytest.approx(0, abs=1e-9))
    with pytest.raises(ConfigError, match="same examples"):
        after.minus(evaluation([1.0], [1]))


def test_weighted_nll():
    datums = [datum_from_tokens([1, 40, 60], [0, 1, 1]), datum_from_tokens([1, 30], [0, 1])]
    outputs = KnownLogprobs(False).forward(datums, "").result().loss_fn_outputs
    assert weighted_nll(outputs, datums) == pytest.approx(((0.4 + 0.6) / 2 + 0.3) / 2)


# ---- the trainer


def test_a_run(config, server):
    seen = []
    result = train(config, server, on_step=lambda metrics: seen.append(dict(metrics)))
    weights, metrics = outcome(result, server)
    assert weights[0] == (DEFAULT_MODEL, config.lora_rank, config.seed)
    steps = weights[1:]
    assert [rate for _, rate in steps] == pytest.approx([1e-2 * (1 - t / 6) for t in range(6)])
    assert [len(batch) for batch, _ in steps] == [3, 3, 2] * 2
    epochs = [sorted(row for batch, _ in steps[e : e + 3] for row in batch) for e in (0, 3)]
    assert epochs[0] == epochs[1]
    assert len(set(epochs[0])) == N_ROWS - N_TEST

    assert [line["step"] for line in metrics] == list(range(7))
    assert [line["step"] for line in metrics if "test/nll" in line] == [0, 2, 4, 6]
    assert [line["progress"] for line in metrics] == pytest.approx([t / 6 for t in range(7)])
    assert [line["epoch"] for line in metrics[:6]] == [0, 0, 0, 1, 1, 1]
    first = metrics[0]
    assert first["learning_rate"] == 1e-2
    assert first["num_sequences"] == 3
    assert first["num_tokens"] > first["num_loss_tokens"] > 10
    assert 1 < first["train_mean_nll"] < 2
    assert {"time/total", "time/evaluation"} <= set(seen[0])
    assert seen == read_metrics(result.log_path)

    assert result.n_steps == 6
    assert result.before["test/nll"] == metrics[0]["test/nll"]
    assert result.after["test/nll"] == metrics[6]["test/nll"]
    assert set(result.after) == {"test/nll", "test/nll_margin", "test/bpb"}
    assert read_config(result.log_path)["learning_rate"] == 1e-2


def test_checkpoints(config, server):
    result = run(config, server)
    records = read_checkpoints(result.log_path)
    assert [(r["name"], r["step"]) for r in records] == [("000002", 2), ("000004", 4), ("final", 6)]
    assert [r.get("final") for r in records] == [None, None, True]
    for record in records:
        assert len(server.checkpoints[record["state_path"]]) == 1 + record["step"]
    assert [server.ttls[r["state_path"]] for r in records] == [604800, 604800, None]
    assert server.ttls[records[-1]["sampler_path"]] is None
    assert [r for r in records if "sampler_path" in r] == records[-1:]


def test_max_steps_0_sets_no_limit(config):
    steps = {limit: total_steps(replace(config, max_steps=limit), 8) for limit in (0, 4, 99)}
    assert steps == {0: 6, 4: 4, 99: 6}


def test_max_steps_shortens_the_schedule(config, server):
    result = run(replace(config, max_steps=4), server)
    weights, _ = outcome(result, server)
    assert [rate for _, rate in weights[1:]] == pytest.approx(
        [1e-2 * (1 - t / 4) for t in range(4)]
    )
    assert read_checkpoints(result.log_path)[-1]["step"] == result.n_steps == 4


def test_without_test_rows_and_periodic_saves(config, server):
    result = run(replace(config, n_test=0, save_every=0, eval_every=0), server)
    assert (result.before, result.after) == ({}, {})
    assert len(read_metrics(result.log_path)) == 8  # 11 rows: 4 steps in an epoch
    assert len(read_checkpoints(result.log_path)) == 1


def test_eval_every_0_still_evaluates_before_and_after(config, server):
    metrics = timeless(run(replace(config, eval_every=0), server).log_path)
    assert [line["step"] for line in metrics if "test/nll" in line] == [0, 6]


def test_a_finished_run_is_not_trained_again(config, server, capsys):
    first = run(config, server)
    calls = server.n_calls
    assert run(config, server) == first
    assert server.n_calls == calls
    assert "finished already" in capsys.readouterr().out


def test_the_same_run_is_not_mixed_with_other_settings(config, server):
    run(config, server)
    with pytest.raises(ConfigError, match=r"learning_rate: 0.01 there, 0.02 now"):
        run(replace(config, learning_rate=2e-2), server)
    with pytest.raises(ConfigError, match="already holds a run"):
        run(replace(config, if_exists="raise"), server)
    again = run(replace(config, learning_rate=2e-2, if_exists="overwrite"), server)
    assert len(read_checkpoints(again.log_path)) == 3


def test_bad_split_is_an_error_before_training(config, server):
    with pytest.raises(ConfigError, match="n_test=11, but there are 11"):
        run(replace(config, n_test=11), server)
    assert server.n_clients == 0


# ---- rows at hand


def test_rows_at_hand_are_trained_instead_of_the_data_set(config, server, renderer):
    rows = load_conversations(config.dataset)
    examples = Examples(train=rows[:8], test=rows[8:])
    weights, _ = outcome(run(config, server, examples=examples), server)
    expected = {tuple(datum.model_input.to_ints()) for datum in build_datums(renderer, rows[:8])}
    assert {tokens for batch, _ in weights[1:] for tokens in batch} == expected


def test_rows_of_any_kind_become_datums_by_their_own_function(config, server):
    def build(renderer, rows):
        return [datum_from_tokens([row, row + 1, row + 2], [0, 1, 1]) for row in rows]

    examples = Examples(train=range(10, 16), test=[90], build=build)
    result = run(replace(config, num_epochs=1, max_steps=0), server, examples=examples)
    weights, metrics = outcome(result, server)
    trained = sorted(tokens for batch, _ in weights[1:] for tokens in batch)
    assert trained == [(row, row + 1) for row in range(10, 16)]
    assert "test/nll" in metrics[-1]


def test_a_run_is_only_resumed_with_the_same_rows(config, server):
    rows = load_conversations(config.dataset)
    server.die_at = 20
    with pytest.raises(Killed):
        run(config, server, examples=Examples(train=rows[:8]))
    server.die_at = None
    for others in (Examples(train=rows[1:9]), Examples(train=rows[:8], test=rows[8:])):
        with pytest.raises(ConfigError, match=r"other settings:\n  examples: "):
            run(config, server, examples=others)
    with pytest.raises(ConfigError, match=r"other settings:\n  examples: "):
        run(config, server)
    run(config, server, examples=Examples(train=rows[:8]))


# ---- killed and resumed: the same run


@pytest.fixture
def straight(config, server, tmp_path):
    """Weights and metrics of an uninterrupted run, and how many calls it made."""
    result = run(replace(config, log_path=str(tmp_path / "straight")), server)
    calls, server.n_calls = server.n_calls, 0
    return (*outcome(result, server), calls)


def test_killed_at_any_call_and_resumed_is_the_same_run(config, server, straight, tmp_path):
    weights, metrics, calls = straight
    assert calls > 50
    for call in range(1, calls + 1):
        killed = replace(config, log_path=str(tmp_path / f"killed-{call}"))
        server.n_calls, server.die_at = 0, call
        with pytest.raises(Killed):
            run(killed, server)
        server.die_at = None
        assert outcome(run(killed, server), server) == (weights, metrics), f"killed at {call}"


def test_killed_again_and_again(config, server, straight):
    weights, metrics, calls = straight
    rng = random.Random(0)
    for _ in range(12):
        server.n_calls, server.die_at = 0, rng.randrange(1, calls // 3)
        with pytest.raises(Killed):
            run(config, server)
    server.die_at = None
    assert outcome(run(config, server), server) == (weights, metrics)


@pytest.mark.parametrize("call", [3, 8, 17, 30])
def test_interrupt_saves_the_step_in_flight(config, server, straight, call):
    weights, metrics, _ = straight
    server.on_call = lambda count: signal.raise_signal(signal.SIGINT) if count == call else None
    with pytest.raises(Stopped) as stopped:
        run(config, server)
    done = len(read_metrics(config.log_path))
    assert read_checkpoints(config.log_path)[-1]["step"] == done
    assert f"Interrupted after step {done} of 6, which is saved" in str(stopped.value)
    assert f"log_path={config.log_path!r}" in str(stopped.value)
    assert outcome(run(config, server), server) == (weights, metrics)


def test_a_second_interrupt_stops_at_once_and_nothing_is_lost(config, server, straight):
    weights, metrics, _ = straight
    server.on_call = lambda count: signal.raise_signal(signal.SIGINT) if count in (20, 21) else None
    with pytest.raises(KeyboardInterrupt):
        run(config, server)
    assert server.n_calls == 21
    assert outcome(run(config, server), server) == (weights, metrics)


def test_the_interrupt_handler_is_put_back(config, server):
    before = signal.getsignal(signal.SIGINT)
    run(config, server)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_lost_checkpoint_is_said(config, server):
    server.die_at = 40
    with pytest.raises(Killed):
        run(config, server)
    server.checkpoints.clear()
    with pytest.raises(
        ServiceError, match=r"cannot load tinker://.*after step \d: .*7 days.*'overwrite'"
    ):
        run(config, server)
