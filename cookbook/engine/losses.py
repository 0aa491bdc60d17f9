"""Loss functions: one small function each, from log-probabilities to a sum over tokens.

Owns: formulas, required inputs and configuration keys. All are sums over tokens (never means), so
the caller decides about weighting. Letters, per target position: ``p`` the trained model's
log-probability, ``q`` the sampler's, ``A`` the advantage, ``w`` the weight (1 unless given),
``r = exp(p - q)``; ``low`` and ``high`` bound the ratio itself, so 0.8 and 1.2 are usual and 0.2 is
not. Source: the Tinker documentation, "Losses"; the paper behind each is named at its function.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from cookbook.engine.errors import UserError

# Each (P,) float32, aligned with the logprobs; `datum` (int64) numbers the datum of each position.
Inputs = Mapping[str, torch.Tensor]
Config = Mapping[str, float]
Ratio = Callable[[torch.Tensor, Inputs], torch.Tensor]
LOW, HIGH = "clip_low_threshold", "clip_high_threshold"


def token_ratio(p: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """Return r (P,)."""
    return (p - inputs["logprobs"]).exp()


def sequence_ratio(p: torch.Tensor, inputs: Inputs) -> torch.Tensor:
    """Return each datum's geometric mean of r over `sequence_ratio_mask`, with p's gradient (P,).

    A datum whose mask is 0 everywhere has the ratio 1.
    """
    datum, fixed = inputs["datum"], p.detach()
    masked = (inputs["sequence_ratio_mask"] != 0).to(p.dtype)
    sums = p.new_zeros(2, int(datum.max()) + 1)
    sums.index_add_(1, datum, torch.stack([masked, masked * (fixed - inputs["logprobs"])]))
    means = sums[1] / sums[0].clamp(min=1)
    return (means[datum] + p - fixed).exp()


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs.

    Attributes:
        formula: from logprobs (P,), inputs and configuration to the loss of each position (P,).
        required: the inputs besides the targets; `weights` is optional everywhere.
        trained: the input whose zeros mark positions without gradient.
        defaults: configuration keys and their values unless given; None must be given.
        ratio: from logprobs and inputs to what bounds apply to and metrics tell.
    """

    formula: Callable[[torch.Tensor, Inputs, Config], torch.Tensor]
    required: tuple[str, ...]
    trained: str
    defaults: Mapping[str, float | None] = field(default_factory=dict)
    ratio: Ratio = token_ratio


def cross_entropy(p: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """Return ``-w * p``; weights may be negative or fractional."""
    return -inputs["weights"] * p


def importance_sampling(p: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """Return ``-w * r * A``, whose gradient at ``p = q`` is that of REINFORCE.

    Source: Williams 1992 (REINFORCE) with the usual off-policy ratio; the ratio is not clipped.
    """
    return -inputs["weights"] * token_ratio(p, inputs) * inputs["advantages"]


def ppo(p: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """Return ``-w * min(r * A, clamp(r, low, high) * A)``.

    Source: Schulman et al. 2017 (PPO, arXiv:1707.06347), equation 7. A position whose ratio has
    already moved past its bound in the direction that A asks for has no gradient.
    """
    return _bounded(token_ratio(p, inputs), inputs, config)


def gspo(p: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """Return what `ppo` does with one ratio for all positions of a datum.

    Source: Zheng et al. 2025 (GSPO, arXiv:2507.18071), section 4.3, the variant in which each token
    keeps its own advantage and gradient. Its bounds are far tighter than those of ppo (the paper
    has 1 - 3e-4 and 1 + 4e-4), so they have no default.
    """
    return _bounded(sequence_ratio(p, inputs), inputs, config)


def _bounded(ratio: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    advantages = inputs["advantages"]
    clipped = ratio.clamp(config[LOW], config[HIGH])
    return -inputs["weights"] * torch.minimum(ratio * advantages, clipped * advantages)


def cispo(p: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """Return ``-w * stop_gradient(clamp(r, low, high)) * A * p``.

    Source: MiniMax-M1 2025 (CISPO, arXiv:2506.13585), equation 4. The ratio only weighs the
    gradient, so that every position keeps one.
    """
    ratio = token_ratio(p.detach(), inputs).clamp(config[LOW], config[HIGH])
    return -inputs["weights"] * ratio * inputs["advantages"] * p


def dro(p: torch.Tensor, inputs: Inputs, config: Config) -> torch.Tensor:
    """Return ``-w * (A * p - beta / 2 * (p - q)**2)``.

    Source: Richemond et al. 2024 (DRO, arXiv:2405.19107). The square pulls every position towards
    the sampler, those with A = 0 too: mask the prompt by weights of 0.
    """
    distance = p - inputs["logprobs"]
    gain = inputs["advantages"] * p - 0.5 * config["beta"] * distance.square()
    return -inputs["weights"] * gain


_RATIO_INPUTS = ("logprobs", "advantages")
LOSSES = {
    "cross_entropy": Loss(cross_entropy, ("weights",), "weights"),
    "importance_sampling": Loss(importance_sampling, _RATIO_INPUTS, "advantages"),
    "ppo": Loss(ppo, _RATIO_INPUTS, "advantages", {LOW: 0.8, HIGH: 1.2}),
    "gspo": Loss(
        gspo,
        (*_RATIO_INPUTS, "sequence_ratio_mask"),
        "advantages",
        {LOW: None, HIGH: None},
        sequence_ratio,
    ),
    "cispo": Loss(cispo, _RATIO_INPUTS, "advantages", {LOW: 0.0, HIGH: 4.0}),
    "dro": Loss(dro, _RATIO_INPUTS, "weights", {"beta": 0.05}),
}


@dataclass(frozen=True)
class LossCall:
    """A loss by name, with its complete configuration."""

    name: str
    config: Config

    @property
    def loss(self) -> Loss:
        """The loss itself."""
        return LOSSES[self.name]


def loss_call(name: str, given: Mapping[str, float]) -> LossCall:
    """Return the loss `name` configured with `given` over its defaults.

    Raises:
        UserError: an unknown loss or key, or bounds that cannot be meant.
    """
    if name not in LOSSES:
        raise UserError(f"loss_fn is {name!r}; this engine has {', '.join(sorted(LOSSES))}")
    defaults = LOSSES[name].defaults
    unknown = sorted({*given} - {*defaults})
    if unknown:
        allowed = f"takes {', '.join(defaults)}" if defaults else "takes no configuration"
        raise UserError(f"loss_fn_config has {', '.join(unknown)}; {name} {allowed}")
    known = {key: value for key, value in defaults.items() if value is not None}
    config = {**known, **given}
    if lacking := [key for key in defaults if key not in config]:
        raise UserError(f"loss_fn_config lacks {', '.join(lacking)}; {name} has no default for it")
    if LOW in config and not 0 <= config[LOW] <= 1 <= config[HIGH] < float("inf"):
        raise UserError(
            f"loss_fn_config bounds the ratio by {config[LOW]} and {config[HIGH]}; they are bounds "
            "of exp(p - q) itself, so 0 <= clip_low_threshold <= 1 <= clip_high_threshold"
        )
    if "beta" in config and not 0 <= config["beta"] < float("inf"):
        raise UserError(
            f"loss_fn_config beta is {config['beta']}; it must be finite and at least 0"
        )
    return LossCall(name, config)


def ratio_sums(call: LossCall, p: torch.Tensor, inputs: Inputs) -> dict[str, float]:
    """Return sums over the trained positions from which `ratio_metrics` makes means.

    Args:
        call: a loss; one without sampler log-probabilities has no such sums.
        p: (P,) log-probabilities, without a graph.
        inputs: the loss's inputs.
    """
    if "logprobs" not in inputs:
        return {}
    trained = (inputs["advantages"] * inputs["weights"]) != 0
    distance = (p - inputs["logprobs"])[trained]
    ratio = call.loss.ratio(p, inputs)[trained]
    sums = {"count": float(trained.sum()), "mean_ratio": float(ratio.sum())}
    sums["kl_div"] = float(-distance.sum())
    if LOW in call.config:
        outside = (ratio < call.config[LOW]) | (ratio > call.config[HIGH])
        sums["clipped_fraction"] = float(outside.sum())
    return sums


def ratio_metrics(sums: Mapping[str, float]) -> dict[str, float]:
    """Return the means of `ratio_sums` under the names that SDK programs read.

    `ppo_mean_ratio:mean` is the mean of r, `ppo_kl_div:mean` that of q - p (the sampled estimate of
    the divergence of the model from its sampler, in nats), `ppo_clipped_fraction:mean` the share of
    ratios outside the bounds; all over positions whose advantage and weight are not 0, and absent
    where there are none.
    """
    count = sums.get("count", 0.0)
    if not count:
        return {}
    return {f"ppo_{name}:mean": value / count for name, value in sums.items() if name != "count"}
