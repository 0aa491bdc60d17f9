"""LoRA adapters: their parameters, how they start, and their PEFT form on disk.

Owns: the trainable tensors. An adapter adds ``scale * (x @ A.T) @ B.T`` to a linear layer, with
``scale = alpha / rank`` (Hu et al. 2021, arXiv:2106.09685, section 4.1). A is random, B starts at
zero, so a new adapter changes nothing. Parameters and gradients are float32 whatever the base is.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cookbook.engine.errors import UserError

ALPHA = 32.0  # the value that Tinker's own exports carry
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
UNEMBED = "lm_head"
MAX_RANK = 256


@dataclass(frozen=True, kw_only=True)
class LoraSpec:
    """What a training run may change."""

    rank: int
    train_attn: bool = True
    train_mlp: bool = True
    train_unembed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_RANK:
            raise UserError(f"lora rank is {self.rank}; allowed are 1 to {MAX_RANK}")
        if not (self.train_attn or self.train_mlp or self.train_unembed):
            raise UserError("at least one of train_attn, train_mlp, train_unembed must be true")

    def targets(self) -> list[str]:
        """Return the names of the adapted linear layers."""
        names = list(ATTENTION) if self.train_attn else []
        names += list(MLP) if self.train_mlp else []
        return names + ([UNEMBED] if self.train_unembed else [])


@dataclass(frozen=True)
class LoraPair:
    """The two factors of one adapted layer: A (rank, in), B (out, rank)."""

    a: torch.Tensor
    b: torch.Tensor


class Adapter:
    """All LoRA pairs of one model, by PEFT module path such as `model.layers.0.mlp.up_proj`."""

    def __init__(self, spec: LoraSpec, pairs: dict[str, LoraPair]) -> None:
        self.spec = spec
        self.pairs = pairs
        self.scale = ALPHA / spec.rank

    @classmethod
    def new(
        cls, spec: LoraSpec, shapes: dict[str, tuple[int, int]], seed: int | None, device: str
    ) -> "Adapter":
        """Return a fresh adapter.

        Args:
            spec: rank and layer groups.
            shapes: (out, in) of every linear layer that could be adapted, by module path.
            seed: makes A reproducible; None draws a random one.
            device: where the parameters live.
        """
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed % 2**64)
        pairs = {}
        for path, (out_width, in_width) in shapes.items():
            if path.rsplit(".", 1)[-1] not in spec.targets():
                continue
            # Kaiming uniform with a = sqrt(5), PEFT's default: bound = 1 / sqrt(in_width).
            bound = 1.0 / math.sqrt(in_width)
            a = torch.empty(spec.rank, in_width).uniform_(-bound, bound, generator=generator)
            pairs[path] = LoraPair(a.to(device), torch.zeros(out_width, spec.rank, device=device))
        adapter = cls(spec, pairs)
        for parameter in adapter.parameters():
            parameter.requires_grad_(True)
        return adapter

    def parameters(self) -> list[torch.Tensor]:
        """Return all trainable tensors in a fixed order."""
        return [tensor for pair in self.pairs.values() for tensor in (pair.a, pair.b)]

    def fused(
        self, paths: tuple[str, ...], dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the pairs of layers that read one input as a single pair; None without pairs.

        Args:
            paths: the layers, in the order of their output columns.
            dtype: of the result.
        Returns:
            a (layers * rank, in), and b (sum of out widths, layers * rank), which contains the
            scale and is 0 outside its diagonal blocks.
        """
        pairs = [self.pairs[path] for path in paths if path in self.pairs]
        if not pairs:
            return None
        a = torch.cat([pair.a for pair in pairs]).to(dtype)
        return a, (torch.block_diag(*(pair.b for pair in pairs)) * self.scale).to(dtype)

    def snapshot(self) -> "Adapter":
        """Return a copy that later training steps do not change."""
        pairs = {
            path: LoraPair(pair.a.detach().clone(), pair.b.detach().clone())
            for path, pair in self.pairs.items()
        }
        return Adapter(self.spec, pairs)


def tensor_names(adapter: Adapter) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (PEFT tensor name, tensor) of every parameter, in the order of `parameters()`."""
    for path, pair in adapter.pairs.items():
        yield f"base_model.model.{path}.lora_A.weight", pair.a
        yield f"base_model.model.{path}.lora_B.weight", pair.b


def save_adapter(adapter: Adapter, folder: Path, base_model: str) -> None:
    """Write `adapter` as a PEFT folder (adapter_model.safetensors + adapter_config.json)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensor_names(adapter)}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": adapter.spec.rank,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "target_modules": adapter.spec.targets(),
        "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def load_adapter(folder: Path, spec: LoraSpec, device: str) -> Adapter:
    """Read an adapter written by `save_adapter`, ready to train."""
    tensors = load_file(folder / "adapter_model.safetensors", device=device)
    paths: dict[str, LoraPair] = {}
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            pair = LoraPair(tensors[name], tensors[name.replace(".lora_A.", ".lora_B.")])
            paths[path] = pair
    adapter = Adapter(spec, dict(sorted(paths.items(), key=_module_order)))
    for parameter in adapter.parameters():
        parameter.requires_grad_(True)
    return adapter


def _module_order(item: tuple[str, LoraPair]) -> tuple[int, int]:
    """Sort as a fresh adapter is built: layer by layer, projections in order, unembedding last."""
    path = item[0]
    if path == UNEMBED:
        return (1 << 30, 0)
    return (int(path.split(".")[2]), (ATTENTION + MLP).index(path.rsplit(".", 1)[-1]))


def spec_to_dict(spec: LoraSpec) -> dict[str, int | bool]:
    """Return the specification as plain JSON values."""
    return asdict(spec)
