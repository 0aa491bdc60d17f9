"""Every architecture through the SDK: trained, sampled, exported, against `transformers`."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import torch
from tinker import types
from transformers import AutoModelForCausalLM

from cookbook.engine import export
from tests.engine.processes import checkpoint_folder, start_engine
from tests.engine.sdk import client_of, datum, logprobs, prompt, step
from tests.engine.test_architectures import MODELS, randomised, rows

GREEDY = types.SamplingParams(max_tokens=20, temperature=0.0, stop=[])


@pytest.fixture(params=MODELS, scope="module")
def served(
    request: pytest.FixtureRequest, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A tiny random model in a folder, a client of an engine that serves it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    randomised(MODELS[request.param]).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model_dir / file, folder)
    engine = start_engine(folder, tmp_path_factory.mktemp("engine"), "--embedded")
    try:
        with client_of(engine) as service:
            yield SimpleNamespace(service=service, folder=folder, data=engine.data_dir)
    finally:
        engine.end()


def row_logprobs(model: Any, row: list[int]) -> np.ndarray:
    with torch.no_grad():
        table = model(torch.tensor([row[:-1]])).logits[0].float().log_softmax(-1)
    return table[torch.arange(len(row) - 1), torch.tensor(row[1:])].numpy()


def test_a_model_is_trained_sampled_and_exported_as_transformers_has_it(served, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(served.folder, dtype=torch.float32)
    data = [row.tolist() for row in rows((9, 33, 70))]
    run = served.service.create_lora_training_client(str(served.folder), rank=2, seed=0).result()
    for _ in range(2):  # the untrained adapter is the base model's
        step(run, *data, learning_rate=0.02)
    path = run.save_weights_for_sampler("done").result().path
    told = logprobs(run.forward([datum(row) for row in data], "cross_entropy").result())

    export.main([path, str(tmp_path / "merged"), "--data-dir", str(served.data)])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    before = [row_logprobs(base, row) for row in data]
    adapted = peft.PeftModel.from_pretrained(base, str(checkpoint_folder(served.data, path)))
    for row, ours, untrained in zip(data, told, before, strict=True):
        np.testing.assert_allclose(row_logprobs(adapted, row), ours, atol=2e-4)
        np.testing.assert_allclose(row_logprobs(merged, row), ours, atol=2e-4)
        assert np.abs(untrained - ours).max() > 0.1

    sampler = served.service.create_sampling_client(model_path=path).result()
    base_sampler = served.service.create_sampling_client(base_model=str(served.folder)).result()
    for row, untrained in zip(data, before, strict=True):
        scored = base_sampler.compute_logprobs(prompt(*row)).result()
        np.testing.assert_allclose(scored[1:], untrained, atol=2e-4)
        ids = torch.tensor([row])
        greedy = merged.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None)
        answer = sampler.sample(prompt(*row), 1, GREEDY).result()
        assert answer.sequences[0].tokens == greedy[0, len(row) :].tolist()
