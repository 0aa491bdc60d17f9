"""Guess the number: a program keeps a number, and says whether it is higher or lower."""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

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


def _asked(said: str, low: int, high: int) -> list[Message]:
    """Return all that a turn needs: the keeper's answer, and what is left."""
    return [
        {"role": "system", "content": "Guess my number. Reply with a number."},
        {"role": "user", "content": f"{said.capitalize()}, {low} to {high}."},
    ]


@dataclass
class GuessNumberEnv:
    """One number to be found.

    After each guess the keeper says higher or lower, and what is left: "Higher, 9 to 16." That is
    all that matters of the game so far, hence each turn is a fresh prompt.

    Reward: ``1 - (turns - 1) / max_turns`` for finding it, 0 otherwise, all of it in the last turn.
    A guess that is no number, or that was ruled out before, is a turn wasted.
    """

    secret: int
    highest: int
    max_turns: int
    turns: int = 0
    low: int = 1
    high: int = field(init=False)

    def __post_init__(self) -> None:
        self.high = self.highest

    async def start(self) -> Sequence[Message]:
        """Say what is asked for."""
        return _asked("start", self.low, self.high)

    async def step(self, reply: Reply) -> Step:
        """Answer a guess."""
        self.turns += 1
        guess = parse_guess(reply.text)
        said = judge(self.secret, self.highest, guess)
        wasted = guess is None or not self.low <= guess <= self.high
        metrics = {"illegal": float(said == NO_NUMBER), "wasted": float(wasted)}
        if said != "right" and self.turns < self.max_turns:
            if guess is not None and not wasted:
                self.low, self.high = _left(self.low, self.high, guess, said)
            asked = _asked(said, self.low, self.high)
            return Step(done=False, messages=asked, forget=True, metrics=metrics)
        found = said == "right"
        reward = 1 - (self.turns - 1) / self.max_turns if found else 0.0
        return Step(reward=reward, metrics={**metrics, "correct": float(found)})


def _left(low: int, high: int, guess: int, said: str) -> tuple[int, int]:
    return (guess + 1, high) if said == "higher" else (low, guess - 1)


def guess_number_turns(
    secret: int, highest: int, max_turns: int, choose: Callable[[int, int], int]
) -> list[list[Message]]:
    """Return the turns of a game that a program plays, each an example conversation.

    Args:
        secret: the hidden number.
        highest: numbers from 1 to this one.
        max_turns: guesses at most.
        choose: from the ends of what is left to a guess, from 1 to `highest`.
    """
    turns, said, low, high = list[list[Message]](), "start", 1, highest
    while said != "right" and len(turns) < max_turns:
        guess = choose(low, high)
        turns.append([*_asked(said, low, high), {"role": "assistant", "content": str(guess)}])
        said = judge(secret, highest, guess)
        if low <= guess <= high and said != "right":
            low, high = _left(low, high, guess, said)
    return turns


def guess_number_task(*, highest: int, max_turns: int, seed: int) -> Task:
    """Return the numbers 1 to `highest` to be guessed, all of them to train on and to measure on.

    None is held out, since a player that sees answers only can't remember the hidden one. Were some
    never hidden in training, it would learn to leave them out, and be measured by just these.

    Args:
        highest: at least 2.
        max_turns: guesses that an episode allows, at least 1.
        seed: of the order.

    Raises:
        ConfigError: the numbers or the turns are too few.
    """
    if highest < 2 or max_turns < 1:
        raise ConfigError(
            f"highest={highest}, max_turns={max_turns}: at least 2 and 1, or there is no game."
        )
    numbers = random.Random(f"guess the number, seed {seed}").sample(range(1, highest + 1), highest)
    make = partial(GuessNumberEnv, highest=highest, max_turns=max_turns)
    train, test = (
        [Problem(f"{when} number {n}", partial(make, secret=n)) for n in numbers]
        for when in ("train", "test")
    )
    return Task("guess_number", train, test)
