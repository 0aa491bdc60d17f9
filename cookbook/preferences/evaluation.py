"""What a policy makes of comparisons: how it ranks their answers, and how far it has moved.

Shape: E pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cookbook.analysis.intervals import wilson_interval
from cookbook.preferences.loss import PairLoss, dpo_loss
from cookbook.preferences.reference import PairLogprobs, sums

ROUNDING_NATS = 1e-3
"""Two answers whose log-ratios are nearer than this are a tie: servers round in float32."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Log-probabilities of E pairs under a policy and its reference."""

    policy: Sequence[PairLogprobs]
    """Of each answer token under the policy (E)."""
    reference: Sequence[PairLogprobs]
    """The same under the reference (E)."""
    beta: float
    """Reward per nat of log-ratio."""
    pair_loss: PairLoss = dpo_loss
    """The loss that is trained."""

    @property
    def logprobs(self) -> np.ndarray:
        """Summed log-probabilities under the policy (E, 2): chosen, rejected; in nats."""
        return np.array(sums(self.policy))

    @property
    def rewards(self) -> np.ndarray:
        """Implicit rewards (E, 2): beta (log p(policy) - log p(reference)) of chosen, rejected.

        Source: Rafailov et al. 2023 (arXiv:2305.18290), section 4.
        """
        return self.beta * (self.logprobs - np.array(sums(self.reference)))

    @property
    def ranked(self) -> np.ndarray:
        """Whether the policy finds the chosen answer likelier than the rejected one (E,)."""
        return self.logprobs[:, 0] > self.logprobs[:, 1]

    @property
    def accuracy(self) -> float:
        """Share of pairs whose chosen answer has the larger implicit reward; a tie counts half."""
        margins = self.rewards @ [1, -1]
        ties = np.abs(margins) < self.beta * ROUNDING_NATS
        return float(np.where(ties, 0.5, margins > 0).mean())

    @property
    def loss(self) -> float:
        """Mean loss of the pairs."""
        import torch

        chosen, rejected = torch.tensor(self.logprobs.T)
        reference_chosen, reference_rejected = torch.tensor(np.array(sums(self.reference)).T)
        losses = self.pair_loss(chosen, rejected, reference_chosen, reference_rejected, self.beta)
        return float(losses.mean())

    @property
    def implicit_kl(self) -> float:
        """Half the mean square of log p(policy) - log p(reference) per answer token, in nats.

        To second order this is the KL divergence, *implicit* in that it needs no samples; but it is
        taken on the answers of the data, not on the policy's own.
        Source: k2 of Schulman 2020, "Approximating KL Divergence".
        """
        differences = [
            policy - reference
            for now, then in zip(self.policy, self.reference, strict=True)
            for policy, reference in zip(now, then, strict=True)
        ]
        return float(np.square(np.concatenate(differences)).mean() / 2)

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Return all figures under the names of the run log."""
        chosen, rejected = self.logprobs.mean(axis=0)
        chosen_reward, rejected_reward = self.rewards.mean(axis=0)
        n_ranked, n = int(self.ranked.sum()), len(self.policy)
        low, high = wilson_interval(n_ranked, n)
        found = {
            "dpo_loss": self.loss,
            "accuracy": self.accuracy,
            "margin": chosen_reward - rejected_reward,
            "chosen_reward": chosen_reward,
            "rejected_reward": rejected_reward,
            "chosen_logprob": chosen,
            "rejected_logprob": rejected,
            "ranking_accuracy": n_ranked / n,
            "ranking_accuracy_ci95_low": low,
            "ranking_accuracy_ci95_high": high,
            "implicit_kl": self.implicit_kl,
        }
        return {f"{prefix}{name}": float(value) for name, value in found.items()}
