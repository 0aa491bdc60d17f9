import asyncio
import itertools
import re

import pytest

from cookbook.envs import word_problem_examples, word_problem_task, word_problems
from cookbook.envs.templates import NAMES, TEMPLATES, THINGS
from cookbook.errors import ConfigError
from cookbook.grading import last_boxed
from tests.envs.players import answered, is_correct, question_of

LEVELS = [1, 2, 3, 4]


@pytest.mark.parametrize("level", LEVELS)
def test_the_solution_is_the_arithmetic_and_ends_in_the_answer(level):
    for problem in word_problems(200, seed=0, level=level):
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)\.", problem.solution)
        assert steps
        for left, sign, right, result in steps:
            assert eval(f"{left} {sign} {right}") == int(result) >= 1
        assert steps[-1][-1] == str(problem.answer) == last_boxed(problem.solution)
        asked = re.findall(r"\d+", problem.question)
        results = [step[-1] for step in steps]
        assert all(n in [*asked, *results] for step in steps for n in (step[0], step[2]))
        assert set(asked) <= {n for step in steps for n in (step[0], step[2])}  # none is idle


@pytest.mark.parametrize(
    ("level", "n_steps", "largest"), [(1, 1, 9), (2, 1, 9), (3, 2, 12), (4, 3, 60)]
)
def test_levels_grow(level, n_steps, largest):
    problems = word_problems(150, seed=0, level=level)
    assert all(problem.solution.count(" = ") == n_steps for problem in problems)
    numbers = [int(n) for problem in problems for n in re.findall(r"\d+", problem.question)]
    assert min(numbers) >= 2
    assert max(numbers) == largest
    assert ("*" in "".join(problem.solution for problem in problems)) == (level > 1)


@pytest.mark.parametrize("level", LEVELS)
def test_the_sentences_are_whole(level):
    for problem in word_problems(200, seed=1, level=level):
        assert re.fullmatch(r"(?:[A-Z][^.?]*[.?] )+How many [^.?{}]*\?", problem.question)
        words = re.findall(r"[A-Za-z]+", problem.question)
        assert any(word in THINGS for word in words)
        assert not [word for word in itertools.pairwise(words) if word[0] == word[1]]


def test_templates_are_many_and_names_and_things_vary():
    assert len(TEMPLATES) >= 12
    assert len({template.text for template in TEMPLATES}) == len(TEMPLATES)
    text = " ".join(problem.question for problem in word_problems(250, seed=0))
    assert all(word in text for word in (*NAMES, *THINGS))


@pytest.mark.parametrize("level", LEVELS)
def test_no_two_problems_are_the_same_but_for_names_and_things(level):
    def canonical(problem):
        words = re.sub("|".join(NAMES), "N", problem.question)
        return re.sub("|".join(THINGS), "T", words)

    problems = [*word_problems(250, seed=2, level=level), *word_problem_examples(level)]
    assert len({canonical(problem) for problem in problems}) == len(problems)


def test_the_conversation_shows_two_solved_problems():
    task = word_problem_task(n_train=3, n_test=2, seed=0)
    first, second = word_problem_examples()
    messages = asyncio.run(task.train[0].make_env().start())
    assert [m["content"] for m in messages[:-1]] == [
        first.question,
        first.solution,
        second.question,
        second.solution,
    ]
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2 + ["user"]
    assert "+" in first.solution
    assert "-" in second.solution
    bare = word_problem_task(n_train=3, n_test=2, seed=0, few_shot=False)
    assert len(asyncio.run(bare.train[0].make_env().start())) == 1


def test_grades_and_rewards():
    task = word_problem_task(n_train=5, n_test=3, seed=0, format_weight=0.1)
    problems = word_problems(8, seed=0)
    assert [question_of(p) for p in task.test] == [p.question for p in problems[:3]]
    for problem, given in zip(task.train, problems[3:], strict=True):
        assert answered(problem, given.solution).reward == 1
        assert answered(problem, given.solution, finished=False).reward == -0.1
        assert answered(problem, str(given.answer)).reward == -0.1
        assert answered(problem, rf"\boxed{{{given.answer + 1}}}").reward == 0
        assert not is_correct(problem, rf"\boxed{{{given.answer}}} \boxed{{0}}")


def test_a_seed_decides_and_a_longer_list_begins_the_same():
    assert word_problems(20, seed=1) == word_problems(40, seed=1)[:20]
    assert word_problems(20, seed=1) != word_problems(20, seed=2)


def test_bad_settings():
    with pytest.raises(ConfigError, match=r"level=5: task 'word_problems' .* Allowed: 1 to 4"):
        word_problems(5, seed=0, level=5)
    with pytest.raises(ConfigError, match=r"n_train \+ n_test = 5000 distinct .* there are \d+"):
        word_problem_task(n_train=4000, n_test=1000, seed=0)
