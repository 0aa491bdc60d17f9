import re

import pytest

from cookbook.envs import arithmetic_task
from cookbook.errors import ConfigError
from tests.envs.players import is_correct, question_of


def terms(problem):
    return [int(term.replace(" ", "")) for term in re.findall(r"(?:^|[-+] )?\d+", problem.name)]


def test_level_1_is_the_task_of_rl_loop():
    task = arithmetic_task(n_train=39, n_test=16, seed=0)
    problems = [*task.train, *task.test]
    assert (len(task.train), len(task.test)) == (39, 16)
    pairs = sorted(tuple(map(int, re.findall(r"\d", problem.name))) for problem in problems)
    assert pairs == [(a, b) for a in range(10) for b in range(a, 10)]
    a, b = re.findall(r"\d", task.train[0].name)
    assert question_of(task.train[0]) == f"What is {a} + {b}? Reply with the number only."


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_the_last_number_counts(level):
    task = arithmetic_task(n_train=30, n_test=10, seed=1, level=level)
    for problem in task.train:
        total = sum(terms(problem))
        assert total >= 0
        assert is_correct(problem, str(total))
        assert is_correct(problem, f"{problem.name} = {total}.")
        assert is_correct(problem, f"It is {total}.0")
        assert not is_correct(problem, f"{total} or {total + 1}")
        assert not is_correct(problem, "I cannot say")
        assert not is_correct(problem, f"-{total + 1}")


@pytest.mark.parametrize(
    ("level", "form"),
    [
        (1, r"\d \+ \d"),
        (2, r"\d\d \+ \d\d"),
        (3, r"\d\d \+ \d\d \+ \d\d"),
        (4, r"\d\d \+ \d\d - \d\d"),
    ],
)
def test_levels(level, form):
    task = arithmetic_task(n_train=30, n_test=10, seed=1, level=level)
    assert all(re.fullmatch(form, problem.name) for problem in [*task.train, *task.test])
    added = [terms(problem)[: 3 if level == 3 else 2] for problem in task.train]
    assert all(numbers == sorted(numbers) for numbers in added)  # each in one order only


def test_a_seed_decides_and_more_training_leaves_the_test_alone():
    def names(part):
        return [problem.name for problem in part]

    task = arithmetic_task(n_train=20, n_test=8, seed=3, level=2)
    again = arithmetic_task(n_train=50, n_test=8, seed=3, level=2)
    other = arithmetic_task(n_train=20, n_test=8, seed=4, level=2)
    assert names(task.test) == names(again.test)
    assert names(task.train) == names(again.train)[:20]
    assert names(task.test) != names(other.test)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (
            {"n_train": 50, "n_test": 6},
            r"n_train \+ n_test = 56 .* but there are 55. Ask for fewer",
        ),
        ({"n_train": 0, "n_test": 6}, r"n_train=0, n_test=6: n_train must be at least 1"),
        ({"n_train": 5, "n_test": -1}, r"n_test=-1: .*n_test at least 0"),
        ({"n_train": 5, "n_test": 5, "level": 5}, r"level=5: .*'arithmetic'.* Allowed: 1 to 4"),
        ({"n_train": 5, "n_test": 5, "level": 0}, r"level=0: .* Allowed: 1 to 4"),
    ],
)
def test_bad_settings(sizes, words):
    with pytest.raises(ConfigError, match=words):
        arithmetic_task(**sizes, seed=0)
