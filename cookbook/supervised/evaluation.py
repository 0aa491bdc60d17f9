"""How well a model predicts given conversations: NLL and bits per byte, with an interval.

Computed from the log-probabilities alone, which every server returns. Shape: E examples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tinker

from cookbook.errors import ConfigError

DATUMS_PER_REQUEST = 16
"""Bounds the server's memory; requests are queued together, so waiting adds nothing."""
Z_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Losses on E held-out examples, summed over the trained tokens of each."""

    loss_sums: list[float]
    """Negative log-likelihood of each example (E,), in nats."""
    n_tokens: list[int]
    """Trained tokens of each example (E,)."""
    n_bytes: int
    """UTF-8 bytes of all scored tokens, control tokens not counted."""
    byte_loss_sum: float
    """Negative log-likelihood of those tokens, in nats."""

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood per trained token, in nats."""
        return sum(self.loss_sums) / sum(self.n_tokens)

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte; unlike the NLL comparable between tokenizers."""
        return self.byte_loss_sum / (math.log(2) * self.n_bytes) if self.n_bytes else math.nan

    @property
    def margin(self) -> float:
        """Half width of the 95% interval of `nll`; examples are the independent units (E)."""
        residuals = np.array(self.loss_sums) - self.nll * np.array(self.n_tokens)
        return _half_width(residuals, sum(self.n_tokens))

    def minus(self, before: "Evaluation") -> tuple[float, float]:
        """Return (change of NLL since `before`, half width of its 95% interval).

        The same examples are compared with themselves, which takes their different difficulty out.

        Raises:
            ConfigError: `before` was measured on other examples.
        """
        if self.n_tokens != before.n_tokens:
            raise ConfigError("Two evaluations can be compared on the same examples only.")
        differences = np.array(self.loss_sums) - np.array(before.loss_sums)
        change = self.nll - before.nll
        residuals = differences - change * np.array(self.n_tokens)
        return change, _half_width(residuals, sum(self.n_tokens))

    def metrics(self, prefix: str = "test/") -> dict[str, float]:
        """Return the figures under the names of the run log."""
        return {
            f"{prefix}nll": self.nll,
            f"{prefix}nll_margin": self.margin,
            f"{prefix}bpb": self.bits_per_byte,
        }


def evaluate_nll(client: Any, datums: Sequence[tinker.Datum], tokenizer: Any) -> Evaluation:
    """Return the losses of `client`'s model on datums (E,); nothing is trained.

    Args:
        client: a training client (one forward pass) or a sampling client.
        datums: from `build_datums`; a target is scored if its weight is positive.
        tokenizer: the model's, to count bytes.
    Raises:
        ConfigError: no datums.
    """
    if not datums:
        raise ConfigError("Nothing to evaluate on: got no datums. Set n_test to 1 or more.")
    rows = [
        (logprobs, *_targets_and_mask(datum))
        for logprobs, datum in zip(target_logprobs(client, datums), datums, strict=True)
    ]
    special = list(tokenizer.all_special_ids)
    texts = [mask & ~np.isin(targets, special) for _, targets, mask in rows]
    return Evaluation(
        loss_sums=[-float(logprobs[mask].sum()) for logprobs, _, mask in rows],
        n_tokens=[int(mask.sum()) for _, _, mask in rows],
        n_bytes=sum(
            count_bytes(tokenizer, targets, text)
            for (_, targets, _), text in zip(rows, texts, strict=True)
        ),
        byte_loss_sum=-sum(
            float(logprobs[text].sum()) for (logprobs, _, _), text in zip(rows, texts, strict=True)
        ),
    )


def count_bytes(tokenizer: Any, tokens: np.ndarray, mask: np.ndarray) -> int:
    """Return the UTF-8 bytes of the runs of tokens (N,) where mask (N,) holds."""
    bounds = np.flatnonzero(np.diff(mask.astype(int), prepend=0, append=0))
    runs = [tokens[start:end].tolist() for start, end in bounds.reshape(-1, 2)]
    return sum(len(tokenizer.decode(run).encode()) for run in runs)


def weighted_nll(outputs: Sequence[Any], datums: Sequence[tinker.Datum]) -> float:
    """Return -Σ weight · logprob / Σ weight over a batch, in nats per token.

    With weights from `datum_from_tokens(..., reduction="mean")` this is the mean over examples of
    their mean NLL.
    """
    logprobs = np.concatenate([np.asarray(output["logprobs"].data) for output in outputs])
    weights = np.concatenate([np.asarray(d.loss_fn_inputs["weights"].data) for d in datums])
    return -float(logprobs @ weights) / float(weights.sum())


def target_logprobs(client: Any, datums: Sequence[tinker.Datum]) -> list[np.ndarray]:
    """Return the log-probability of each target, (N,) for each datum; nothing is trained.

    Args:
        client: a training client (one forward pass) or a sampling client.
        datums: with "target_tokens" (N,).
    """
    if hasattr(client, "forward"):
        starts = range(0, len(datums), DATUMS_PER_REQUEST)
        chunks = [list(datums[start : start + DATUMS_PER_REQUEST]) for start in starts]
        futures = [client.forward(chunk, "cross_entropy") for chunk in chunks]
        outputs = [out for future in futures for out in future.result().loss_fn_outputs]
        return [np.asarray(output["logprobs"].data) for output in outputs]
    futures = [client.compute_logprobs(whole_input(datum)) for datum in datums]
    return [np.asarray(future.result()[1:], dtype=float) for future in futures]


def whole_input(datum: tinker.Datum) -> tinker.ModelInput:
    """Return all tokens (N + 1) of a datum: its inputs and the last target."""
    last = datum.loss_fn_inputs["target_tokens"].data[-1]
    return tinker.ModelInput.from_ints([*datum.model_input.to_ints(), int(last)])


def _targets_and_mask(datum: tinker.Datum) -> tuple[np.ndarray, np.ndarray]:
    inputs = datum.loss_fn_inputs
    return np.asarray(inputs["target_tokens"].data), np.asarray(inputs["weights"].data) > 0


def _half_width(residuals: np.ndarray, n_tokens: int) -> float:
    """Return 1.96 standard errors of a ratio of sums (linearised; unit: the examples)."""
    if len(residuals) < 2:
        return math.nan
    variance = len(residuals) / (len(residuals) - 1) * float(residuals @ residuals)
    return Z_95 * math.sqrt(variance) / n_tokens
