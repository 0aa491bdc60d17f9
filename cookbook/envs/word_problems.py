r"""Word problems with a worked solution, in four levels, from templates.

A problem is a template and its numbers; names and things are drawn for colour and don't make it
another problem. The answer is asked for in a box: 'How many cups does Gina have now?' is answered
'3 + 4 = 7. The answer is \boxed{7}.'
"""

import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cookbook.envs.problems import ask, check_level, check_sizes, draw_distinct, split_task, turn
from cookbook.envs.templates import NAMES, TEMPLATES, THINGS, Template
from cookbook.grading import last_boxed
from cookbook.rl import Grade, Problem, QuestionEnv, Task

LEVELS = 4

_RANGES = {1: range(2, 10), 2: range(2, 10), 3: range(2, 13), 4: range(5, 61)}
_SIGNS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.floordiv,
}

_Canonical = tuple[Template, tuple[int, ...]]


@dataclass(frozen=True)
class WordProblem:
    r"""A question, its worked solution ending in ``\boxed{answer}``, and the answer."""

    question: str
    solution: str
    answer: int


def word_problem_task(
    *,
    n_train: int,
    n_test: int,
    seed: int,
    level: int = 1,
    few_shot: bool = True,
    format_weight: float = 0.0,
) -> Task:
    r"""Return the problems of `word_problems` as a task.

    An answer is well-formed if it has a ``\boxed{}``, and correct if the number is in the last one.

    Args:
        n_train: problems to train on.
        n_test: other problems, held out; the same ones whatever `n_train` is.
        seed: decides which problems, and their order.
        level: see `word_problems`.
        few_shot: show two solved problems of the level before the question.
        format_weight: what an answer without a box loses.
    Raises:
        ConfigError: no such level, or more problems than there are.
    """
    check_sizes(n_train, n_test)
    shown = word_problem_examples(level) if few_shot else []
    examples = [turn(example.question, example.solution) for example in shown]

    def problem(given: WordProblem) -> Problem:
        make_env = partial(
            QuestionEnv,
            messages=ask(given.question, examples),
            grade=partial(grade_boxed_number, given.answer),
            format_weight=format_weight,
        )
        return Problem(given.question, make_env, tag="word_problems")

    problems = word_problems(n_test + n_train, seed, level)
    return split_task("word_problems", [problem(given) for given in problems], n_test)


def word_problems(n: int, seed: int, level: int = 1) -> list[WordProblem]:
    """Return `n` distinct problems; a task of the same seed and level holds out its first `n_test`.

    Args:
        n: how many.
        seed: decides which problems, and their order.
        level: 1: one step, plus or minus, numbers of one digit; 2: times and "how many more" as
            well; 3: two steps; 4: three steps, larger numbers.
    Raises:
        ConfigError: no such level, or more problems than there are.
    """
    check_level("word_problems", level, LEVELS)
    rng = random.Random(f"word problems level {level}, seed {seed}")
    drawn = draw_distinct(partial(_draw, level), n, rng, taken=_example_forms(level))
    return [_fill(*canonical, seed) for canonical in drawn]


def word_problem_examples(level: int = 1) -> list[WordProblem]:
    """Return the two solved problems shown before each question; `word_problems` omits them.

    Raises:
        ConfigError: no such level.
    """
    check_level("word_problems", level, LEVELS)
    return [_fill(*canonical, 0) for canonical in _example_forms(level)]


def grade_boxed_number(number: int, answer: str) -> Grade:
    """Return whether the last box of `answer` holds `number`, and whether there is a box."""
    boxed = last_boxed(answer)
    if boxed is None:
        return Grade(correct=False, well_formed=False)
    return Grade(correct=boxed.replace(",", "").strip() == str(number))


def _templates(level: int) -> list[Template]:
    return [t for t in TEMPLATES if t.level == level or (level == 2 and t.level == 1)]


def _example_forms(level: int) -> list[_Canonical]:
    """Return the first two templates of the level itself, with numbers."""
    rng = random.Random(f"word problem example numbers, level {level}")
    own = [template for template in TEMPLATES if template.level == level]
    return [(template, _draw_numbers(template, level, rng)) for template in own[:2]]


def _draw(level: int, rng: random.Random) -> _Canonical:
    template = rng.choice(_templates(level))
    return template, _draw_numbers(template, level, rng)


def _draw_numbers(template: Template, level: int, rng: random.Random) -> tuple[int, ...]:
    """Return numbers for which every step's result is whole and at least 1."""
    while True:
        numbers = tuple(rng.choices(_RANGES[level], k=template.n_numbers))
        if template.steps in (("a + b",), ("a * b",)):  # 4 and 3 would give 3 and 4 away
            numbers = tuple(sorted(numbers))
        if _solve(template, numbers):
            return numbers


def _solve(template: Template, numbers: tuple[int, ...]) -> list[tuple[str, int]]:
    """Return each step with its result; none if a result is not whole or below 1."""
    values, solved = dict(zip("abcd", numbers, strict=False)), []
    for name, step in zip("xyz", template.steps, strict=False):
        left, sign, right = step.split()
        result = _SIGNS[sign](values[left], values[right])
        if result < 1 or (sign == "/" and values[left] % values[right]):
            return []
        solved.append((f"{values[left]} {sign} {values[right]}", result))
        values[name] = result
    return solved


def _fill(template: Template, numbers: tuple[int, ...], seed: int) -> WordProblem:
    rng = random.Random(f"words, seed {seed}: {template.text} {numbers}")
    name, other = rng.sample(NAMES, 2)
    things, others = rng.sample(THINGS, 2)
    words = {"name": name, "other": other, "things": things, "others": others}
    question = template.text.format(**words, **dict(zip("abcd", numbers, strict=False)))
    solved = _solve(template, numbers)
    answer = solved[-1][1]
    work = " ".join(f"{step} = {result}." for step, result in solved)
    return WordProblem(question, rf"{work} The answer is \boxed{{{answer}}}.", answer)
