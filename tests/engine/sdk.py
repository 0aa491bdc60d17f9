"""Short forms of SDK calls for the engine's tests."""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinker
from safetensors.numpy import load_file
from tinker import types

from tests.engine.older_sdk_lacks import OLDER
from tests.engine.processes import EngineProcess, checkpoint_folder

LINEAR_ADAM = {"learning_rate": 1e8, "eps": 1e8, "beta1": 0.0, "beta2": 0.0}


@contextlib.contextmanager
def client_of(engine: EngineProcess) -> Iterator[tinker.ServiceClient]:
    """A client of an engine that a test started, which says at the end that it is done."""
    client = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
    with contextlib.nullcontext() if OLDER else client:
        yield client


def deprecated() -> contextlib.AbstractContextManager[Any]:
    """Expect the warning of a deprecated call; under SDK 0.24 there is no other one."""
    if OLDER:
        return contextlib.nullcontext()
    return pytest.warns(FutureWarning, match="deprecated")


def datum(row: Sequence[int], **inputs: Any) -> types.Datum:
    """A row of tokens in which each position predicts the next."""
    tokens = [int(token) for token in row]
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], **inputs},
    )


def prompt(*tokens: int) -> types.ModelInput:
    """A prompt of these tokens."""
    return types.ModelInput.from_ints(list(tokens))


def logprobs(output: types.ForwardBackwardOutput) -> list[list[float]]:
    """The log-probabilities of every datum."""
    return [entry["logprobs"].tolist() for entry in output.loss_fn_outputs]


def step(run: tinker.TrainingClient, *rows: Sequence[int], learning_rate: float = 0.05) -> float:
    """Train on rows once and return the loss before the step."""
    loss = run.forward_backward([datum(row) for row in rows], "cross_entropy")
    update = run.optim_step(types.AdamParams(learning_rate=learning_rate))
    update.result()
    return loss.result().metrics["loss:sum"]


def tensors(run: tinker.TrainingClient, data_dir: Path) -> dict[str, np.ndarray]:
    """The present weights of a run's adapter, read from a checkpoint."""
    return saved(run.save_state(f"t-{uuid.uuid4().hex}").result().path, data_dir)


def saved(path: str, data_dir: Path) -> dict[str, np.ndarray]:
    """The adapter's weights in a checkpoint."""
    return load_file(checkpoint_folder(data_dir, path) / "adapter_model.safetensors")


def gradients(run: tinker.TrainingClient, data_dir: Path, **adam: float) -> dict[str, np.ndarray]:
    """The gradients of the B matrices of a run that has taken no step: Adam made linear.

    With betas of 0 the step is `-lr * g / (|g| + eps)`, which is `-g` if lr and eps are equal and
    large; B starts at 0, so it becomes `-g`.
    """
    run.optim_step(types.AdamParams(**LINEAR_ADAM, **adam)).result()
    return {name: -value for name, value in tensors(run, data_dir).items() if "lora_B" in name}


def assert_close(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], rtol: float) -> None:
    """The same tensors up to `rtol` of each one's largest entry."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert np.abs(expected).max() > 0, name
        atol = rtol * float(np.abs(expected).max())
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=atol, err_msg=name)


def assert_identical(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    """The same tensors bit for bit."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_array_equal(ours[name], expected, err_msg=name)
