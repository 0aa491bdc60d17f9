"""How good a policy is on problems it was never trained on, with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cookbook.analysis.intervals import mean_interval, wilson_interval
from cookbook.errors import ConfigError
from cookbook.rl.env import Problem
from cookbook.rl.episodes import Episode, Group
from cookbook.rl.rollouts import Player, play


@dataclass(frozen=True)
class Evaluation:
    """Episodes on held-out problems.

    Intervals take episodes as independent and so speak about these problems, not about all that
    could be posed.
    """

    groups: Sequence[Group]

    @property
    def episodes(self) -> list[Episode]:
        """All episodes, problem by problem."""
        return [episode for group in self.groups for episode in group.episodes]

    def rate(self, name: str = "correct") -> tuple[float, float, float]:
        """Return a 0-or-1 metric's mean and its 95% Wilson interval.

        Raises:
            ConfigError: no episode reports the metric.
        """
        values = self._values(name)
        if not values:
            raise ConfigError(f"no episode reports {name!r}; the environment's metrics have it not")
        hits = round(sum(values))
        return (fmean(values), *wilson_interval(hits, len(values)))

    def metrics(self, prefix: str = "test/env/all") -> dict[str, float]:
        """Return reward and metrics with their intervals, under the names of the run log."""
        rewards = [episode.reward for episode in self.episodes]
        found = _with_bounds(f"{prefix}/reward/total", rewards)
        names = sorted({name for episode in self.episodes for name in episode.metrics})
        for name in names:
            found |= _with_bounds(f"{prefix}/{name}", self._values(name))
        return {**found, f"{prefix}/total_episodes": float(len(rewards))}

    def told(self, name: str = "correct") -> str:
        """Return a sentence with the rate, its interval and n."""
        rate, low, high = self.rate(name)
        return f"{rate:.3f}, 95% {low:.3f} to {high:.3f}, n = {len(self._values(name))}"

    def _values(self, name: str) -> list[float]:
        """Return a metric of all episodes that report it."""
        return [e.metrics[name] for e in self.episodes if name in e.metrics]


def evaluate(
    player: Player, sampler: Any, problems: Sequence[Problem], samples: int, seed_key: str
) -> Evaluation:
    """Return `samples` episodes of each problem, played by the sampler; nothing is trained.

    Raises:
        ConfigError: no problems, or no episode could be played.
    """
    if not problems:
        raise ConfigError("nothing to evaluate on: the task has no held-out problems")
    evaluation = Evaluation(play(player, sampler, problems, samples, seed_key))
    if not evaluation.episodes:
        reasons = sorted({why for group in evaluation.groups for why in group.failures})
        raise ConfigError(f"no held-out episode could be played: {'; '.join(reasons[:3])}")
    return evaluation


def _with_bounds(name: str, values: Sequence[float]) -> dict[str, float]:
    found = {name: fmean(values)}
    if set(values) <= {0.0, 1.0}:
        low, high = wilson_interval(round(sum(values)), len(values))
    elif len(values) > 1:
        low, high = mean_interval(values)
    else:
        return found
    return {**found, f"{name}_ci95_low": low, f"{name}_ci95_high": high}
