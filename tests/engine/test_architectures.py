"""Tiny random models of every architecture, against `transformers`; others are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from cookbook.engine.base import load_weights
from cookbook.engine.config import read_config
from cookbook.engine.errors import UserError
from cookbook.engine.generation import GenerationBatch, SampleRequest
from cookbook.engine.lora import Adapter, LoraSpec
from cookbook.engine.losses import loss_call
from cookbook.engine.sampling import SamplingSettings
from cookbook.engine.trainer import TrainingDatum, TrainingRun

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "eos_token_id": 2,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS = {
    "llama": LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama 3": LlamaForCausalLM(
        LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=LLAMA_3)
    ),
    "qwen 2": Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen 3": Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=False)),
}


def randomised(model: Any) -> Any:
    """Give biases and norms, which start as zeros and ones, values that matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5, generator=generator)
            elif "norm" in name:
                parameter.uniform_(0.5, 1.5, generator=generator)
    return model


@pytest.fixture(params=MODELS, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of `transformers`, and the same weights in the engine."""
    torch.manual_seed(0)
    model = randomised(MODELS[request.param])
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return model, load_weights(folder, read_config(folder), torch.float32, "cpu")


def rows(lengths: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shared = rng.integers(3, 320, 12)
    return [np.concatenate([shared, rng.integers(3, 320, n)]) for n in lengths]


def test_logprobs_and_gradients_match_transformers(pair: Any) -> None:
    model, weights = pair
    adapter = Adapter.new(LoraSpec(rank=2), weights.config.linear_shapes(), 0, "cpu")
    run = TrainingRun(weights, adapter)
    data = [
        TrainingDatum(row[:-1], row[1:], {"weights": np.ones(len(row) - 1, np.float32)})
        for row in rows((9, 33, 70))
    ]
    result = run.forward_backward(data, loss_call("cross_entropy", {}))
    model.zero_grad()
    for datum, ours in zip(data, result.logprobs, strict=True):
        logits = model(torch.from_numpy(datum.tokens)[None]).logits[0]
        targets = torch.from_numpy(datum.targets)[:, None]
        theirs = logits.log_softmax(-1).gather(-1, targets)[:, 0]
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-4)
        (-theirs.sum()).backward()
    # B starts at 0, so its gradient is that of the whole matrix times A, scaled.
    modules = dict(model.named_modules())
    tied = weights.config.tied
    for path, factors in adapter.pairs.items():
        if path == "lm_head" and tied:
            continue  # its gradient in `transformers` includes the embedding's
        whole = modules[path].weight.grad @ factors.a.detach().T * adapter.scale
        np.testing.assert_allclose(factors.b.grad, whole, atol=2e-3 * float(whole.abs().max()))


def test_greedy_decoding_matches_transformers(pair: Any, model_dir: Path) -> None:
    model, weights = pair
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    batch = GenerationBatch(weights, tokenizer)
    settings = SamplingSettings(max_tokens=40, temperature=0.0)
    outcomes: dict[int, list[int]] = {}
    prompts = rows((3, 50))
    for i, prompt in enumerate(prompts):

        def done(result: Any, i: int = i) -> None:
            outcomes[i] = result.sequences[0].tokens

        batch.add(SampleRequest(prompt=prompt, num_samples=1, settings=settings), done)
    while not batch.idle:
        batch.step()
    for i, prompt in enumerate(prompts):
        theirs = model.generate(
            torch.from_numpy(prompt)[None], max_new_tokens=40, do_sample=False, eos_token_id=None
        )
        assert outcomes[i] == theirs[0, len(prompt) :].tolist()


def config_folder(folder: Path, **changes: Any) -> Path:
    LlamaConfig(**SIZES, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "architecture GemmaForCausalLM"),
        ({"rope_scaling": {"rope_type": "yarn"}, "rope_parameters": None}, "of type yarn"),
        ({"attention_bias": True}, "attention_bias"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"hidden_act": "gelu"}, "activation gelu"),
    ],
)
def test_other_models_are_refused_with_the_alternatives(
    tmp_path: Path, changes: dict, named: str
) -> None:
    with pytest.raises(UserError, match=named) as refused:
        read_config(config_folder(tmp_path, **changes))
    for word in ("Qwen3ForCausalLM", "TINKER_BASE_URL", "TINKER_API_KEY"):
        assert word in str(refused.value)


def test_a_model_that_transformers_saved_is_refused_by_its_name(tmp_path: Path) -> None:
    MistralForCausalLM(MistralConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="MistralForCausalLM"):
        read_config(tmp_path)
