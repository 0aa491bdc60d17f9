"""The frozen base model: its matrices, fused, its norms, and the table of rotary angles.

Owns: what every training run and every sampler of one engine share.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from cookbook.engine.config import DecoderConfig, RopeScaling
from cookbook.engine.linear import Matrix


@dataclass(frozen=True)
class Layer:
    """One block's frozen weights; projections that read the same input are one matrix."""

    attention_norm: torch.Tensor  # (D,)
    qkv: Matrix  # (query_width + 2 * kv_width, D)
    qkv_bias: torch.Tensor | None  # (query_width + 2 * kv_width,)
    q_norm: torch.Tensor | None  # (head_dim,)
    k_norm: torch.Tensor | None  # (head_dim,)
    output: Matrix  # (D, query_width)
    mlp_norm: torch.Tensor  # (D,)
    gate_up: Matrix  # (2 * mlp_width, D)
    down: Matrix  # (D, mlp_width)


@dataclass(frozen=True)
class Weights:
    """The whole frozen model."""

    config: DecoderConfig
    embedding: torch.Tensor  # (V, D)
    layers: list[Layer]
    final_norm: torch.Tensor  # (D,)
    unembedding: Matrix  # (V, D), the embedding itself when tied
    cosines: torch.Tensor  # (context, head_dim) float32
    sines: torch.Tensor  # (context, head_dim) float32

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.embedding.device


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Return x (..., D) scaled to unit root mean square, times `weight` (D,), in weight's type."""
    return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps).to(weight.dtype)


def load_weights(folder: Path, config: DecoderConfig, dtype: torch.dtype, device: str) -> Weights:
    """Read `model.safetensors` (or its shards) of a model folder into fused matrices."""
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors |= load_file(file)

    def take(name: str) -> torch.Tensor:
        # A copy: a tensor of the file keeps all of the file in memory.
        return tensors.pop(name).to(device=device, dtype=dtype, copy=True)

    def fuse(prefix: str, *names: str, kind: str = "weight") -> torch.Tensor:
        parts = [tensors.pop(f"{prefix}.{name}.{kind}") for name in names]
        return torch.cat(parts).to(device=device, dtype=dtype)

    layers = []
    for i in range(config.layers):
        block = f"model.layers.{i}"
        heads = f"{block}.self_attn"
        inputs = ("q_proj", "k_proj", "v_proj")
        layers.append(
            Layer(
                attention_norm=take(f"{block}.input_layernorm.weight"),
                qkv=Matrix(fuse(heads, *inputs)),
                qkv_bias=fuse(heads, *inputs, kind="bias") if config.qkv_bias else None,
                q_norm=take(f"{heads}.q_norm.weight") if config.qk_norm else None,
                k_norm=take(f"{heads}.k_norm.weight") if config.qk_norm else None,
                output=Matrix(take(f"{heads}.o_proj.weight")),
                mlp_norm=take(f"{block}.post_attention_layernorm.weight"),
                gate_up=Matrix(fuse(f"{block}.mlp", "gate_proj", "up_proj")),
                down=Matrix(take(f"{block}.mlp.down_proj.weight")),
            )
        )
    embedding = take("model.embed_tokens.weight")
    cosines, sines = rotary_tables(config, device)
    return Weights(
        config=config,
        embedding=embedding,
        layers=layers,
        final_norm=take("model.norm.weight"),
        unembedding=Matrix(embedding if config.tied else take("lm_head.weight")),
        cosines=cosines,
        sines=sines,
    )


def rotary_tables(config: DecoderConfig, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines (context, head_dim) of the rotary angles, in float32."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    if config.rope_scaling:
        frequencies = _stretched(frequencies, config.rope_scaling)
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32), frequencies)
    angles = torch.cat([angles, angles], dim=-1).to(device)
    return angles.cos(), angles.sin()


def _stretched(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    """Return frequencies (head_dim / 2,) as Llama 3.1 has them (arXiv:2407.21783 and its code).

    Frequencies that turn often within the original context stay, those that hardly turn are divided
    by the factor, and in between the two are mixed linearly.
    """
    turns = scaling.original_context * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling.factor)
