"""Turn the bundled model's GGUF file into a Hugging Face folder: bf16 safetensors and tokenizer.

Reading with ``gguf`` and building the tokenizer with ``tokenizers`` takes a few seconds; the
generic route through ``transformers`` takes forty and gets the tokenizer's digits wrong.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cookbook.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from gguf import GGUFReader, ReaderTensor
    from tokenizers import Tokenizer

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
CHAT_TEMPLATE = "chat_template.jinja"

OUTER_NAMES = {"token_embd": "embed_tokens", "output_norm": "norm"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3  # llama.cpp's token type for tokens that text never spells


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the Llama model in ``gguf`` to the new ``folder`` as ``transformers`` would save it.

    Raises:
        ModelError: the file is not a GGUF file of a Llama model with a ``smollm`` tokenizer.
    """
    import safetensors.torch
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
    except ValueError as error:
        raise ModelError(f"{gguf} cannot be read as a GGUF file: {error}.") from error
    _check_family(gguf, reader)
    config = _config(reader)
    folder.mkdir(parents=True)
    safetensors.torch.save_file(
        _state_dict(reader, config), folder / "model.safetensors", metadata={"format": "pt"}
    )
    _write_json(folder / "config.json", config)
    _tokenizer(reader).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(reader))
    template = _field(reader, "tokenizer.chat_template")
    (folder / CHAT_TEMPLATE).write_text(template, encoding="utf-8", newline="")


def _check_family(gguf: Path, reader: "GGUFReader") -> None:
    family = _field(reader, "general.architecture"), _field(reader, "tokenizer.ggml.pre")
    if family != ("llama", "smollm"):
        raise ModelError(
            f"{gguf} holds a {family[0]!r} model with a {family[1]!r} tokenizer; only 'llama' with "
            "'smollm' can be converted. Give other models as safetensors folders."
        )


def _field(reader: "GGUFReader", name: str) -> Any:
    field = reader.fields.get(name)
    return None if field is None else field.contents()


def _config(reader: "GGUFReader") -> dict[str, Any]:
    """Return the ``LlamaConfig`` fields, without a trace of quantization."""

    def llama(name: str) -> Any:
        return _field(reader, f"llama.{name}")

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": llama("vocab_size"),
        "hidden_size": llama("embedding_length"),
        "intermediate_size": llama("feed_forward_length"),
        "num_hidden_layers": llama("block_count"),
        "num_attention_heads": llama("attention.head_count"),
        "num_key_value_heads": llama("attention.head_count_kv"),
        "head_dim": llama("rope.dimension_count"),
        "max_position_embeddings": llama("context_length"),
        "rope_theta": llama("rope.freq_base"),
        "rms_norm_eps": float(f"{llama('attention.layer_norm_rms_epsilon'):.6g}"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }


def _state_dict(reader: "GGUFReader", config: dict[str, Any]) -> dict[str, "torch.Tensor"]:
    """Return every tensor under its Hugging Face name, dequantized and rounded to bf16."""
    import torch

    return {
        _hf_name(tensor.name): torch.from_numpy(_values(tensor, config)).to(torch.bfloat16)
        for tensor in reader.tensors
    }


def _hf_name(name: str) -> str:
    """Return the Hugging Face name, e.g. ``blk.3.attn_q.weight`` -> ``model.layers.3...``."""
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{match[1]}.{LAYER_NAMES[match[2]]}.weight"
    return f"model.{OUTER_NAMES[name.removesuffix('.weight')]}.weight"


def _values(tensor: "ReaderTensor", config: dict[str, Any]) -> "np.ndarray":
    """Return the tensor's values (rows, columns) in float32, query and key rows in their order."""
    import numpy as np
    from gguf import dequantize

    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
    if ".attn_q." in tensor.name:
        return _unpermute(values, config["num_attention_heads"])
    if ".attn_k." in tensor.name:
        return _unpermute(values, config["num_key_value_heads"])
    return np.ascontiguousarray(values)


def _unpermute(rows: "np.ndarray", heads: int) -> "np.ndarray":
    """Undo llama.cpp's order of rotary rows.

    A llama GGUF interleaves each head's two rotary halves (0, h/2, 1, h/2 + 1, ...); the Hugging
    Face layout keeps the halves apart.
    """
    import numpy as np

    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows.shape))


def _tokenizer(reader: "GGUFReader") -> "Tokenizer":
    """Return the byte-level BPE tokenizer that the model was trained with.

    ``smollm`` splits off every digit *before* the byte-level step; without the first step a newline
    sticks to the digit that follows and numbered lists come out in tokens the model never saw.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in _field(reader, "tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = _field(reader, "tokenizer.ggml.token_type")
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    return tokenizer


def _tokenizer_config(reader: "GGUFReader") -> dict[str, Any]:
    tokens = _field(reader, "tokenizer.ggml.tokens")

    def named(role: str) -> str:
        return tokens[_field(reader, f"tokenizer.ggml.{role}_token_id")]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _field(reader, "llama.context_length"),
        "bos_token": named("bos"),
        "eos_token": named("eos"),
        "pad_token": named("padding"),
        "unk_token": named("unknown"),
        "clean_up_tokenization_spaces": False,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
