"""Episodes to training rows, token for token as they were sampled.

A row of T tokens becomes a datum of N = T - 1 positions: position i holds token i and predicts
token i + 1. What the model did not sample (prompts, tool results, the other player) has mask,
log-probability and advantage 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tinker

from cookbook.rl.episodes import Episode, Group


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sequence to train on; all arrays are (T,)."""

    tokens: np.ndarray
    sampled: np.ndarray
    """Bool: which tokens the model sampled, hence which are trained."""
    logprobs: np.ndarray
    """The sampler's log-probability of each sampled token, in nats."""
    advantages: np.ndarray

    def datum(self) -> tinker.Datum:
        """Return what the server takes for the losses with a ratio; the mask stays here."""
        inputs = {
            "target_tokens": self.tokens,
            "logprobs": self.logprobs.astype(np.float32),
            "advantages": self.advantages.astype(np.float32),
        }
        return tinker.Datum(
            model_input=tinker.ModelInput.from_ints(self.tokens[:-1].tolist()),
            loss_fn_inputs={
                name: tinker.TensorData.from_numpy(values[1:]) for name, values in inputs.items()
            },
        )


def episode_rows(episode: Episode, advantage: float) -> list[Row]:
    """Return the rows of an episode, each sampled token with its advantage.

    A turn whose prompt continues the tokens before it joins their row, so that an episode costs one
    pass; where the history was rendered anew (a renderer that drops reasoning from it) the turn
    starts a row of its own, because its tokens were sampled after other ones.
    """
    runs: list[list[tuple[Sequence[int], Sequence[float] | None]]] = []
    seen: list[int] = []
    for turn in episode.turns:
        prompt = list(turn.prompt)
        if runs and prompt[: len(seen)] == seen:
            runs[-1].append((prompt[len(seen) :], None))
        else:
            runs.append([(prompt, None)])
        runs[-1].append((turn.tokens, turn.logprobs))
        seen = [*prompt, *turn.tokens]
    return [_row(run, advantage) for run in runs]


def _row(run: Sequence[tuple[Sequence[int], Sequence[float] | None]], advantage: float) -> Row:
    tokens = np.concatenate([np.asarray(part, dtype=np.int64) for part, _ in run])
    sampled = np.concatenate([np.full(len(part), own is not None) for part, own in run])
    logprobs = np.concatenate(
        [np.zeros(len(part)) if own is None else np.asarray(own, float) for part, own in run]
    )
    return Row(tokens=tokens, sampled=sampled, logprobs=logprobs, advantages=advantage * sampled)


def group_rows(group: Group, advantages_E: np.ndarray, keep_constant: bool = False) -> list[Row]:
    """Return the rows of a group's episodes (E); none if all advantages are 0.

    Args:
        group: its episodes.
        advantages_E: one for each of them.
        keep_constant: keep a group without any advantage, for a KL penalty still to come.
    """
    if not (advantages_E.any() or keep_constant):
        return []
    pairs = zip(group.episodes, advantages_E, strict=True)
    return [row for episode, advantage in pairs for row in episode_rows(episode, float(advantage))]
