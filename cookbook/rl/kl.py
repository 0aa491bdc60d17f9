"""Pulling the policy towards another model: an edit of the advantages, not a term of the loss."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import tinker

from cookbook.rl.datums import Row
from cookbook.rl.episodes import Group
from cookbook.rl.shared_prompts import answer


class AdvantageEdit(Protocol):
    """Changes the advantages of a step's rows after the rewards and before the update."""

    def __call__(
        self, groups: Sequence[Group], rows_by_group: Sequence[Sequence[Row]]
    ) -> tuple[list[list[Row]], dict[str, float]]:
        """Return the rows of each group with new advantages, and what to log of it."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what tells this edit from another one; a run is only resumed with the same."""
        ...


async def reference_logprobs(reference: Any, rows: Sequence[Row]) -> list[np.ndarray]:
    """Return each row's log-probabilities (T,) under the reference, a sampling client.

    The first is 0, as nothing predicts the first token. Equal rows are asked for once.
    """
    keys = [tuple(row.tokens.tolist()) for row in rows]
    asked = {key: tinker.ModelInput.from_ints(list(key)) for key in keys}
    pending = [answer(reference.compute_logprobs(each)) for each in asked.values()]
    found = dict(zip(asked, await asyncio.gather(*pending), strict=True))
    return [np.array([0.0, *found[key][1:]], dtype=float) for key in keys]


def penalise_distance(
    rows: Sequence[Row],
    reference_logprobs_T: Sequence[np.ndarray],
    coefficient: float,
    discount: float = 0.0,
    centred: bool = True,
) -> tuple[list[Row], float]:
    """Return rows whose advantages prefer tokens nearer to the reference, and the mean distance.

    Formula: with ``d_t = q_t - ref_t`` on sampled tokens (q the sampler's log-probability) and its
    mean D over the whole batch, ``A_t += coefficient * x_t``, where ``x_t = D - d_t``, or with a
    discount g the sum of the ``g^k x_(t+k)`` still to come. D estimates KL(policy || reference) in
    nats per token. Subtracting it leaves the batch's mean advantage as it was (without a discount),
    so that the penalty says which tokens to prefer, not whether to sample more of everything.
    Source: the public tinker-cookbook's KL penalty; k1 of Schulman 2020, "Approximating KL
    Divergence".

    Args:
        rows: the batch.
        reference_logprobs_T: one array (T,) for each row.
        coefficient: 0.01 to 0.1 is usual.
        discount: 0 charges each token with its own distance alone.
        centred: False leaves D out, so that the penalty alone is the policy gradient of the KL:
            on-policy distillation (`cookbook.distillation`).
    """
    distances = [
        (row.logprobs - reference) * row.sampled
        for row, reference in zip(rows, reference_logprobs_T, strict=True)
    ]
    count = sum(int(row.sampled.sum()) for row in rows)
    mean = sum(float(d.sum()) for d in distances) / max(count, 1)
    edited = []
    for row, distance in zip(rows, distances, strict=True):
        excess = ((mean if centred else 0.0) - distance) * row.sampled
        change = coefficient * _to_come(excess, discount) * row.sampled
        edited.append(replace(row, advantages=row.advantages + change))
    return edited, mean


def _to_come(values: np.ndarray, discount: float) -> np.ndarray:
    """Return the discounted sum of each value and those after it (T,)."""
    if discount == 0:
        return values
    sums, total = np.empty_like(values), 0.0
    for t in reversed(range(len(values))):
        total = values[t] + discount * total
        sums[t] = total
    return sums
