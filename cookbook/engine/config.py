"""The shape of a Llama-family decoder, read from a model folder's `config.json`."""

import json
from dataclasses import dataclass
from pathlib import Path

from cookbook.engine.errors import UserError

SUPPORTED = "LlamaForCausalLM"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and constants of the decoder (the names in `config.json` differ a little)."""

    vocab_size: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float
    norm_eps: float
    context: int  # tokens
    tied: bool  # the unembedding is the embedding matrix
    eos_ids: tuple[int, ...]

    @property
    def query_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Return (out, in) of every linear layer that LoRA may adapt, by module path."""
        D, M, Q, KV = self.width, self.mlp_width, self.query_width, self.kv_width
        shapes = {}
        for i in range(self.layers):
            attention, mlp = f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
            shapes |= {
                f"{attention}.q_proj": (Q, D),
                f"{attention}.k_proj": (KV, D),
                f"{attention}.v_proj": (KV, D),
                f"{attention}.o_proj": (D, Q),
                f"{mlp}.gate_proj": (M, D),
                f"{mlp}.up_proj": (M, D),
                f"{mlp}.down_proj": (D, M),
            }
        return shapes | {"lm_head": (self.vocab_size, D)}


def read_config(folder: Path) -> DecoderConfig:
    """Return the decoder's configuration.

    Raises:
        UserError: the architecture is not one that this engine computes.
    """
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = (raw.get("architectures") or ["unknown"])[0]
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", "default")
    if architecture != SUPPORTED or rope_type != "default" or raw.get("attention_bias"):
        raise UserError(
            f"model {folder.name} has architecture {architecture} (rope {rope_type}); the embedded "
            f"engine computes {SUPPORTED} with plain rotary positions. Use a Tinker-compatible "
            "cluster (TINKER_BASE_URL) or the hosted service (TINKER_API_KEY) for other models"
        )
    heads = raw["num_attention_heads"]
    eos = raw.get("eos_token_id")
    return DecoderConfig(
        vocab_size=raw["vocab_size"],
        width=raw["hidden_size"],
        mlp_width=raw["intermediate_size"],
        layers=raw["num_hidden_layers"],
        heads=heads,
        kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        rope_theta=float(rope.get("rope_theta") or raw.get("rope_theta") or 10000.0),
        norm_eps=raw["rms_norm_eps"],
        context=raw["max_position_embeddings"],
        tied=bool(raw.get("tie_word_embeddings")),
        eos_ids=tuple(eos if isinstance(eos, list) else [eos] if eos is not None else []),
    )
