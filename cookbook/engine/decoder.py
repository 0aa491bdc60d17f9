"""The forward pass of a Llama-family decoder, for training and for cached decoding.

Owns: the frozen weights in fused form, and the arithmetic from token ids to logits. Both passes
share every layer function; they differ only in how attention finds its keys:

* `forward_packed` computes many sequences of different lengths as one flat batch of `N` rows
  (see `packing`), with or without LoRA, and can hand out the keys and values for decoding;
* `decode_step` computes one new token for each of `B` running sequences from a `KVCache`.

Architecture: Touvron et al. 2023 (arXiv:2302.13971), with grouped-query attention (Ainslie et al.
2023, arXiv:2305.13245) and rotary positions (Su et al. 2021, arXiv:2104.09864).
Letters: N rows, B sequences, T queries, K keys, D width, H heads, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from cookbook.engine.config import DecoderConfig
from cookbook.engine.lora import Adapter
from cookbook.engine.packing import AttentionGroup, PackedBatch

# Called per layer with its number and the keys and values (N, kv_heads * head_dim) of all rows.
KeyValueSink = Callable[[int, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class Layer:
    """One block's frozen weights; projections that read the same input are one matrix."""

    attention_norm: torch.Tensor  # (D,)
    qkv: torch.Tensor  # (query_width + 2 * kv_width, D)
    output: torch.Tensor  # (D, query_width)
    mlp_norm: torch.Tensor  # (D,)
    gate_up: torch.Tensor  # (2 * mlp_width, D)
    down: torch.Tensor  # (D, mlp_width)


@dataclass(frozen=True)
class Weights:
    """A whole model: base weights, or base weights with an adapter merged in."""

    config: DecoderConfig
    embedding: torch.Tensor  # (V, D)
    layers: list[Layer]
    final_norm: torch.Tensor  # (D,)
    unembedding: torch.Tensor  # (V, D), the embedding itself when tied
    cosines: torch.Tensor  # (context, head_dim) float32
    sines: torch.Tensor  # (context, head_dim) float32

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embedding.device


def load_weights(folder: Path, config: DecoderConfig, dtype: torch.dtype, device: str) -> Weights:
    """Read `model.safetensors` (or its shards) of a model folder into fused matrices."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(file)

    def take(name: str) -> torch.Tensor:
        return tensors.pop(name).to(device=device, dtype=dtype)

    def fuse(prefix: str, *names: str) -> torch.Tensor:
        return torch.cat([take(f"{prefix}.{name}.weight") for name in names])

    layers = []
    for i in range(config.layers):
        block = f"model.layers.{i}"
        layers.append(
            Layer(
                attention_norm=take(f"{block}.input_layernorm.weight"),
                qkv=fuse(f"{block}.self_attn", "q_proj", "k_proj", "v_proj"),
                output=take(f"{block}.self_attn.o_proj.weight"),
                mlp_norm=take(f"{block}.post_attention_layernorm.weight"),
                gate_up=fuse(f"{block}.mlp", "gate_proj", "up_proj"),
                down=take(f"{block}.mlp.down_proj.weight"),
            )
        )
    embedding = take("model.embed_tokens.weight")
    cosines, sines = rotary_tables(config, device)
    return Weights(
        config=config,
        embedding=embedding,
        layers=layers,
        final_norm=take("model.norm.weight"),
        unembedding=embedding if config.tied else take("lm_head.weight"),
        cosines=cosines,
        sines=sines,
    )


def merge(base: Weights, adapter: Adapter) -> Weights:
    """Return `base` with ``scale * B @ A`` added to every adapted matrix (others are shared)."""

    def merged(weight: torch.Tensor, *paths: str) -> torch.Tensor:
        deltas = [adapter.delta(path) for path in paths]
        if all(delta is None for delta in deltas):
            return weight
        shapes = base.config.linear_shapes()
        parts = weight.split([shapes[path][0] for path in paths])
        return torch.cat(
            [
                part if delta is None else (part.float() + delta).to(weight.dtype)
                for part, delta in zip(parts, deltas, strict=True)
            ]
        )

    layers = []
    for i, layer in enumerate(base.layers):
        attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        qkv_paths = [f"{attention}.{name}_proj" for name in "qkv"]
        layers.append(
            Layer(
                attention_norm=layer.attention_norm,
                qkv=merged(layer.qkv, *qkv_paths),
                output=merged(layer.output, f"{attention}.o_proj"),
                mlp_norm=layer.mlp_norm,
                gate_up=merged(layer.gate_up, f"{mlp}.gate_proj", f"{mlp}.up_proj"),
                down=merged(layer.down, f"{mlp}.down_proj"),
            )
        )
    return Weights(
        config=base.config,
        embedding=base.embedding,
        layers=layers,
        final_norm=base.final_norm,
        unembedding=merged(base.unembedding, "lm_head"),
        cosines=base.cosines,
        sines=base.sines,
    )


def rotary_tables(config: DecoderConfig, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (context, head_dim) of the rotary angles, in float32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), frequencies)
    angles = torch.cat([angles, angles], dim=-1).to(device)
    return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotate x (rows, heads, head_dim) by its rows' angles (rows, head_dim)."""
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cosines[:, None].to(x.dtype) + turned * sines[:, None].to(x.dtype)


def embed(weights: Weights, tokens: torch.Tensor) -> torch.Tensor:
    """Return the residual stream's start (N, D), in float32 whatever the weights are.

    A few residual values of real models are in the tens of thousands, where bfloat16 counts in
    steps of 128: kept in bfloat16, the stream itself would be the largest error by far.
    """
    return F.embedding(tokens, weights.embedding).float()


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return x (..., D) scaled to unit root mean square, times `weight` (D,), in weight's type."""
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps).to(weight.dtype)


def project(
    x: torch.Tensor, weight: torch.Tensor, adapter: Adapter | None, *paths: str
) -> torch.Tensor:
    """Return ``x @ weight.T`` plus the adapter's part for each of the fused `paths`.

    Args:
        x: (N, in).
        weight: (sum of out widths, in), frozen.
        adapter: None leaves the base as it is.
        paths: module path of each fused part, in row order of `weight`.
    Returns:
        (N, sum of out widths).
    """
    y = F.linear(x, weight)
    pairs = [adapter.get(path) for path in paths] if adapter else []
    if adapter is None or not any(pairs):
        return y
    down = [pair.a for pair in pairs if pair]
    low_rank = F.linear(x, torch.cat(down).to(x.dtype)).split(adapter.spec.rank, dim=-1)
    parts = [
        F.linear(h, pair.b.to(x.dtype))
        for h, pair in zip(low_rank, [pair for pair in pairs if pair], strict=True)
    ]
    return y + adapter.scale * torch.cat(parts, dim=-1)


def forward_packed(
    weights: Weights,
    batch: PackedBatch,
    adapter: Adapter | None = None,
    sink: KeyValueSink | None = None,
) -> torch.Tensor:
    """Return the final hidden states (N, D) of all packed rows.

    Args:
        weights: base or merged weights.
        batch: rows, positions and who may attend to whom.
        adapter: LoRA pairs to apply (and differentiate) on top of the weights.
        sink: receives each layer's keys and values, to fill a `KVCache`.
    """
    config = weights.config
    cosines, sines = weights.cosines[batch.positions], weights.sines[batch.positions]
    x = embed(weights, batch.tokens)
    for i, layer in enumerate(weights.layers):
        attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        h = rms_norm(x, layer.attention_norm, config.norm_eps)
        h = project(h, layer.qkv, adapter, *(f"{attention}.{name}_proj" for name in "qkv"))
        q, k, v = split_heads(h, config)
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        if sink:
            sink(i, k, v)
        h = torch.cat([attend_group(q, k, v, group) for group in batch.groups])
        x = x + project(h, layer.output, adapter, f"{attention}.o_proj")
        h = rms_norm(x, layer.mlp_norm, config.norm_eps)
        h = project(h, layer.gate_up, adapter, f"{mlp}.gate_proj", f"{mlp}.up_proj")
        x = x + project(gated(h), layer.down, adapter, f"{mlp}.down_proj")
    return rms_norm(x, weights.final_norm, config.norm_eps)


def split_heads(
    qkv: torch.Tensor, config: DecoderConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split (rows, fused width) into q (rows, H, head_dim), k and v (rows, kv_heads, head_dim)."""
    q, k, v = qkv.split([config.query_width, config.kv_width, config.kv_width], dim=-1)
    return tuple(part.unflatten(-1, (-1, config.head_dim)) for part in (q, k, v))  # pyright: ignore


def gated(gate_up: torch.Tensor) -> torch.Tensor:
    """Return ``silu(gate) * up`` (Shazeer 2020, arXiv:2002.05202) from the fused halves."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


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
    scores = torch.bmm(queries, keys.transpose(1, 2)) * q.shape[-1] ** -0.5
    scores = scores.view(S, -1, T, keys.shape[1])
    scores = scores.masked_fill(~group.allowed[:, None], float("-inf"))
    mixed = torch.bmm(scores.softmax(-1).view(queries.shape[0], -1, keys.shape[1]), values)
    mixed = mixed.view(S, q.shape[1], T, q.shape[-1]).transpose(1, 2)  # (S, T, H, head_dim)
    return mixed.reshape(S * T, -1).index_select(0, group.real_queries)


def _gather_heads(x: torch.Tensor, rows: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Gather x (N, heads, head_dim) by rows (S, T) into (S * kv_heads, rep * T, head_dim)."""
    S, T = rows.shape
    picked = x.flatten(1).index_select(0, rows.flatten())
    picked = picked.view(S, T, kv_heads, -1, x.shape[-1]).permute(0, 2, 3, 1, 4)
    return picked.reshape(S * kv_heads, -1, x.shape[-1])


class KVCache:
    """Keys and values of running sequences, one slot each; slots 0..B-1 are in use.

    Tensors are (layers, slots * kv_heads, capacity, head_dim), so that the first B slots and the
    first K positions form one batched matrix product without copying.
    """

    def __init__(self, config: DecoderConfig, dtype: torch.dtype, device: torch.device) -> None:
        self.config = config
        self.slots, self.capacity = 0, 0
        self.keys = torch.empty(config.layers, 0, 0, config.head_dim, dtype=dtype, device=device)
        self.values = self.keys.clone()

    def reserve(self, slots: int, capacity: int) -> None:
        """Grow so that `slots` sequences of `capacity` tokens fit; what is cached stays."""
        if slots <= self.slots and capacity <= self.capacity:
            return
        slots = max(self.slots, 1 << (slots - 1).bit_length())
        capacity = max(self.capacity, -(-capacity // 64) * 64)
        shape = (
            self.config.layers,
            slots * self.config.kv_heads,
            capacity,
            self.config.head_dim,
        )
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(shape)
            new[:, : old.shape[1], : old.shape[2]] = old
            setattr(self, name, new)
        self.slots, self.capacity = slots, capacity

    def write_prompt(self, layer: int, slots: slice, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store keys and values (length, kv_heads, head_dim) at positions 0.. of all `slots`."""
        n = self.config.kv_heads
        for tensor, new in ((self.keys, k), (self.values, v)):
            by_slot = tensor[layer].unflatten(0, (-1, n))
            by_slot[slots, :, : len(new)] = new.transpose(0, 1)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of one slot over another."""
        n = self.config.kv_heads
        for tensor in (self.keys, self.values):
            tensor[:, target * n : (target + 1) * n, :length] = tensor[
                :, source * n : (source + 1) * n, :length
            ]


def decode_step(
    weights: Weights,
    cache: KVCache,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    adapter: Adapter | None = None,
) -> torch.Tensor:
    """Return the hidden states (B, D) of one new token per running sequence.

    Args:
        weights: base or merged weights.
        cache: slots 0..B-1 hold positions before `positions`; this step adds one.
        tokens: (B,) the newest token of each sequence.
        positions: (B,) its position.
        adapter: LoRA pairs to apply on top of the weights.
    """
    config, B = weights.config, len(tokens)
    K = int(positions.max()) + 1
    cosines, sines = weights.cosines[positions], weights.sines[positions]
    hidden_keys = torch.arange(K, device=weights.device)[None] > positions[:, None]  # (B, K)
    rows = torch.arange(B * config.kv_heads, device=weights.device)
    columns = positions.repeat_interleave(config.kv_heads)
    x = embed(weights, tokens)
    for i, layer in enumerate(weights.layers):
        attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        h = rms_norm(x, layer.attention_norm, config.norm_eps)
        h = project(h, layer.qkv, adapter, *(f"{attention}.{name}_proj" for name in "qkv"))
        q, k, v = split_heads(h, config)
        q, k = rotate(q, cosines, sines), rotate(k, cosines, sines)
        cache.keys[i, rows, columns] = k.reshape(-1, config.head_dim)
        cache.values[i, rows, columns] = v.reshape(-1, config.head_dim)
        keys = cache.keys[i, : len(rows), :K]
        queries = q.reshape(len(rows), -1, config.head_dim)
        scores = torch.bmm(queries, keys.transpose(1, 2)) * config.head_dim**-0.5
        scores = scores.view(B, -1, K).masked_fill_(hidden_keys[:, None], float("-inf"))
        mixing = scores.softmax(-1).view(len(rows), -1, K)
        h = torch.bmm(mixing, cache.values[i, : len(rows), :K]).view(B, -1)
        x = x + project(h, layer.output, adapter, f"{attention}.o_proj")
        h = rms_norm(x, layer.mlp_norm, config.norm_eps)
        h = project(h, layer.gate_up, adapter, f"{mlp}.gate_proj", f"{mlp}.up_proj")
        x = x + project(gated(h), layer.down, adapter, f"{mlp}.down_proj")
    return rms_norm(x, weights.final_norm, config.norm_eps)
