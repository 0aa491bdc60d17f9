import asyncio
import re

import pytest

from cookbook.envs import comparison_task
from tests.envs.players import is_correct, question_of


def numbers(problem):
    return [int(number) for number in re.findall(r"\d+", problem.name)]


def test_pairs_are_distinct_and_both_orders_equally_often():
    task = comparison_task(n_train=60, n_test=20, seed=0)
    for part in (task.train, task.test):
        first_larger = [a > b for a, b in map(numbers, part)]
        assert sum(first_larger) == len(part) / 2
    pairs = {frozenset(numbers(problem)) for problem in [*task.train, *task.test]}
    assert len(pairs) == 80
    assert all(len(pair) == 2 and min(pair) >= 10 and max(pair) <= 99 for pair in pairs)


def test_the_conversation():
    problem = comparison_task(n_train=1, n_test=0, seed=0).train[0]
    messages = asyncio.run(problem.make_env().start())
    assert [(m["role"], m["content"]) for m in messages[:2]] == [
        ("user", "Which number is larger, 3 or 8?"),
        ("assistant", "8"),
    ]
    assert question_of(problem) == "Which number is larger, {} or {}?".format(*numbers(problem))
    bare = comparison_task(n_train=1, n_test=0, seed=0, few_shot=False).train[0]
    assert len(asyncio.run(bare.make_env().start())) == 1


def test_every_pair_can_be_had():
    task = comparison_task(n_train=4000, n_test=5, seed=0)
    assert len(task.train) == 4000


@pytest.mark.parametrize(
    ("answer", "strict", "lenient"),
    [
        ("{high}", True, True),
        ("{high} is larger.", True, True),
        ("{low}", False, False),
        ("{low} or {high}", False, True),
        ("{high}, {low}", False, True),
        ("{high} {high}", False, True),
        ("{high}5", False, False),
        ("1{high}", False, False),
        ("-{high}", False, False),
        ("", False, False),
        ("the second", False, False),
    ],
)
def test_the_lenient_grader_can_be_fooled(answer, strict, lenient):
    for is_lenient, right in ((False, strict), (True, lenient)):
        task = comparison_task(n_train=10, n_test=0, seed=0, lenient=is_lenient)
        for problem in task.train:
            low, high = sorted(numbers(problem))
            assert is_correct(problem, answer.format(low=low, high=high)) == right
