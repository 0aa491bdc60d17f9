"""Guess the number: a program keeps a number, and says whether it is higher or lower."""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cookbook.envs.problems import check_sizes, split_task
from cookbook.errors import ConfigError
from cookbook.rl import Problem, Reply, Step, Task
from cookbook.rows import Message

NO_NUMBER = "no number"


def judge(secret: int, highest: int, guess: int | None) -> str:
    """Return what the keeper of the number says to a guess."""
    if guess is None or not 1 <= guess <= highest:
        return NO_NUMBER
    return "right" if guess == secret else "higher" if secret > guess else "lower"


def parse_guess(text: str) -> int | None:
    """Return the number that a reply consists of, a full stop allowed; None otherwise."""
    found = re.fullmatch(r"\s*(\d{1,6})\.?\s*", text, re.ASCII)
    return int(found[1]) if found else None


def fewest_turns(highest: int) -> float:
    """Return the mean number of turns of halving, which nobody can beat.

    Formula: with d turns, 1 + 2 + 4 + ... + 2^(d - 1) numbers can be told apart, one more level of
    a binary tree with each turn; the mean is that of the depths.
    """
    depths = [int(math.log2(place)) + 1 for place in range(1, highest + 1)]
    return sum(depths) / highest


@dataclass
class GuessNumberEnv:
    """One number to be found.

    Reward: ``1 - (turns - 1) / max_turns`` for finding it, 0 otherwise, all of it in the last turn.
    A reply that is no number in the range costs a turn.
    """

    secret: int
    highest: int
    max_turns: int
    turns: int = 0

    async def start(self) -> Sequence[Message]:
        """Say what is asked for."""
        text = f"I think of a number from 1 to {self.highest}. Guess it. Reply with a number only."
        return [{"role": "user", "content": text}]

    async def step(self, reply: Reply) -> Step:
        """Answer a guess."""
        self.turns += 1
        said = judge(self.secret, self.highest, parse_guess(reply.text))
        bad = {"illegal": float(said == NO_NUMBER)}
        if said != "right" and self.turns < self.max_turns:
            told = f"Say a number from 1 to {self.highest}." if bad["illegal"] else f"{said}."
            return Step(
                done=False,
                messages=[{"role": "user", "content": told.capitalize()}],
                metrics=bad,
            )
        found = said == "right"
        reward = 1 - (self.turns - 1) / self.max_turns if found else 0.0
        return Step(reward=reward, metrics={**bad, "correct": float(found)})


def guess_number_task(*, highest: int, max_turns: int, n_test: int, seed: int) -> Task:
    """Return the numbers 1 to `highest` to be guessed, `n_test` of them held out.

    Raises:
        ConfigError: fewer than two numbers or no turn, or nothing is left to train on.
    """
    if highest < 2 or max_turns < 1:
        raise ConfigError(
            f"highest={highest}, max_turns={max_turns}: there must be two numbers and a turn."
        )
    check_sizes(highest - n_test, n_test)
    numbers = random.Random(f"guess the number, seed {seed}").sample(range(1, highest + 1), highest)
    make = partial(GuessNumberEnv, highest=highest, max_turns=max_turns)
    problems = [Problem(f"number {n}", partial(make, secret=n)) for n in numbers]
    return split_task("guess_number", problems, n_test)
