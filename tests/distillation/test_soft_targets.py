"""Soft targets through a real engine, against `transformers` in float64."""

from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from cookbook.distillation import soft_datum, soft_targets
from cookbook.distillation.reading import after_prompt
from cookbook.errors import ConfigError, ServiceError
from cookbook.rl import Row
from tests.engine.processes import VOCABULARY
from tests.engine.sdk import gradients


def row_of(tokens, n_prompt):
    sampled = np.arange(len(tokens)) >= n_prompt
    zeros = np.zeros(len(tokens))
    return Row(tokens=np.array(tokens), sampled=sampled, logprobs=zeros, advantages=zeros)


ROWS = [
    row_of([5, 6, 7, 8, 9], 2),
    row_of([40, 30, 20, 10], 1),
    row_of([40, 30, 11, 12, 13, 14], 4),
]


@pytest.fixture(scope="module")
def exact(tiny_model):
    """From tokens (T,) to log-probabilities (T, V): row t is what t - 1 and before predict."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)

    def logprobs(tokens):
        with torch.no_grad():
            logits = model(torch.tensor([list(tokens)])).logits[0]
        found = torch.log_softmax(logits, -1).numpy()
        return np.concatenate([np.zeros_like(found[:1]), found[:-1]])

    return logprobs


@pytest.fixture
def base(tiny_service, tiny_model):
    return tiny_service.create_sampling_client(base_model=str(tiny_model)).result()


@pytest.mark.parametrize("k", [1, 3, 7])
def test_targets_and_loss_are_what_the_formula_says(exact, base, new_run, k):
    found = soft_targets(base, ROWS, k)
    loss = 0.0
    for row, targets in zip(ROWS, found, strict=True):
        truth = exact(row.tokens)
        assert targets.tokens.shape == targets.probabilities.shape == (len(row.tokens), k)
        assert not targets.probabilities[~row.sampled].any()
        held = []
        for t in np.flatnonzero(row.sampled):
            best = np.argsort(-truth[t])[:k]
            assert targets.tokens[t].tolist() == best.tolist()
            p = np.exp(truth[t, best])
            held.append(p.sum())
            assert targets.probabilities[t] == pytest.approx(p / p.sum(), abs=1e-5)
            loss -= float(p / p.sum() @ truth[t, best])  # a fresh student is its base model
        assert targets.covered == pytest.approx(np.mean(held), abs=1e-5)
    datums = [soft_datum(row, targets) for row, targets in zip(ROWS, found, strict=True)]
    output = new_run().forward(datums, "cross_entropy").result()
    assert output.metrics["loss:sum"] == pytest.approx(loss, rel=1e-4)
    shapes = [entry["logprobs"].shape for entry in output.loss_fn_outputs]
    assert [list(shape or ()) for shape in shapes] == [[len(row.tokens) - 1, k] for row in ROWS]


def test_a_student_like_its_teacher_has_no_gradient(base, new_run, tiny_checkpoints):
    """With the whole vocabulary; hard targets on the same tokens pull much harder."""
    soft = [
        soft_datum(row, targets)
        for row, targets in zip(ROWS, soft_targets(base, ROWS, VOCABULARY), strict=True)
    ]
    hard = [soft_datum(row, t) for row, t in zip(ROWS, soft_targets(base, ROWS, 1), strict=True)]
    sizes = []
    for datums in (soft, hard):
        run = new_run()
        run.forward_backward(datums, "cross_entropy").result()
        sizes.append(max(np.abs(g).max() for g in gradients(run, tiny_checkpoints).values()))
    assert sizes[0] < 1e-3 * sizes[1]


def test_a_teacher_with_another_prompt_is_aligned(exact, base):
    readings = [after_prompt(row, [50, 51, 52, 53, 54, 55, 56]) for row in ROWS]
    for row, targets in zip(ROWS, soft_targets(base, ROWS, 1, readings), strict=True):
        own = row.tokens[row.sampled].tolist()
        truth = exact([50, 51, 52, 53, 54, 55, 56, *own])[7:]
        assert targets.tokens[row.sampled, 0].tolist() == truth.argmax(axis=1).tolist()


class Server:
    """A sampling client whose answer has this table."""

    def __init__(self, table):
        self.table = table

    def sample(self, **_):
        future = Future()
        future.set_result(SimpleNamespace(topk_prompt_logprobs=self.table))
        return future


def test_a_server_without_the_table_is_told():
    with pytest.raises(ServiceError, match=r"topk_prompt_logprobs.*Train on the teacher's samples"):
        soft_targets(Server(None), ROWS[:1], 2)
    pair = [(7, -0.1), (8, -2.5)]
    with pytest.raises(ServiceError, match="left positions without"):
        soft_targets(Server([None, pair, pair, None, pair]), ROWS[:1], 2)
    (found,) = soft_targets(Server([None, None, pair, pair, pair]), ROWS[:1], 2)
    assert found.probabilities[2].sum() == pytest.approx(1)


def test_at_least_one_token_is_asked_for():
    with pytest.raises(ConfigError, match="k is 0"):
        soft_targets(Server(None), ROWS, 0)
