"""From hidden states to log-probabilities of chosen tokens, without keeping (N, V) twice.

Owns: the unembedding product and the one custom gradient of the engine.
"""

from typing import Any

import torch

from cookbook.engine.base import Weights
from cookbook.engine.linear import project
from cookbook.engine.lora import Adapter

NO_GRAD_ROWS = 256  # rows of logits held at once where no gradient is needed
VOCABULARY_CHUNK = 4096  # columns of logits worked on at once, so that they stay in the cache


def log_normalizers(logits: torch.Tensor) -> torch.Tensor:
    """Return the log of the summed exponentials (N,) of logits (N, V), without a copy of them."""
    tops = logits.amax(-1, keepdim=True)
    parts = logits.split(VOCABULARY_CHUNK, dim=-1)
    sums = torch.stack([(part - tops).exp_().sum(-1) for part in parts])
    return sums.sum(0).log() + tops[:, 0]


class _GatherLogprobs(torch.autograd.Function):
    """``log_softmax(logits)[rows, targets]`` whose backward pass reuses the logits' memory."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        log_norms = log_normalizers(logits)
        ctx.save_for_backward(logits, log_norms, rows, targets)
        return logits[rows, targets] - log_norms[rows]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits, log_norms, rows, targets = ctx.saved_tensors
        (grad,) = grads
        row_grads = torch.zeros_like(log_norms).index_add_(0, rows, grad)
        # Nobody reads the logits after this, so their memory becomes the gradient's.
        grad_logits = logits.detach()
        for part in grad_logits.split(VOCABULARY_CHUNK, dim=-1):
            part.sub_(log_norms[:, None]).exp_().mul_(-row_grads[:, None])
        grad_logits.index_put_((rows, targets), grad, accumulate=True)
        return grad_logits, None, None


def target_logprobs(
    weights: Weights,
    adapter: Adapter | None,
    hidden: torch.Tensor,
    rows: torch.Tensor,
    targets: torch.Tensor,
    needs_grad: torch.Tensor,
) -> torch.Tensor:
    """Return the log-probability (P,) of each target token given its row of hidden states.

    Args:
        weights: the frozen base.
        adapter: its pair for the unembedding is applied when there is one.
        hidden: (N, D).
        rows: (P,) int64, the row that predicts each target; rows may repeat.
        targets: (P,) int64 token ids.
        needs_grad: (P,) bool; the backward pass skips rows that no true entry points to.
    Returns:
        float32 log-probabilities at temperature 1; entries without `needs_grad` are constants.
    """
    result = hidden.new_zeros(len(rows), dtype=torch.float32)
    wanted = needs_grad & torch.is_grad_enabled()
    if bool(wanted.any()):
        used, local = rows[wanted].unique(return_inverse=True)
        logits = _logits(weights, adapter, hidden.index_select(0, used))
        result = result.index_put((wanted,), _GatherLogprobs.apply(logits, local, targets[wanted]))
    rest = torch.nonzero(~wanted)[:, 0]
    with torch.no_grad():
        fixed = constant_logprobs(weights, adapter, hidden, rows[rest], targets[rest])
    return result.index_put((rest,), fixed)


def constant_logprobs(
    weights: Weights,
    adapter: Adapter | None,
    hidden: torch.Tensor,
    rows: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Return `target_logprobs` without a graph, a few rows of logits at a time."""
    used, local = rows.unique(return_inverse=True)
    result = hidden.new_empty(len(rows), dtype=torch.float32)
    for start in range(0, len(used), NO_GRAD_ROWS):
        chunk = used[start : start + NO_GRAD_ROWS]
        logits = _logits(weights, adapter, hidden.index_select(0, chunk))
        here = torch.nonzero((local >= start) & (local < start + len(chunk)))[:, 0]
        index = local[here] - start
        result[here] = logits[index, targets[here]] - log_normalizers(logits)[index]
    return result


def _logits(weights: Weights, adapter: Adapter | None, hidden: torch.Tensor) -> torch.Tensor:
    return project(hidden, weights.unembedding, adapter, "lm_head").float()
