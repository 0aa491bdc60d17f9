"""Models that the recipes know: the renderer and the settings to start from, one table.

A model that is not listed still works: its renderer follows from its chat template, and the caller
gives the learning rate.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from cookbook.errors import ConfigError

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class UncalibratedError(ConfigError, NotImplementedError):
    """The model is known, but nobody has measured a learning rate rule for its family."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What the recipes need to know about one base model."""

    family: Literal["smollm2", "llama", "qwen", "gpt-oss", "kimi"]
    """Models that share a learning rate rule."""
    hidden_size: int
    """Width D of the residual stream."""
    renderer: str | None = None
    """Name in the `renderers` library where its own table lacks the model; None: look there."""


MODELS: dict[str, ModelInfo] = {
    DEFAULT_MODEL: ModelInfo(family="smollm2", hidden_size=576),
    "HuggingFaceTB/SmolLM2-360M-Instruct": ModelInfo(family="smollm2", hidden_size=960),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": ModelInfo(family="smollm2", hidden_size=2048),
    "meta-llama/Llama-3.2-1B-Instruct": ModelInfo(family="llama", hidden_size=2048),
    "meta-llama/Llama-3.2-3B-Instruct": ModelInfo(family="llama", hidden_size=3072),
    "meta-llama/Llama-3.1-8B-Instruct": ModelInfo(family="llama", hidden_size=4096),
    "meta-llama/Llama-3.3-70B-Instruct": ModelInfo(family="llama", hidden_size=8192),
    "Qwen/Qwen3-4B-Instruct-2507": ModelInfo(family="qwen", hidden_size=2560),
    "Qwen/Qwen3-8B": ModelInfo(family="qwen", hidden_size=4096),
    "Qwen/Qwen3-8B-Base": ModelInfo(family="qwen", hidden_size=4096, renderer="qwen3"),
    "Qwen/Qwen3-30B-A3B": ModelInfo(family="qwen", hidden_size=2048),
    "Qwen/Qwen3-32B": ModelInfo(family="qwen", hidden_size=5120),
    "Qwen/Qwen3.5-4B": ModelInfo(family="qwen", hidden_size=2560),
    "Qwen/Qwen3.5-9B": ModelInfo(family="qwen", hidden_size=4096),
    "Qwen/Qwen3.5-9B-Base": ModelInfo(family="qwen", hidden_size=4096, renderer="qwen3.5"),
    "Qwen/Qwen3.5-35B-A3B": ModelInfo(family="qwen", hidden_size=2048),
    "Qwen/Qwen3.6-35B-A3B": ModelInfo(family="qwen", hidden_size=2048),
    "openai/gpt-oss-20b": ModelInfo(family="gpt-oss", hidden_size=2880),
    "openai/gpt-oss-120b": ModelInfo(family="gpt-oss", hidden_size=2880),
    "moonshotai/Kimi-K2.6": ModelInfo(family="kimi", hidden_size=7168),
}

# Exponent p of the width rule in `get_lr`, for the families it was fitted on.
_WIDTH_EXPONENTS = {"llama": 0.781, "qwen": 0.0775}


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Settings to start supervised LoRA training from."""

    learning_rate: float
    """Peak Adam step size."""
    lora_rank: int
    """Rank of the adapters."""
    batch_size: int
    """Conversations per optimiser step."""
    max_length: int
    """Longest conversation in tokens; longer ones lose their end."""


def get_lr(model_name: str, is_lora: bool = True) -> float:
    """Return a supervised learning rate for batches of about 128 examples.

    Raises:
        UncalibratedError: a known model of a family that the rule was not fitted on.
        ConfigError: an unknown model.
    Formula: 5e-5 · (10 if LoRA else 1) · (2000 / hidden_size) ** p, p 0.781 (Llama), 0.0775 (Qwen).
    Source: the public tinker-cookbook's `hyperparam_utils`; it claims under 0.5% regret.
    """
    model = model_info(model_name)
    if model.family not in _WIDTH_EXPONENTS:
        raise UncalibratedError(
            f"No learning rate rule for {model_name!r}: the rule was fitted on "
            f"{' and '.join(_WIDTH_EXPONENTS)} models, this is {model.family}. "
            "Give learning_rate yourself; for LoRA start between 1e-4 and 1e-3 and compare."
        )
    scale = (2000 / model.hidden_size) ** _WIDTH_EXPONENTS[model.family]
    return 5e-5 * (10 if is_lora else 1) * scale


def model_info(model_name: str) -> ModelInfo:
    """Return the table's entry; a ConfigError names the nearest known models otherwise."""
    if model_name in MODELS:
        return MODELS[model_name]
    near = get_close_matches(model_name, MODELS, n=3, cutoff=0.4) or list(MODELS)
    raise ConfigError(
        f"Unknown model {model_name!r}. Known and near: {', '.join(near)}. "
        "Give the settings yourself, or add the model to cookbook.models.MODELS."
    )


def get_defaults(model_name: str) -> Defaults:
    """Return settings to start from; same errors as `get_lr`.

    The bundled model's suit a run of minutes on a laptop and are a place to start, not the result
    of a sweep; the hosted ones are the public tinker-cookbook's (batch 128, rank 32).
    """
    if model_info(model_name).family == "smollm2":
        return Defaults(learning_rate=3e-3, lora_rank=16, batch_size=4, max_length=512)
    return Defaults(
        learning_rate=get_lr(model_name), lora_rank=32, batch_size=128, max_length=16384
    )
