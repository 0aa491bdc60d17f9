"""The trainer on a service without a model."""

from dataclasses import replace

import pytest

from cookbook.errors import ServiceError
from cookbook.models import DEFAULT_MODEL
from cookbook.rl import Step, Task, train
from cookbook.runlog import read_metrics
from tests.rl.fakes import Talk, problem
from tests.rl.runs import N_STEPS, G, Guess, P, file_name, guess, outcome, run, stored, timeless

SMALL = 2  # a group that is often constant

ALWAYS = {
    "step",
    "progress/batch",
    "progress/done_frac",
    "optim/lr",
    "optim/entropy",
    "optim/staleness",
    "optim/kl_sample_train_v1",
    "optim/kl_sample_train_v2",
    "num_sequences",
    "num_tokens",
    "rollout_errors/error",
    "rollout_errors/timeout",
    "time/sampling",
    "time/training",
    "time/total",
}
OF_A_SET = {
    "reward/total",
    "correct",
    "by_group/frac_mixed",
    "by_group/frac_all_good",
    "by_group/frac_all_bad",
    "ac_tokens_per_turn",
    "ob_tokens_per_turn",
    "turns_per_episode",
    "total_episodes",
    "total_turns",
    "total_ac_tokens",
    "frac_unfinished",
}
TEST = {
    f"test/env/all/{name}{bound}"
    for name in ("reward/total", "correct")
    for bound in ("", "_ci95_low", "_ci95_high")
} | {"test/env/all/total_episodes"}


def of_sets(*names):
    return {f"env/{name}/{metric}" for name in names for metric in OF_A_SET}


def test_a_run(config, task, server):
    seen = []
    result = train(config, task, server, on_step=lambda metrics: seen.append(dict(metrics)))
    weights, metrics, _ = outcome(result, server)
    assert seen == read_metrics(result.log_path)
    assert weights[0] == (DEFAULT_MODEL, config.lora_rank, config.seed)
    assert len(weights) == 1 + N_STEPS
    assert [rate for _, rate in weights[1:]] == [1e-2] * N_STEPS
    assert server.updates == [("importance_sampling", None)] * N_STEPS

    assert [line["step"] for line in metrics] == [0, 1, 2, 3, 4]
    assert [line["step"] for line in metrics if "test/env/all/correct" in line] == [0, 2, 4]
    assert [line["progress/done_frac"] for line in metrics] == [0, 0.25, 0.5, 0.75, 1]
    assert [line["optim/staleness"] for line in metrics[:4]] == [0] * 4
    assert [line["env/all/total_episodes"] for line in metrics[:4]] == [P * G] * 4
    gaps = [line["optim/kl_sample_train_v1"] for line in metrics[:4]]
    assert gaps == pytest.approx([0] * 4, abs=1e-6)

    assert result.n_steps == N_STEPS
    assert result.before == {k: v for k, v in metrics[0].items() if k.startswith("test/")}
    assert result.after == {k: v for k, v in metrics[4].items() if k.startswith("test/")}
    assert set(result.after) == TEST


def test_the_names_of_the_metrics(config, task, server):
    result = run(config, task, server)
    for line in read_metrics(result.log_path)[:N_STEPS]:
        tags = {f"n{n}": "ab"[n % 2] for n in range(20, 26)}
        played = {
            tags[r["problem"]] for r in stored(result.log_path)[file_name("train", line["step"])]
        }
        sets = of_sets("all", *(sorted(played) if len(played) > 1 else ()))
        evaluated = {*TEST, "time/evaluation"} if line["step"] % 2 == 0 else set()
        assert set(line) == ALWAYS | sets | evaluated
    assert set(read_metrics(result.log_path)[-1]) == {
        "step",
        "progress/done_frac",
        "time/evaluation",
        *TEST,
    }


def test_each_epoch_poses_every_problem_once(config, task, server):
    result = run(replace(config, max_steps=6), task, server)
    posed = [
        sorted({line["problem"] for line in stored(result.log_path)[file_name("train", step)]})
        for step in range(6)
    ]
    assert [len(names) for names in posed] == [P] * 6
    epochs = [sorted(name for names in posed[at : at + 3] for name in names) for at in (0, 3)]
    assert epochs == [[f"n{n}" for n in range(20, 26)]] * 2
    assert posed[:3] != posed[3:]


def test_only_tokens_of_groups_that_teach_are_trained_with_their_advantages(config, task, server):
    result = run(replace(config, group_size=SMALL), task, server)
    weights, metrics, rollouts = outcome(result, server)
    n_skipped, updates = 0, iter(weights[1:])
    for step in range(N_STEPS):
        lines = rollouts[file_name("train", step)]
        groups = [[line for line in lines if line["group"] == index] for index in range(P)]
        expected = []
        for group in groups:
            mean = sum(line["reward"] for line in group) / SMALL
            for line in group:
                assert line["advantage"] == pytest.approx(line["reward"] - mean)
                (turn,) = line["turns"]
                prompt = (1, int(line["messages"][0]["content"]))
                tokens = (*prompt, *turn["tokens"])
                advantage = round(line["advantage"], 4)
                if len({other["reward"] for other in group}) > 1:
                    expected.append((tokens[:-1], (0.0, advantage, advantage)))
        n_skipped += P * SMALL - len(expected)
        if expected:  # else there was no update
            batch, _ = next(updates)
            assert list(batch) == expected
        assert metrics[step]["num_sequences"] == len(expected)
        assert metrics[step]["num_tokens"] == 4 * len(expected)
    assert list(updates) == []
    assert n_skipped > 0


def test_a_step_that_teaches_nothing_makes_no_update_and_the_run_goes_on(config, server):
    problems = [guess(20, constant=1.0), guess(21), guess(22, constant=0.1), guess(23)]
    result = run(replace(config, prompts_per_step=1, max_steps=8), Task("t", problems), server)
    weights, metrics, rollouts = outcome(result, server)
    constant = [
        step
        for step in range(8)
        if len({line["reward"] for line in rollouts[file_name("train", step)]}) == 1
    ]
    assert 4 <= len(constant) < 8
    assert [line["step"] for line in metrics if line["num_sequences"] == 0] == constant
    assert len(weights) - 1 == 8 - len(constant)
    for step in constant:
        assert "optim/kl_sample_train_v1" not in metrics[step]
        assert metrics[step]["env/all/by_group/frac_mixed"] == 0
        assert {line["advantage"] for line in rollouts[file_name("train", step)]} == {0.0}
    assert result.n_steps == 8


def test_all_episodes_failing_is_reported_and_the_run_goes_on(config, server):
    task = Task("t", [problem(name, lambda: Talk(ValueError("oops"))) for name in "ab"])
    with pytest.warns(UserWarning, match="8 episodes failed .*error: ValueError: oops"):
        result = run(config, task, server)
    _, metrics, rollouts = outcome(result, server)
    assert [line["rollout_errors/error"] for line in metrics] == [P * G] * N_STEPS
    assert {line["failure"] for line in rollouts[file_name("train", 0)]} == {
        "error: ValueError: oops"
    }
    assert len(rollouts[file_name("train", 0)]) == P * G


@pytest.mark.parametrize(("substeps", "n_updates"), [(1, 1), (2, 2), (3, 3), (9, 4)])
def test_substeps_deal_the_groups_out(config, server, monkeypatch, substeps, n_updates):
    # rewards that differ in every group, so that none is left out
    counter = iter(range(10**6))

    async def step(self, reply):
        return Step(reward=float(next(counter)))

    monkeypatch.setattr(Guess, "step", step)
    task = Task("t", [guess(n) for n in range(20, 24)])
    result = run(replace(config, prompts_per_step=4, max_steps=1, substeps=substeps), task, server)
    weights, metrics, _ = outcome(result, server)
    prompts = [sorted({tokens[1] for tokens, _ in batch}) for batch, _ in weights[1:]]
    assert [len(batch) for batch, _ in weights[1:]] == [len(each) * G for each in prompts]
    assert len(prompts) == n_updates
    assert sorted(number for each in prompts for number in each) == [20, 21, 22, 23]
    assert metrics[0]["num_sequences"] == 4 * G


def test_loss_and_its_settings_reach_the_server(config, task, server):
    chosen = replace(config, loss_fn="ppo", loss_fn_config={"clip_high_threshold": 1.1})
    run(chosen, task, server)
    assert server.updates == [("ppo", {"clip_high_threshold": 1.1})] * N_STEPS


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("", {"base_model": DEFAULT_MODEL}), ("tinker://r/s", {"model_path": "tinker://r/s"})],
)
def test_the_reference_of_the_penalty(config, task, server, chosen, expected):
    result = run(replace(config, kl_coef=0.1, kl_reference=chosen), task, server)
    assert server.references == [expected]
    weights, metrics, _ = outcome(result, server)
    assert all("kl_policy_base" in line for line in metrics[:N_STEPS])
    # constant groups are charged too
    assert [len(batch) for batch, _ in weights[1:]] == [P * G] * N_STEPS


def test_without_a_penalty_no_reference_is_made(config, task, server):
    assert "kl_policy_base" not in outcome(run(config, task, server), server)[1][0]
    assert server.references == []


def test_without_held_out_problems(config, task, server):
    result = run(config, Task("t", task.train), server)
    assert (result.before, result.after) == ({}, {})
    assert [line["step"] for line in read_metrics(result.log_path)] == [0, 1, 2, 3]
    assert all(name.startswith("train_") for name in stored(result.log_path))


def test_eval_every_0_still_evaluates_before_and_after(config, task, server):
    result = run(replace(config, eval_every=0), task, server)
    with_test = [line["step"] for line in timeless(result.log_path) if set(line) >= TEST]
    assert with_test == [0, N_STEPS]


def test_the_evaluation_after_training_is_of_the_final_weights(config, task, server):
    run(config, task, server)
    test_prompts = {(1, 30), (1, 31)}
    evaluated = [
        sampler.n_updates
        for sampler in server.samplers
        if test_prompts & {call.prompt for call in sampler.calls}
    ]
    assert evaluated == [0, 2, N_STEPS]


def test_each_step_has_its_own_seeds_and_each_evaluation_the_same(config, server):
    result = run(config, Task("t", [guess(20)], [guess(30)]), server)
    assert result.n_steps == N_STEPS
    calls = [call for sampler in server.samplers for call in sampler.calls]
    seeds = {number: [c.seed for c in calls if c.prompt == (1, number)] for number in (20, 30)}
    assert len(set(seeds[20])) == len(seeds[20]) == N_STEPS
    assert (len(set(seeds[30])), len(seeds[30])) == (1, 3)


def test_start_from_loads_the_weights_alone(config, task, server, tmp_path):
    first = run(config, task, server)
    calls = server.n_calls
    later = replace(config, start_from=first.state_path, log_path=str(tmp_path / "later"))
    second = run(later, task, server)
    assert server.started_from == [first.state_path]
    before, after = (server.checkpoints[result.state_path] for result in (first, second))
    assert after[: len(before)] == before
    assert second.n_steps == N_STEPS
    assert server.n_calls > calls
    with pytest.raises(ServiceError, match="cannot load tinker://gone to start from"):
        run(replace(later, start_from="tinker://gone", log_path=str(tmp_path / "x")), task, server)


# ---- stored rollouts


def test_rollouts_are_stored_as_they_were(config, task, server):
    result = run(config, task, server)
    files = stored(result.log_path)
    assert set(files) == {file_name("train", s) for s in range(4)} | {
        file_name("test", s) for s in (0, 2, 4)
    }
    sampled = {
        (call.prompt, tuple(sequence.tokens), tuple(round(v, 4) for v in sequence.logprobs))
        for sampler in server.samplers
        for call in sampler.calls
        for sequence in call.sequences
    }
    for name, lines in files.items():
        split, step = name.removesuffix(".jsonl").split("_")
        for line in lines:
            assert (line["split"], line["step"]) == (split, int(step))
            (turn,) = line["turns"]
            prompt = (1, int(line["messages"][0]["content"]))
            assert (prompt, tuple(turn["tokens"]), tuple(turn["logprobs"])) in sampled
            assert turn["text"] == line["messages"][1]["content"] == str(turn["tokens"][0])
            assert line["reward"] == turn["reward"] == float(int(turn["text"]) % 2 == 0)
            assert line["problem"] == f"n{prompt[1]}"
            assert (line["advantage"] is None) == (split == "test")


@pytest.mark.parametrize(("keep", "train", "test"), [(1, 1, 1), (99, 2, 2), (0, 0, 0)])
def test_keep_groups(config, task, server, keep, train, test):
    files = stored(run(replace(config, keep_groups=keep), task, server).log_path)
    for name, lines in files.items():
        expected = train if name.startswith("train") else test
        assert len({line["group"] for line in lines}) == expected
    assert bool(files) == bool(keep)
