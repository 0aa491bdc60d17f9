"""How requests are batched, packed and shared changes nothing beyond rounding: random shapes."""

from typing import Any

import numpy as np
import pytest
import tinker
from hypothesis import given, settings
from hypothesis import strategies as st
from tinker import types

from tests.engine.processes import CONTEXT, VOCABULARY
from tests.engine.sdk import datum, logprobs, prompt, step

ATOL = 1e-4  # of a log-probability
NOTHING = types.AdamParams(learning_rate=0.0)  # clears the gradients and tells their norm


@st.composite
def batches(draw: st.DrawFn, longest: int = CONTEXT - 1) -> list[list[int]]:
    """Rows of tokens that share a beginning of any length, some of them all of it."""
    stem = draw(st.integers(0, longest - 2))
    tails = draw(st.lists(st.integers(0, longest - stem), min_size=1, max_size=10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shared = rng.integers(3, VOCABULARY, stem)
    cuts = [stem if draw(st.booleans()) else draw(st.integers(0, stem)) for _ in tails]
    pairs = zip(cuts, tails, strict=True)
    rows = [[*shared[:cut], *rng.integers(3, VOCABULARY, max(n, 2))] for cut, n in pairs]
    return [[int(token) for token in row] for row in rows]


@pytest.fixture(scope="module")
def run(tiny_service: tinker.ServiceClient, tiny_model: Any) -> tinker.TrainingClient:
    """A run that has taken a step, so that both factors of its adapter have gradients."""
    client = tiny_service.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()
    step(client, [5, 6, 7, 8, 9])
    return client


@pytest.fixture(scope="module")
def sampler(run: tinker.TrainingClient) -> tinker.SamplingClient:
    return run.save_weights_and_get_sampling_client().result()


def norm(run: tinker.TrainingClient) -> float:
    return (run.optim_step(NOTHING).result().metrics or {})["unclipped_grad_l2:mean"]


@settings(max_examples=20)
@given(batches(), st.integers(0, 2**32))
def test_a_batch_has_the_losses_and_the_gradient_of_its_rows_one_by_one(run, rows, seed):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=len(row) - 1).astype(np.float32) for row in rows]
    pairs = list(zip(rows, weights, strict=True))
    whole = [datum(row, weights=w) for row, w in pairs]
    together = run.forward_backward(whole, "cross_entropy").result()
    size = norm(run)
    run.forward_backward(whole, "cross_entropy")
    # With the signs turned round, the rows one by one must take away all that the batch added.
    alone = [run.forward_backward([datum(row, weights=-w)], "cross_entropy") for row, w in pairs]
    outputs = [future.result() for future in alone]
    for ours, output in zip(logprobs(together), outputs, strict=True):
        np.testing.assert_allclose(ours, logprobs(output)[0], atol=ATOL)
    losses = [output.metrics["loss:sum"] for output in outputs]
    assert together.metrics["loss:sum"] == pytest.approx(-sum(losses), rel=1e-4, abs=1e-3)
    assert norm(run) < 1e-4 * size


@settings(max_examples=10)
@given(batches(longest=CONTEXT - 13), st.data())
def test_samples_drawn_at_once_are_those_drawn_alone_and_scored_by_the_trainer(
    run, sampler, rows, data
):
    requests = []
    for i, row in enumerate(rows):
        params = types.SamplingParams(
            max_tokens=data.draw(st.integers(1, 12)),
            temperature=data.draw(st.sampled_from([0.0, 0.7, 1.0])),
            top_k=data.draw(st.sampled_from([-1, 5])),
            seed=i,
            stop=[],
        )
        requests.append((prompt(*row), data.draw(st.integers(1, 4)), params))
    alone = [sampler.sample(*request).result().sequences for request in requests]
    flying = [sampler.sample(*request) for request in requests]
    for row, expected, future in zip(rows, alone, flying, strict=True):
        found = future.result().sequences
        assert [one.tokens for one in found] == [one.tokens for one in expected]
        whole = [datum([*row, *one.tokens]) for one in found]
        trained = logprobs(run.forward(whole, "cross_entropy").result())
        for one, other, values in zip(found, expected, trained, strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=ATOL)
            np.testing.assert_allclose(one.logprobs, values[len(row) - 1 :], atol=ATOL)


@settings(max_examples=10)
@given(batches())
def test_prompts_scored_at_once_have_the_trainers_logprobs(run, sampler, rows):
    flying = [sampler.compute_logprobs(prompt(*row)) for row in rows]
    trained = logprobs(run.forward([datum(row) for row in rows], "cross_entropy").result())
    for future, values in zip(flying, trained, strict=True):
        first, *scored = future.result()
        assert first is None
        np.testing.assert_allclose(scored, values, atol=ATOL)
