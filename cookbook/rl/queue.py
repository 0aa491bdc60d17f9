"""Rollouts ahead of training, by a bounded number of steps.

With staleness 0 a step samples from the weights it then trains. With k, the rollouts of step s are
started when the weights have had s - k updates, so that sampling and training overlap; a step never
trains on samples older than k. Each step's staleness is thus the same in every run that is not
interrupted; a resumed one, or one whose environments blocked, starts from fresh samples. *Left out*
compared with queues that hand over whatever is ready first: freshness would then depend on which
environments happen to be fast.
"""

from collections import deque
from collections.abc import Callable

from cookbook.rl.background import Background
from cookbook.rl.episodes import Group
from cookbook.rl.rollouts import Rollout

Start = Callable[[Background, int], Rollout]
"""From a step's number to its rollouts, played by the weights of now."""


class RolloutQueue:
    """The rollouts of the steps from `first_step` on, in order."""

    def __init__(self, start: Start, first_step: int, n_steps: int, max_staleness: int) -> None:
        self._start, self._n_steps, self._ahead = start, n_steps, max_staleness
        self._background = Background()
        self._next = first_step
        self._pending: deque[tuple[int, Rollout]] = deque()

    def take(self, step: int) -> tuple[list[Group], int]:
        """Return the rollouts of `step`, and how many updates ago their weights were current.

        Call it once for each step, when the weights have had exactly `step` updates.
        """
        while self._next <= min(step + self._ahead, self._n_steps - 1):
            self._pending.append((step, self._start(self._background, self._next)))
            self._next += 1
        sampled_at, rollout = self._pending.popleft()
        groups = rollout.groups()
        if self._background.blocked:
            self._begin_anew(step + 1)
        return groups, step - sampled_at

    def _begin_anew(self, step: int) -> None:
        """Leave a blocked loop behind, and all that was played ahead on it."""
        self.close()
        self._background, self._next = Background(), step
        self._pending.clear()

    def close(self) -> None:
        """Give up what is still being played."""
        self._background.close()
