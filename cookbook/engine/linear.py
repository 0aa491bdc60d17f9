"""The product the engine is made of: a frozen matrix with LoRA pairs beside it.

Owns: how a linear layer is multiplied, and its gradient. The adapter is always applied beside the
matrix, never merged into it: trainer and sampler then compute the same function in every number
format (rounding a merged bfloat16 matrix makes another model, 0.05 nats away on average), and a new
sampler costs nothing.
"""

from typing import Any

import torch

from cookbook.engine.lora import Adapter

# With this many rows or fewer, and for the unembedding with any number, CPUs multiply W @ x.T
# faster than x @ W.T, up to twice; the transposed result is used through a view.
FEW_ROWS = 256
WIDE = 8192


class Matrix:
    """A frozen matrix (out, in) that rows are multiplied by.

    Where the CPU multiplies bfloat16, oneDNN is two to four times as fast for few rows if the
    numbers lie in an order of its own, so they are kept in that order too.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values
        self._packed: torch.Tensor | None = None
        if values.dtype == torch.bfloat16 and values.device.type == "cpu" and multiplies_bfloat16():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(values, 1)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x @ values.T`` (N, out) for x (N, in), not necessarily contiguous."""
        if torch.is_grad_enabled() and x.requires_grad:
            return x @ self.values.T
        if self._packed is not None:
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")
        if len(x) <= FEW_ROWS or len(self.values) >= WIDE:
            return (self.values @ x.T).T
        return x @ self.values.T

    def added_product(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return ``y + x @ values.T`` without a gradient; y (N, out) may be overwritten."""
        if self._packed is not None:
            binary = torch.ops.mkldnn._linear_pointwise.binary
            return binary(x, y, self._packed, None, "add")
        return y.addmm_(x, self.values.T)


def multiplies_bfloat16() -> bool:
    """Return whether this CPU has instructions that multiply bfloat16 (AVX512_BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


class FixedAdapter:
    """An adapter that trains no further, so its pairs are made ready once."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._ready: dict[tuple[str, ...], tuple[Matrix, Matrix] | None] = {}

    def fused(self, paths: tuple[str, ...], dtype: torch.dtype) -> tuple[Matrix, Matrix] | None:
        """Return what `Adapter.fused` does, as matrices."""
        if paths not in self._ready:
            pair = self._adapter.fused(paths, dtype)
            self._ready[paths] = (Matrix(pair[0]), Matrix(pair[1])) if pair else None
        return self._ready[paths]


def project(
    x: torch.Tensor, matrix: Matrix, adapter: Adapter | FixedAdapter | None, *paths: str
) -> torch.Tensor:
    """Return ``x @ matrix.T`` plus the adapter's part for each of the fused `paths`.

    Args:
        x: (N, in).
        matrix: (sum of out widths, in).
        adapter: None leaves the base as it is.
        paths: module path of each fused part, in row order of `matrix`; an adapter has all of them
            or none.
    Returns:
        (N, sum of out widths), not necessarily contiguous.
    """
    if isinstance(adapter, FixedAdapter):
        if ready := adapter.fused(paths, x.dtype):
            a, b = ready
            return b.added_product(matrix.product(x), a.product(x))
    elif adapter and (pair := adapter.fused(paths, x.dtype)):
        return _Adapted.apply(x, matrix, *pair)
    return matrix.product(x)


class _Adapted(torch.autograd.Function):
    """``x @ matrix.T + (x @ a.T) @ b.T``, with gradients for x, a and b.

    Written out because autograd would keep and add every term at full size: here the low-rank part
    is added in place, forward and backward.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, matrix: Matrix, a: torch.Tensor, b: torch.Tensor
    ) -> torch.Tensor:
        low = x @ a.T
        ctx.matrix = matrix
        ctx.save_for_backward(x, low, a, b)
        return matrix.product(x).addmm_(low, b.T)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, low, a, b = ctx.saved_tensors
        (grad,) = grads
        grad_low = grad @ b
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ ctx.matrix.values).addmm_(grad_low, a)
        return grad_x, None, grad_low.T @ x, grad.T @ low
