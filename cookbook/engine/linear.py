"""The product the engine is made of: a frozen matrix with LoRA pairs beside it.

Owns: how a linear layer is multiplied, and its gradient. The adapter is always applied beside the
matrix, never merged into it: trainer and sampler then compute the same function in every number
format (rounding a merged bfloat16 matrix makes another model, 0.05 nats away on average), and a new
sampler costs nothing.
"""

from collections.abc import Sequence
from typing import Any

import torch

from cookbook.engine.lora import Adapter

# With this many rows or fewer, and for the unembedding with any number, CPUs multiply W @ x.T
# faster than x @ W.T, up to twice; the transposed result is used through a view.
FEW_ROWS = 256
WIDE = 8192


def project(
    x: torch.Tensor, weight: torch.Tensor, adapter: Adapter | None, *paths: str
) -> torch.Tensor:
    """Return ``x @ weight.T`` plus the adapter's part for each of the fused `paths`.

    Args:
        x: (N, in).
        weight: (sum of out widths, in), frozen.
        adapter: None leaves the base as it is.
        paths: module path of each fused part, in row order of `weight`; an adapter has all of them
            or none.
    Returns:
        (N, sum of out widths), not necessarily contiguous.
    """
    pairs = [adapter.pairs[path] for path in paths if path in adapter.pairs] if adapter else []
    if not adapter or not pairs:
        return _product(x, weight)
    a = torch.cat([pair.a for pair in pairs]).to(x.dtype)
    bs = [pair.b.to(x.dtype) for pair in pairs]
    if torch.is_grad_enabled():
        return _Adapted.apply(x, weight, adapter.scale, a, *bs)
    return _add_low_rank(_product(x, weight), x @ a.T, adapter.scale, bs)


def _product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    if len(x) <= FEW_ROWS or len(weight) >= WIDE:
        return (weight @ x.T).T
    return x @ weight.T


def _add_low_rank(
    y: torch.Tensor, low: torch.Tensor, scale: float, bs: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Add ``scale * low_i @ b_i.T`` to the columns of y (N, out) that belong to each b_i, in place.

    `low` (N, parts * rank) holds ``x @ a_i.T`` of all parts side by side.
    """
    for y_i, low_i, b in zip(_columns(y, bs), low.chunk(len(bs), -1), bs, strict=True):
        y_i.addmm_(low_i, b.T, alpha=scale)
    return y


def _columns(y: torch.Tensor, bs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return y.split([len(b) for b in bs], dim=-1)


class _Adapted(torch.autograd.Function):
    """``x @ weight.T + scale * (x @ a.T) @ b.T``, with gradients for x, a and every b.

    Written out because autograd would keep and add every term at full size: here the low-rank parts
    are added in place, forward and backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        scale: float,
        a: torch.Tensor,
        *bs: torch.Tensor,
    ) -> torch.Tensor:
        low = x @ a.T
        ctx.scale = scale
        ctx.save_for_backward(x, low, weight, a, *bs)
        return _add_low_rank(_product(x, weight), low, scale, bs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, low, weight, a, *bs = ctx.saved_tensors
        (grad,) = grads
        parts = list(zip(_columns(grad, bs), low.chunk(len(bs), -1), bs, strict=True))
        grad_low = torch.cat([grad_i @ b for grad_i, _, b in parts], dim=-1).mul_(ctx.scale)
        grad_bs = [(grad_i.T @ low_i).mul_(ctx.scale) for grad_i, low_i, _ in parts]
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_low, a)
        return grad_x, None, None, grad_low.T @ x, *grad_bs
