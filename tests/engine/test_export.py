"""A checkpoint in other hands: merged by one command, or read by peft; the same logits."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import tinker
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cookbook.engine import export
from tests.engine.processes import checkpoint_folder
from tests.engine.sdk import datum, logprobs, step

ROW = [5, 6, 7, 8, 9, 10, 11]


def row_logprobs(model: Any) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.tensor([ROW[:-1]])).logits[0].float()
    return logits.log_softmax(-1)[torch.arange(len(ROW) - 1), torch.tensor(ROW[1:])].numpy()


def merge(path: str, output: Path, data_dir: Path, *options: str) -> None:
    """Run the command's work in this process."""
    assert export.main([path, str(output), "--data-dir", str(data_dir), *options]) == 0


def test_the_command_merges(new_run: Any, tiny_checkpoints: Path, tmp_path: Path) -> None:
    path = new_run().save_weights_for_sampler("a").result().path
    command = [sys.executable, "-m", export.__name__, path, str(tmp_path / "merged")]
    subprocess.run([*command, "--data-dir", str(tiny_checkpoints)], check=True, timeout=120)
    assert (tmp_path / "merged" / "model.safetensors").exists()


@pytest.mark.parametrize("flags", [{}, {"train_unembed": False}], ids=["all", "no unembedding"])
def test_merged_folder_peft_and_engine_agree(
    new_run: Any, tiny_model: Path, tiny_checkpoints: Path, tmp_path: Path, flags: dict
) -> None:
    run: tinker.TrainingClient = new_run(**flags)
    for _ in range(3):
        step(run, ROW)
    path = run.save_weights_for_sampler("final").result().path
    output = tmp_path / "merged"
    merge(path, output, tiny_checkpoints)
    (ours,) = logprobs(run.forward([datum(ROW)], "cross_entropy").result())
    merged = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    np.testing.assert_allclose(row_logprobs(merged), ours, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    before = row_logprobs(base)
    folder = checkpoint_folder(tiny_checkpoints, path)
    adapted = peft.PeftModel.from_pretrained(base, str(folder))
    np.testing.assert_allclose(row_logprobs(adapted), ours, atol=1e-4)
    assert np.abs(before - ours).max() > 0.1
    assert AutoTokenizer.from_pretrained(output).encode("\n\n1.") == [1116, 33, 30]


def test_the_engine_serves_a_merged_folder_again(
    new_run: Any, tiny_checkpoints: Path, tmp_path: Path
) -> None:
    from cookbook.engine.base import load_weights
    from cookbook.engine.config import read_config

    path = new_run().save_weights_for_sampler("a").result().path
    output = tmp_path / "merged"
    merge(path, output, tiny_checkpoints, "--dtype", "bfloat16")
    config = read_config(output)
    weights = load_weights(output, config, torch.float32, "cpu")
    assert not config.tied
    assert weights.unembedding.values.data_ptr() != weights.embedding.data_ptr()


@pytest.mark.parametrize(
    ("path", "told"),
    [("tinker://a/weights", "the form is tinker://"), ("tinker://s0:train:0/weights/a", "no chec")],
)
def test_a_bad_path_is_an_error_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, told: str
) -> None:
    options = ["--data-dir", str(tmp_path / "data")]
    assert export.main([path, str(tmp_path / "out"), *options]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["tinker://s0:train:0/weights/a", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err
