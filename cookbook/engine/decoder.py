"""The forward pass of a Llama-family decoder, for training and for cached decoding.

Owns: the arithmetic from token ids to final hidden states. Both passes share every layer function;
they differ only in how attention finds its keys:

* `forward_packed` computes many sequences of different lengths as one flat batch of `N` rows
  (see `packing`), with or without LoRA, and can hand out the keys and values for decoding;
* `decode_step` computes one new token for each of `B` running sequences from a `KVCache`.

Architecture: Touvron et al. 2023 (arXiv:2302.13971).
Letters: N rows, B sequences, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from cookbook.engine.attention import KVCache, attend_group, rotated_heads
from cookbook.engine.base import Weights, rms_norm
from cookbook.engine.linear import FixedAdapter, project
from cookbook.engine.lora import Adapter
from cookbook.engine.packing import PackedBatch

# Called per layer with its number and the keys and values (N, kv_heads, head_dim) of all rows.
KeyValueSink = Callable[[int, torch.Tensor, torch.Tensor], None]


def embed(weights: Weights, tokens: torch.Tensor) -> torch.Tensor:
    """Return the residual stream's start (N, D), in float32 whatever the weights are.

    A few residual values of real models are in the tens of thousands, where bfloat16 counts in
    steps of 128: kept in bfloat16, the stream itself would be the largest error by far.
    """
    return F.embedding(tokens, weights.embedding).float()


class _Gated(torch.autograd.Function):
    """``silu(gate) * up``; keeps only its input, the widest activation of a layer."""

    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        grad_gate = torch.ops.aten.silu_backward(grads[0] * up, gate)
        return torch.cat([grad_gate, F.silu(gate).mul_(grads[0])], dim=-1)


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """Return ``silu(gate) * up`` (Shazeer 2020, arXiv:2002.05202) from the fused halves."""
    return _Gated.apply(gate_up)


# Stores a layer's new keys and values and mixes values: (layer, q, k, v) -> (N, query_width).
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def forward(
    weights: Weights,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    adapter: Adapter | FixedAdapter | None,
    attend: Attend,
) -> torch.Tensor:
    """Return the final hidden states (N, D) of N tokens at their positions; `attend` says how."""
    config = weights.config
    dtype = weights.embedding.dtype
    cosines, sines = weights.cosines[positions].to(dtype), weights.sines[positions].to(dtype)
    x = embed(weights, tokens)
    for i, layer in enumerate(weights.layers):
        attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        h = rms_norm(x, layer.attention_norm, config.norm_eps)
        h = project(h, layer.qkv, adapter, *(f"{attention}.{name}_proj" for name in "qkv"))
        h = attend(i, *rotated_heads(h, cosines, sines, layer, config))
        x = x + project(h, layer.output, adapter, f"{attention}.o_proj")
        h = rms_norm(x, layer.mlp_norm, config.norm_eps)
        h = project(h, layer.gate_up, adapter, f"{mlp}.gate_proj", f"{mlp}.up_proj")
        x = x + project(gated(h), layer.down, adapter, f"{mlp}.down_proj")
    return rms_norm(x, weights.final_norm, config.norm_eps)


def forward_packed(
    weights: Weights,
    batch: PackedBatch,
    adapter: Adapter | FixedAdapter | None = None,
    sink: KeyValueSink | None = None,
) -> torch.Tensor:
    """Return the final hidden states (N, D) of all packed rows.

    Args:
        weights: the frozen base.
        batch: rows, positions and who may attend to whom.
        adapter: LoRA pairs to apply (and differentiate) on top of the weights.
        sink: receives each layer's keys and values, to fill a `KVCache`.
    """

    def attend(i: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if sink:
            sink(i, k, v)
        return torch.cat([attend_group(q, k, v, group) for group in batch.groups])

    return forward(weights, batch.tokens, batch.positions, adapter, attend)


def decode_step(
    weights: Weights,
    cache: KVCache,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    adapter: Adapter | FixedAdapter | None = None,
) -> torch.Tensor:
    """Return the hidden states (B, D) of one new token per running sequence.

    Args:
        weights: the frozen base.
        cache: slots 0..B-1 hold positions before `positions`; this step adds one.
        tokens: (B,) the newest token of each sequence.
        positions: (B,) its position.
        adapter: LoRA pairs to apply on top of the weights.
    """
    K = cache.span(int(positions.max()) + 1)
    places = cache.places(positions)
    later = torch.arange(K, device=weights.device)[None] > positions[:, None]  # (B, K)

    def attend(i: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        keys, values = cache.append(i, places, k, v, K)
        scores = torch.bmm(q.reshape(len(keys), -1, q.shape[-1]), keys.transpose(1, 2))
        scores.view(len(tokens), -1, K).masked_fill_(later[:, None], float("-inf"))
        return torch.bmm(scores.softmax(-1), values).view(len(tokens), -1)

    return forward(weights, tokens, positions, adapter, attend)
