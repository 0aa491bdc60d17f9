"""What the tasks share: distinct problems, and a task made of them."""

import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from cookbook.errors import ConfigError
from cookbook.rl import Problem, Task
from cookbook.rows import Conversation

_T = TypeVar("_T", bound=Hashable)

MAX_MISSES = 100_000
"""Repeats in a row after which a generator counts as exhausted."""


def draw_distinct(
    draw: Callable[[random.Random], _T], n: int, rng: random.Random, taken: Iterable[_T] = ()
) -> list[_T]:
    """Return `n` distinct things in the order they were drawn.

    Args:
        draw: makes one problem in its canonical form, the same for problems that are too alike.
        n: how many.
        rng: where chance comes from.
        taken: what must not occur.
    Raises:
        ConfigError: there are fewer than `n`.
    """
    taken, found, misses = set(taken), {}, 0
    while len(found) < n and misses < MAX_MISSES:
        thing = draw(rng)
        misses = misses + 1 if thing in taken or thing in found else 0
        if not misses:
            found[thing] = None
    if len(found) < n:
        raise ConfigError(
            f"n_train + n_test = {n} distinct problems are wanted, but there are {len(found)}. "
            "Ask for fewer, or choose a higher level."
        )
    return list(found)


def check_sizes(n_train: int, n_test: int, available: int | None = None) -> None:
    """Check the sizes of a task.

    Raises:
        ConfigError: nothing to train on, a negative number to test on, or more problems than are
            available, where that is known beforehand.
    """
    if n_train < 1 or n_test < 0:
        raise ConfigError(
            f"n_train={n_train}, n_test={n_test}: n_train must be at least 1, n_test at least 0."
        )
    if available is not None and n_train + n_test > available:
        raise ConfigError(
            f"n_train + n_test = {n_train + n_test}, but there are {available}. Ask for fewer."
        )


def check_level(task: str, level: int, highest: int) -> None:
    """Check the difficulty of a task, 1 to `highest`.

    Raises:
        ConfigError: it has no such level.
    """
    if level not in range(1, highest + 1):
        allowed = f"1 to {highest}" if highest > 1 else "1, as it has no others"
        raise ConfigError(f"level={level!r}: task {task!r} has no such level. Allowed: {allowed}.")


def split_task(name: str, problems: Sequence[Problem], n_test: int) -> Task:
    """Return the task whose first `n_test` problems are held out.

    The first rather than the last, so that more training problems leave the test as it is.
    """
    return Task(name, train=problems[n_test:], test=problems[:n_test])


def turn(question: str, answer: str) -> Conversation:
    """Return an example: a question and how to answer it."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def ask(question: str, examples: Sequence[Conversation] = ()) -> Conversation:
    """Return a conversation that ends with `question`, after the examples."""
    shown = [message for example in examples for message in example]
    return [*shown, {"role": "user", "content": question}]
