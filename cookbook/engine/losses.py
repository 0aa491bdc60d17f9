"""Loss functions: one small function each, from log-probabilities to a sum over tokens.

Owns: formulas, required inputs and configuration keys. All are sums over tokens (never means), so
the caller decides about weighting. Letters, per target position: ``p`` the trained model's
log-probability, ``q`` the sampler's, ``A`` the advantage, ``w`` the weight, ``r = exp(p - q)``.
Source: the Tinker documentation, "Losses"; the paper behind each is named at its function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Inputs = Mapping[str, torch.Tensor]  # each (P,) float32, aligned with the logprobs


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs."""

    formula: Callable[[torch.Tensor, Inputs], torch.Tensor]
    required: tuple[str, ...]
    trained: str  # the input whose zeros mark positions without gradient


def cross_entropy(logprobs: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """Return ``-sum(w * p)``; weights may be negative or fractional."""
    return -(inputs["weights"] * logprobs).sum()


def importance_sampling(logprobs: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """Return ``-sum(r * A)``, whose gradient at ``p = q`` is that of REINFORCE.

    Source: Williams 1992 (REINFORCE) with the usual off-policy ratio; the ratio is not clipped.
    """
    ratio = (logprobs - inputs["logprobs"]).exp()
    return -(ratio * inputs["advantages"] * inputs["weights"]).sum()


LOSSES = {
    "cross_entropy": Loss(cross_entropy, ("weights",), "weights"),
    "importance_sampling": Loss(importance_sampling, ("logprobs", "advantages"), "advantages"),
}
