"""From rewards to advantages: how much better an episode was than its siblings.

Rewards come as P groups of up to G episodes each. An episode's advantage multiplies the gradient of
all its sampled tokens, so a group of equal rewards, whose advantages are all 0, teaches nothing.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from cookbook.errors import ConfigError
from cookbook.rl.episodes import Group

Baseline = Literal["group_mean", "leave_one_out", "group_normalised"]


def group_advantages(
    rewards_P_G: Sequence[Sequence[float] | np.ndarray], baseline: Baseline = "group_mean"
) -> list[np.ndarray]:
    """Return the advantages (P, G) of rewards (P, G); groups may differ in size.

    Args:
        rewards_P_G: any unit; a group may be empty.
        baseline: what is subtracted, and what the difference is divided by.
            "group_mean": ``A_i = r_i - mean(r)``. The default. Dividing by the deviation, as the
            first paper on groups does, gives a nearly solved or nearly hopeless problem the weight
            of a half-solved one (Liu et al. 2025, arXiv:2503.20783, section 3.1).
            "leave_one_out": ``A_i = r_i - mean of the others``, G/(G-1) times the above, which
            makes the baseline independent of the sample (RLOO, Ahmadian et al. 2024,
            arXiv:2402.14740, equation 9).
            "group_normalised": ``A_i = (r_i - mean(r)) / std(r)`` (GRPO, Shao et al. 2024,
            arXiv:2402.03300, section 4.1.2); 0 where all rewards are equal.
    Returns:
        An array for each group; every group sums to 0. A group of one has no sibling to be compared
        with, so its advantage is 0.
    Raises:
        ConfigError: unknown baseline, or a reward that is not finite.
    """
    if baseline not in get_args(Baseline):
        raise ConfigError(f"baseline is {baseline!r}; allowed: {', '.join(get_args(Baseline))}")
    return [_one_group(np.asarray(rewards, dtype=float), baseline) for rewards in rewards_P_G]


def episode_advantages(
    groups: Sequence[Group], baseline: Baseline = "group_mean"
) -> list[np.ndarray]:
    """Return the advantages (P, E) of groups of episodes, each compared with its own kind.

    Its kind are the episodes of its group; in a game, those of its group that played the same side.
    Whoever moves first wins more often: a baseline of both sides would credit that to every move
    of the first and blame it on every move of the second.

    Args:
        groups: P groups of up to G episodes.
        baseline: see `group_advantages`.
    """
    return [_by_player(group, baseline) for group in groups]


def _by_player(group: Group, baseline: Baseline) -> np.ndarray:
    players = np.array([episode.player for episode in group.episodes])
    advantages = np.zeros(len(players))
    for player in np.unique(players):
        own = players == player
        advantages[own] = group_advantages([group.rewards[own]], baseline)[0]
    return advantages


def _one_group(rewards_G: np.ndarray, baseline: Baseline) -> np.ndarray:
    if not np.isfinite(rewards_G).all():
        raise ConfigError(f"rewards are {rewards_G.tolist()}; all must be finite numbers")
    # Equal rewards give exactly 0: their mean may differ from them in the last bit.
    if len(rewards_G) < 2 or (rewards_G == rewards_G[0]).all():
        return np.zeros(len(rewards_G))
    centred = rewards_G - rewards_G.mean()
    if baseline == "leave_one_out":
        return centred * len(centred) / (len(centred) - 1)
    if baseline == "group_normalised":
        return centred / rewards_G.std()
    return centred
