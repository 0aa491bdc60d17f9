import math
from dataclasses import fields, replace

import pytest

from cookbook.errors import ConfigError
from cookbook.rl import Config, Step, Task
from tests.rl.fakes import Talk, problem

BAD = {
    "model_name": ["", 3],
    "dataset": ["", None],
    "learning_rate": [-1e-3, math.nan, math.inf, "1e-4", True],
    "lora_rank": [0, 2.0],
    "prompts_per_step": [0],
    "group_size": [0, 1],
    "max_tokens": [0],
    "max_turns": [0],
    "max_steps": [0, None],
    "baseline": ["mean", None],
    "loss_fn": ["grpo", None],
    "loss_fn_config": [{"a": "b"}, {"a": math.nan}, [1.0]],
    "substeps": [0],
    "max_staleness": [-1],
    "kl_coef": [-0.1, math.nan],
    "kl_discount": [-0.1, 1.01, math.nan],
    "kl_reference": [None],
    "start_from": [None],
    "eval_every": [-1],
    "test_samples": [0],
    "save_every": [-1],
    "keep_groups": [-1],
    "env_timeout_s": [-1, math.inf],
    "seed": [-1, "0"],
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
    assert set(BAD) == {field.name for field in fields(Config)} == set(Config.RULES)


def test_all_faults_are_listed_at_once():
    with pytest.raises(ConfigError) as error:
        Config.from_parameters({"groupsize": 4, "loss_fn": "grpo", "seed": -1, "kl_discount": 2})
    lines = str(error.value).splitlines()
    assert lines[0] == "4 settings are wrong:"
    assert lines[1] == "  'groupsize' is not a setting. Did you mean 'group_size'?"
    assert sorted(lines[2:]) == [
        "  kl_discount = 2: expected a number from 0 to 1, such as 0.9.",
        "  loss_fn = 'grpo': expected one of importance_sampling, ppo, cispo.",
        "  seed = -1: expected a whole number from 0 on.",
    ]


def test_good_values_are_kept():
    config = Config(loss_fn="ppo", loss_fn_config={"clip_high_threshold": 1.2}, kl_discount=1)
    assert config.loss_fn_config == {"clip_high_threshold": 1.2}


def test_a_fresh_log_path_is_chosen_once():
    config = Config(dataset="sums")
    assert "rl-sums-" in config.log_path
    assert Config(dataset="sums").log_path != config.log_path
    assert replace(config, seed=1).log_path == config.log_path


# ---- tasks


def test_a_task_without_problems_is_refused():
    with pytest.raises(ConfigError, match="task 't' has no problems to train on"):
        Task("t", train=[], test=[problem("a")])


@pytest.mark.parametrize(("train", "test"), [("aba", ""), ("ab", "b"), ("a", "bb")])
def test_two_problems_of_one_name_are_refused(train, test):
    with pytest.raises(ConfigError, match=r"task 't' has the problem '[ab]' twice"):
        Task("t", [problem(name) for name in train], [problem(name) for name in test])


def described(train, test="", name="t"):
    return Task(name, [problem(n) for n in train], [problem(n) for n in test]).describe()


def test_describe_changes_with_the_problems():
    tasks = [("abc",), ("abd",), ("acb",), ("ab",), ("ab", "c"), ("a", "bc"), ("abc", "", "u")]
    found = [str(described(*task)) for task in tasks]
    assert len(set(found)) == len(tasks)
    assert described("ab", "c") == described("ab", "c")


def test_a_problem_makes_a_fresh_environment_for_each_episode():
    envs = problem("a", lambda: Talk(Step())).make_envs(3)
    assert len({id(env) for env in envs}) == 3
