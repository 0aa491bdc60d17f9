"""Attention: rotary positions, the packed form for training, the cached form for decoding.

Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with rotary positions (Su et al.
2021, arXiv:2104.09864). Letters: S segments, T queries, K keys, H heads.
"""

from typing import Any

import torch

from cookbook.engine.base import Layer, rms_norm
from cookbook.engine.config import DecoderConfig
from cookbook.engine.packing import AttentionGroup


class _Rotate(torch.autograd.Function):
    """Turns x (rows, heads, head_dim) by its rows' angles; the gradient turns back."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(cosines, sines)
        return _turn(x, cosines, sines)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cosines, sines = ctx.saved_tensors
        return _turn(grads[0], cosines, -sines), None, None


def _turn(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    cosines, sines = cosines[:, None], sines[:, None]
    turned = x * cosines
    turned[..., :half].addcmul_(x[..., half:], sines[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sines[..., half:])
    return turned


def rotated_heads(
    qkv: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    layer: Layer,
    config: DecoderConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split the fused projection into heads and turn queries and keys by their positions.

    A bias (Qwen 2) is added first; normalising each head (Qwen 3) comes before turning.

    Args:
        qkv: (rows, query_width + 2 * kv_width).
        cosines: (rows, head_dim) of the rows' angles; `sines` likewise.
        layer: the biases and norms that the architecture has.
        config: sizes.
    Returns:
        q (rows, H, head_dim), already divided by sqrt(head_dim); k, v (rows, kv_heads, head_dim).
    """
    if layer.qkv_bias is not None:
        qkv = qkv + layer.qkv_bias
    heads = qkv.unflatten(-1, (-1, config.head_dim))
    positional = config.heads + config.kv_heads
    turning = heads[:, :positional]
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = turning.split([config.heads, config.kv_heads], dim=1)
        eps = config.norm_eps
        turning = torch.cat([rms_norm(q, layer.q_norm, eps), rms_norm(k, layer.k_norm, eps)], dim=1)
    turned = _Rotate.apply(turning, cosines, sines)
    q, k = turned[:, : config.heads], turned[:, config.heads :]
    return q * config.head_dim**-0.5, k, heads[:, positional:]


def attend_group(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, group: AttentionGroup
) -> torch.Tensor:
    """Return the attention output (real rows of the group, H * head_dim).

    Plain batched products: for the short sequences of this engine their backward pass is faster
    on a CPU than the fused kernel's.
    """
    S, T = group.query_rows.shape
    queries = _gather_heads(q, group.query_rows, k.shape[1])  # (S * kv_heads, rep * T, head_dim)
    keys = _gather_heads(k, group.key_rows, k.shape[1])  # (S * kv_heads, K, head_dim)
    values = _gather_heads(v, group.key_rows, k.shape[1])
    scores = torch.bmm(queries, keys.transpose(1, 2))
    # In place: the product's own gradient does not read it, and it is the largest tensor here.
    scores.view(S, -1, T, keys.shape[1]).masked_fill_(group.hidden, float("-inf"))
    mixed = torch.bmm(scores.softmax(-1), values)
    mixed = mixed.view(S, q.shape[1], T, q.shape[-1]).transpose(1, 2)  # (S, T, H, head_dim)
    return mixed.reshape(S * T, -1).index_select(0, group.real_queries)


def _gather_heads(x: torch.Tensor, rows: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Gather x (N, heads, head_dim) by rows (S, T) into (S * kv_heads, rep * T, head_dim)."""
    S, T = rows.shape
    picked = x.flatten(1).index_select(0, rows.flatten())
    picked = picked.view(S, T, kv_heads, -1, x.shape[-1]).permute(0, 2, 3, 1, 4)
    return picked.reshape(S * kv_heads, -1, x.shape[-1])


GROWTH = 32  # positions by which the cache grows, each time copied


class KVCache:
    """Keys and values of running sequences, one slot each; slots 0..B-1 are in use.

    A layer's tensors are (slots * kv_heads, capacity, head_dim), so that the first B slots and the
    first K positions form one batched matrix product without copying. They are grown one by one:
    at most one layer is there twice.
    """

    def __init__(self, config: DecoderConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.config = config
        self.slots, self.capacity = 0, 0
        empty = torch.empty(0, 0, config.head_dim, dtype=dtype, device=device)
        self.keys, self.values = [empty] * config.layers, [empty] * config.layers

    def reserve(self, slots: int, capacity: int) -> None:
        """Grow so that `slots` sequences of `capacity` tokens fit; what is cached stays."""
        if slots <= self.slots and capacity <= self.capacity:
            return
        # Half as many again: requests join one by one, and each growth copies everything.
        slots = self.slots if slots <= self.slots else max(slots, self.slots * 3 // 2)
        capacity = max(self.capacity, -(-capacity // GROWTH) * GROWTH)
        shape = (slots * self.config.kv_heads, capacity, self.config.head_dim)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                tensors[layer] = old.new_zeros(shape)
                tensors[layer][: old.shape[0], : old.shape[1]] = old
        self.slots, self.capacity = slots, capacity

    def write_prompt(self, layer: int, slots: slice, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store keys and values (length, kv_heads, head_dim) at positions 0.. of all `slots`."""
        n = self.config.kv_heads
        for tensor, new in ((self.keys[layer], k), (self.values[layer], v)):
            by_slot = tensor.unflatten(0, (-1, n))
            by_slot[slots, :, : len(new)] = new.transpose(0, 1)

    def span(self, length: int) -> int:
        """Return how many positions to attend to, of which `length` are in use.

        Those of the whole cache lie in one piece, which a batched product reads as they are; fewer
        are copied first. The rest is zeros or leftovers, to be masked.
        """
        return self.capacity if self.capacity <= length * 3 // 2 else length

    def places(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where slots 0..B-1 keep `positions` (B,): rows and columns of a layer's tensor."""
        n = self.config.kv_heads
        rows = torch.arange(len(positions) * n, device=positions.device)
        return rows, positions.repeat_interleave(n)

    def append(
        self,
        layer: int,
        places: tuple[torch.Tensor, torch.Tensor],
        k: torch.Tensor,
        v: torch.Tensor,
        length: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store one new key and value (B, kv_heads, head_dim) per slot at its place.

        Returns:
            Keys and values (B * kv_heads, length, head_dim) of the first `length` positions.
        """
        rows, columns = places
        keys, values = self.keys[layer], self.values[layer]
        keys[rows, columns] = k.reshape(len(rows), -1)
        values[rows, columns] = v.reshape(len(rows), -1)
        return keys[: len(rows), :length], values[: len(rows), :length]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot over another."""
        n = self.config.kv_heads
        to, moved = slice(target * n, (target + 1) * n), slice(source * n, (source + 1) * n)
        for tensor in (*self.keys, *self.values):
            tensor[to, :length] = tensor[moved, :length]
