import json

import pytest

from cookbook.envs import load_task
from cookbook.errors import ConfigError, DataError
from tests.envs.players import question_of


@pytest.mark.parametrize("name", ["arithmetic", "word_problems", "comparisons"])
def test_generated_tasks(name):
    task = load_task(name, n_train=20, n_test=10, seed=0)
    assert (task.name, len(task.train), len(task.test)) == (name, 20, 10)
    assert {problem.tag for problem in [*task.train, *task.test]} == {name}


def test_levels_reach_the_task():
    task = load_task("arithmetic", n_train=2, n_test=1, seed=0, level=3)
    assert question_of(task.train[0]).count("+") == 2


@pytest.mark.parametrize("as_folder", [True, False])
def test_paths(tmp_path, as_folder):
    rows = [{"question": f"q{n}", "answer": f"#### {n}"} for n in range(5)]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    task = load_task(str(tmp_path if as_folder else path), n_train=3, n_test=2, seed=0)
    assert (task.name, len(task.train), len(task.test)) == ("gsm8k", 3, 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "arithmetics",
            r"no task 'arithmetics'. Did you mean 'arithmetic'\? Allowed: arithmetic, ",
        ),
        ("gsm8", r"Did you mean 'gsm8k'\?"),
        ("zzz", r"no task 'zzz'. Allowed: .*polaris, reasoning_gym:<name>, or the path"),
        ("", r"no task ''. Allowed"),
    ],
)
def test_unknown_names(name, words):
    with pytest.raises(ConfigError, match=words):
        load_task(name, n_train=1, n_test=1, seed=0)


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("arithmetic", 9, r"level=9: task 'arithmetic' has no such level. Allowed: 1 to 4"),
        ("word_problems", 0, r"level=0: .*Allowed: 1 to 4"),
        ("comparisons", 2, r"level=2: task 'comparisons' .* Allowed: 1, as it has no others"),
        ("gsm8k", 2, r"level=2: task 'gsm8k' .* Allowed: 1, as"),
        ("reasoning_gym:chain_sum", 2, r"Allowed: 1, as"),
    ],
)
def test_bad_levels(name, level, words):
    with pytest.raises(ConfigError, match=words):
        load_task(name, n_train=1, n_test=1, seed=0, level=level)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        load_task(str(tmp_path / "none.jsonl"), n_train=1, n_test=1, seed=0)
