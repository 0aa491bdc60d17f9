"""Pairwise tournaments inside a group: an answer's reward is its wins minus its losses.

A preference says which of two answers is better, never how good one is. So the answers of a group
meet each other, and their rewards sum to 0: in a tournament nobody gets better on average. How good
a policy has become, `DuelEnv` measures against answers that stay the same. Letters: G answers to
one prompt, M matches.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Protocol

import numpy as np

from cookbook.errors import ConfigError
from cookbook.rl import Env, Problem, Reply, Step
from cookbook.rows import Conversation

Measure = Callable[[str], float]
"""A figure of an answer's text; it is logged and never rewarded."""


class Preference(Protocol):
    """Which of two answers to a prompt is better: a rule, a judge, a person.

    It should not care for the order: a swapped pair should have the opposite margin.
    """

    async def __call__(
        self, prompt: Conversation, pairs: Sequence[tuple[str, str]]
    ) -> Sequence[float]:
        """Return each pair's margin (M): from -1, the second is better, to 1, the first is."""
        ...


def matches(size: int, chunk_size: int = 4) -> list[tuple[int, int]]:
    """Return who meets whom (M) in a group of `size` answers: all pairs within each chunk.

    All pairs of a large group are many. So it is cut into chunks of nearly the same size, at most
    `chunk_size` (3 for a pair that would leave one alone); nobody is without a match unless the
    whole group is one answer.

    Example:
        >>> matches(3)
        [(0, 1), (0, 2), (1, 2)]
        >>> len(matches(8)), len(matches(8, chunk_size=8))
        (12, 28)

    Raises:
        ConfigError: `chunk_size` is below 2.
    Source: the chunks of the public tinker-cookbook's pairwise environment, which cuts off full
        ones, so that of 5 answers one would meet nobody.
    """
    if chunk_size < 2:
        raise ConfigError(f"chunk_size={chunk_size}: a match takes two answers; give at least 2")
    if size < 2:
        return []
    n_chunks = min(-(-size // chunk_size), size // 2)
    chunks = np.array_split(np.arange(size), n_chunks)
    return [(int(i), int(j)) for chunk in chunks for i, j in combinations(chunk, 2)]


def win_minus_loss(
    size: int, played: Sequence[tuple[int, int]], margins: Sequence[float]
) -> np.ndarray:
    """Return each answer's reward (G): the mean margin of its matches, 0 if it had none.

    Formula: with the margin m of a match of i and j, ``W_i += m``, ``W_j -= m``, and the reward is
    ``W_k / n_k`` for n_k matches. For margins of -1, 0 and 1 that is wins minus losses, as a share.
    Where all have the same number of matches, as within a chunk, the rewards sum to 0.

    Args:
        size: G.
        played: the matches (M), as indices of answers.
        margins: each match's margin (M), from -1 to 1, positive if the first won.
    """
    totals, counts = np.zeros(size), np.zeros(size)
    for (first, second), margin in zip(played, margins, strict=True):
        totals[[first, second]] += margin, -margin
        counts[[first, second]] += 1
    return totals / np.maximum(counts, 1)


@dataclass
class AnswerEnv:
    """One prompt, one answer; others of its group decide what it is worth.

    Reward: ``format_weight * (finished - 1)``: an answer that ran into the token limit pays for it,
    whatever its matches bring. Metrics: "format", whether it finished, and the measures.
    """

    prompt: Conversation
    format_weight: float = 1.0
    measures: Mapping[str, Measure] = field(default_factory=dict)

    async def start(self) -> Conversation:
        """Return the prompt."""
        return self.prompt

    async def step(self, reply: Reply) -> Step:
        """Measure the answer; the episode is over."""
        finished = float(reply.finished)
        measured = {name: float(measure(reply.text)) for name, measure in self.measures.items()}
        return Step(
            reward=self.format_weight * (finished - 1), metrics={"format": finished, **measured}
        )


@dataclass
class DuelEnv(AnswerEnv):
    """One answer against a fixed rival, such as the answer that the policy gave before training.

    Reward: 1 for a win, 0 for a loss, 0.5 for a tie, so that the mean is the win rate. Metrics:
    "win", the same, and those of `AnswerEnv`.
    """

    rival: str = field(kw_only=True)
    prefer: Preference = field(kw_only=True)

    async def step(self, reply: Reply) -> Step:
        """Compare the answer with the rival; the episode is over."""
        step = await super().step(reply)
        (margin,) = await self.prefer(self.prompt, [(reply.text, self.rival)])
        won = 0.5 + 0.5 * float(np.sign(margin))
        return replace(step, reward=won, metrics={**step.metrics, "win": won})


@dataclass(frozen=True, kw_only=True)
class Tournament(Problem):
    """A prompt whose G answers are compared with each other; make it with `tournament`."""

    prompt: Conversation
    prefer: Preference
    chunk_size: int = 4

    async def group_rewards(self, replies: Sequence[Sequence[Reply]]) -> Sequence[float]:
        """Return wins minus losses of each episode's last reply (E)."""
        answers = [turns[-1].text for turns in replies]
        played = matches(len(answers), self.chunk_size)
        pairs = [(answers[first], answers[second]) for first, second in played]
        margins = await self.prefer(self.prompt, pairs) if pairs else []
        return win_minus_loss(len(answers), played, margins).tolist()


def tournament(
    name: str,
    prompt: Conversation,
    prefer: Preference,
    *,
    chunk_size: int = 4,
    format_weight: float = 1.0,
    measures: Mapping[str, Measure] | None = None,
) -> Tournament:
    """Return the problem of answering a prompt better than the group's other answers do.

    Args:
        name: tells it apart from the task's other problems.
        prompt: messages up to the turn to be answered.
        prefer: compares two answers.
        chunk_size: at least 2, see `matches`.
        format_weight: what an answer pays that ran into the token limit, at least 0.
        measures: figures of every answer to be logged as `env/all/<name>`.
    """
    matches(chunk_size, chunk_size)  # a bad size is refused before anything is sampled

    def make_env() -> Env:
        return AnswerEnv(prompt, format_weight, measures or {})

    return Tournament(
        name=name, make_env=make_env, prompt=prompt, prefer=prefer, chunk_size=chunk_size
    )


def question(
    name: str, prompt: Conversation, measures: Mapping[str, Measure] | None = None
) -> Problem:
    """Return the problem of answering a prompt, with nobody to beat; measures are logged."""
    return Problem(name, lambda: AnswerEnv(prompt, measures=measures or {}))


def duel(
    name: str,
    prompt: Conversation,
    rival: str,
    prefer: Preference,
    *,
    measures: Mapping[str, Measure] | None = None,
) -> Problem:
    """Return the problem of answering a prompt better than a fixed rival's answer; for win rates.

    Args:
        name: tells it apart from the task's other problems.
        prompt: messages up to the turn to be answered.
        rival: the answer to beat.
        prefer: compares two answers.
        measures: figures of every answer to be logged as `test/env/all/<name>`.
    """
    return Problem(
        name, lambda: DuelEnv(prompt, measures=measures or {}, rival=rival, prefer=prefer)
    )
