"""Off-policy distillation with the teacher's probabilities instead of its one sampled token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tinker

from cookbook.distillation.reading import aligned
from cookbook.errors import ConfigError, ServiceError
from cookbook.rl import Row


@dataclass(frozen=True)
class SoftTargets:
    """The teacher's K most likely tokens at each position of a row."""

    tokens: np.ndarray
    """(T, K) int64, the most likely first; 0 where nothing is trained."""
    probabilities: np.ndarray
    """(T, K), each trained position's sum to 1; 0 where nothing is trained."""
    covered: float
    """Mean share of the teacher's probability that its K tokens hold, before they were scaled."""


def soft_targets(
    teacher: Any, rows: Sequence[Row], k: int, readings: Sequence[Row] | None = None
) -> list[SoftTargets]:
    """Return the teacher's K most likely tokens at each trained position of each row.

    Args:
        teacher: a sampling client.
        rows: what the student is trained on; positions that were `sampled` are.
        k: K, at least 1; 20 is usual.
        readings: the same rows as the teacher reads them (`Reader.read`); None: the same prompts.
    Raises:
        ConfigError: k is below 1.
        ServiceError: the server returns no most likely tokens of a prompt.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; ask for at least 1 token at each position, usual is 20.")
    one = tinker.SamplingParams(max_tokens=1, temperature=0.0)
    keys = [tuple(reading.tokens.tolist()) for reading in readings or rows]
    pending = {
        key: teacher.sample(
            prompt=tinker.ModelInput.from_ints(list(key)),
            num_samples=1,
            sampling_params=one,
            include_prompt_logprobs=True,
            topk_prompt_logprobs=k,
        )
        for key in dict.fromkeys(keys)  # equal rows are asked for once
    }
    tables = {
        key: _checked(future.result().topk_prompt_logprobs) for key, future in pending.items()
    }
    return [_of_row(tables[key], row, k) for key, row in zip(keys, rows, strict=True)]


def soft_datum(row: Row, targets: SoftTargets) -> tinker.Datum:
    """Return the datum whose cross-entropy is that of the student to the teacher.

    Formula: ``L = -sum_t sum_k p_k log p_student(token_k | tokens before t)``, with the teacher's
    probabilities p scaled to sum 1. Up to the teacher's entropy, which does not depend on the
    student, it is the forward KL(teacher || student) restricted to the K tokens.
    Source: Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv:1503.02531,
        at temperature 1, with the K most likely tokens only.

    Args:
        row: T tokens.
        targets: its soft targets (T, K).
    Returns:
        N = T - 1 positions with K targets and weights each, (N, K).
    """
    tokens, weights = targets.tokens[1:], targets.probabilities[1:].astype(np.float32)
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(row.tokens[:-1].tolist()),
        loss_fn_inputs={
            "target_tokens": tinker.TensorData.from_numpy(np.ascontiguousarray(tokens)),
            "weights": tinker.TensorData.from_numpy(np.ascontiguousarray(weights)),
        },
    )


def _checked(table: Any) -> Any:
    if table is None:
        raise ServiceError(
            "This server returns no most likely tokens of a prompt (topk_prompt_logprobs), which "
            "soft targets are made of. Train on the teacher's samples, or on-policy: both need "
            "log-probabilities of given tokens only. The embedded engine has all three."
        )
    return table


def _of_row(table: Sequence[Any], row: Row, k: int) -> SoftTargets:
    """Return the table (T', of k pairs or None) at the tokens of the row."""
    shape = (len(table), k)
    tokens, logprobs = np.zeros(shape, np.int64), np.full(shape, -np.inf)
    for position, pairs in enumerate(table):
        for place, (token, logprob) in enumerate(pairs if pairs else []):
            tokens[position, place], logprobs[position, place] = token, logprob
    trained = row.sampled[:, None]
    tokens = aligned(tokens, row) * trained
    probabilities = np.exp(aligned(logprobs, row)) * trained
    held = probabilities.sum(axis=1, keepdims=True)
    if not (held[row.sampled] > 0).all():
        raise ServiceError(
            "This server left positions without most likely tokens (topk_prompt_logprobs). Soft "
            "targets need them wherever the student is trained; train on samples instead."
        )
    scaled = np.divide(probabilities, held, out=np.zeros_like(probabilities), where=held > 0)
    return SoftTargets(tokens, scaled, float(held[row.sampled].mean()))
