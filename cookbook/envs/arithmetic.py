"""Sums in four levels. The first is the task of the notebook `rl_loop`."""

import random
from functools import partial

from cookbook.envs.problems import ask, check_level, check_sizes, draw_distinct, split_task
from cookbook.grading import last_number
from cookbook.rl import Grade, Problem, QuestionEnv, Task

LEVELS = 4

Terms = tuple[int, ...]
"""The numbers of a sum; one that is subtracted is negative."""


def arithmetic_task(*, n_train: int, n_test: int, seed: int, level: int = 1) -> Task:
    """Return sums to reckon: "What is 3 + 5? Reply with the number only."

    Each sum is asked in one order of its terms only, because 5 + 3 would give 3 + 5 away. An answer
    is correct if its last number is right.

    Args:
        n_train: problems to train on.
        n_test: other problems, held out; the same ones whatever `n_train` is.
        seed: decides which problems, and their order.
        level: 1: two digits, e.g. 3 + 5 (55 problems); 2: two numbers of two digits (4,095); 3:
            three such numbers; 4: two of them, less a third, never below 0.
    Raises:
        ConfigError: no such level, or more problems than there are.
    """
    check_level("arithmetic", level, LEVELS)
    check_sizes(n_train, n_test)
    rng = random.Random(f"arithmetic level {level}, seed {seed}")
    sums = draw_distinct(partial(_draw, level), n_train + n_test, rng)
    return split_task("arithmetic", [_problem(terms) for terms in sums], n_test)


def grade_last_number(number: int, answer: str) -> Grade:
    """Return whether the last number of `answer` is `number`."""
    last = last_number(answer)
    return Grade(correct=last is not None and float(last) == number)


def _draw(level: int, rng: random.Random) -> Terms:
    if level == 1:
        return tuple(sorted(rng.randrange(10) for _ in range(2)))
    if level < 4:
        return tuple(sorted(rng.randrange(10, 100) for _ in range(level)))
    terms = tuple(sorted(rng.randrange(10, 100) for _ in range(2)))
    return (*terms, -rng.randrange(10, min(100, sum(terms) + 1)))


def _problem(terms: Terms) -> Problem:
    text = str(terms[0]) + "".join(f" {'-' if n < 0 else '+'} {abs(n)}" for n in terms[1:])
    messages = ask(f"What is {text}? Reply with the number only.")
    grade = partial(grade_last_number, sum(terms))
    make_env = partial(QuestionEnv, messages=messages, grade=grade)
    return Problem(text, make_env, tag="arithmetic")
