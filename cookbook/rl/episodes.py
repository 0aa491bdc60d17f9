"""What playing an environment leaves behind: turns, episodes, groups."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from cookbook.rl.env import Problem, Reply
from cookbook.rows import Message

Ending = Literal["done", "max_turns", "max_tokens"]
"""Why an episode ended: the environment said so, or one of the player's limits was reached."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One reply, with the exact tokens that the sampler read and wrote."""

    prompt: Sequence[int]
    """All the model read before it answered."""
    tokens: Sequence[int]
    """What it sampled, the stop token included."""
    logprobs: Sequence[float]
    """The sampler's log-probability of each sampled token, in nats."""
    reply: Reply
    reward: float
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One environment played to its end."""

    messages: Sequence[Message]
    """The whole conversation, replies included."""
    opening: int
    """How many of them stood there before the first reply."""
    turns: Sequence[Turn]
    ending: Ending
    player: str = ""
    """Side of a game that it played, such as "X"; empty where there are no sides."""
    group_reward: float = 0.0
    """What comparing the group added to the reward."""

    @property
    def reward(self) -> float:
        """Sum of the turns' rewards and the group's part."""
        return sum(turn.reward for turn in self.turns) + self.group_reward

    @property
    def metrics(self) -> dict[str, float]:
        """Each metric of the environment, summed over the turns that report it."""
        found: dict[str, float] = {}
        for turn in self.turns:
            for name, value in turn.metrics.items():
                found[name] = found.get(name, 0.0) + value
        return found


@dataclass(frozen=True, kw_only=True)
class Group:
    """The episodes of one problem."""

    problem: Problem
    episodes: Sequence[Episode]
    """Those that were played to an end (E <= G)."""
    failures: Sequence[str] = field(default=())
    """For each of the others why not: "timeout: ..." or "error: ..."."""

    @cached_property
    def rewards(self) -> np.ndarray:
        """Reward of each episode (E,)."""
        return np.array([episode.reward for episode in self.episodes], dtype=float)
