"""AdamW for the tensors of an adapter.

Owns: both moments and the count of steps. `torch.optim.AdamW` computes the same, but its first use
imports the compiler, which takes longer than the first training step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cookbook.engine.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AdamSettings:
    """Settings of one optimiser step; defaults are the SDK's."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "learning_rate": (self.learning_rate, self.learning_rate >= 0, "at least 0"),
            "beta1": (self.beta1, 0 <= self.beta1 < 1, "in [0, 1)"),
            "beta2": (self.beta2, 0 <= self.beta2 < 1, "in [0, 1)"),
            "eps": (self.eps, self.eps >= 0, "at least 0"),
            "weight_decay": (self.weight_decay, self.weight_decay >= 0, "at least 0"),
            "grad_clip_norm": (self.grad_clip_norm, self.grad_clip_norm >= 0, "at least 0"),
        }
        for name, (value, fine, allowed) in checks.items():
            if not fine or not np.isfinite(value):
                raise UserError(f"adam_params.{name} is {value}; it must be finite and {allowed}")


class Adam:
    """The moments of some parameters, and their update."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self._squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, settings: AdamSettings) -> None:
        """Update every parameter that has a gradient.

        Source: Loshchilov & Hutter 2019 (AdamW, arXiv:1711.05101), algorithm 2.
        """
        self.steps += 1
        rate = settings.learning_rate
        mean_bias = 1 - settings.beta1**self.steps
        size_bias = (1 - settings.beta2**self.steps) ** 0.5
        for p, mean, square in zip(self._parameters, self._means, self._squares, strict=True):
            if p.grad is None:
                continue
            p.mul_(1 - rate * settings.weight_decay)
            mean.lerp_(p.grad, 1 - settings.beta1)
            square.mul_(settings.beta2).addcmul_(p.grad, p.grad, value=1 - settings.beta2)
            size = square.sqrt().div_(size_bias).add_(settings.eps)
            p.addcdiv_(mean, size, value=-rate / mean_bias)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the moments by parameter number; empty before the first step."""
        if not self.steps:
            return {}
        moments = {"exp_avg": self._means, "exp_avg_sq": self._squares}
        return {f"{i}.{key}": t for key, ts in moments.items() for i, t in enumerate(ts)}

    def restore(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Put back what `state` returned after so many steps."""
        for i, (mean, square) in enumerate(zip(self._means, self._squares, strict=True)):
            if state:
                mean.copy_(state[f"{i}.exp_avg"])
                square.copy_(state[f"{i}.exp_avg_sq"])
        self.steps = steps
