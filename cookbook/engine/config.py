"""The shape of a Llama-family decoder, read from a model folder's `config.json`.

Owns: which architectures the engine computes, and what they differ in.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from cookbook.engine.errors import UserError

SUPPORTED = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How Llama 3 stretches slow rotary frequencies to a longer context (`rope_type` llama3)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int  # tokens


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
    architecture: str = SUPPORTED[0]
    rope_scaling: RopeScaling | None = None

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have a bias (Qwen 2)."""
        return self.architecture == "Qwen2ForCausalLM"

    @property
    def qk_norm(self) -> bool:
        """Whether each head's queries and keys are normalised (Qwen 3)."""
        return self.architecture == "Qwen3ForCausalLM"

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
    differs = _differences(raw, architecture, rope)
    if differs:
        raise UserError(
            f"model {folder.name} has {', '.join(differs)}, which the embedded engine does not "
            f"compute; it computes {', '.join(SUPPORTED)}. Use a Tinker-compatible cluster "
            "(TINKER_BASE_URL) or the hosted service (TINKER_API_KEY) for other models"
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
        architecture=architecture,
        rope_scaling=_scaling(rope),
    )


def _differences(raw: dict, architecture: str, rope: dict) -> list[str]:
    """Return what a model has that this engine would compute wrongly, in words."""
    differs = [] if architecture in SUPPORTED else [f"architecture {architecture}"]
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        differs.append(f"rotary positions of type {rope_type}")
    if raw.get("hidden_act", "silu") != "silu":
        differs.append(f"activation {raw['hidden_act']}")
    flags = ("attention_bias", "mlp_bias", "use_sliding_window")
    return differs + [flag for flag in flags if raw.get(flag)]


def _scaling(rope: dict) -> RopeScaling | None:
    if rope.get("rope_type", rope.get("type")) != "llama3":
        return None
    return RopeScaling(
        factor=rope["factor"],
        low_freq_factor=rope["low_freq_factor"],
        high_freq_factor=rope["high_freq_factor"],
        original_context=rope["original_max_position_embeddings"],
    )
