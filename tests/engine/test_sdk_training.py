"""Training through the SDK: every call, several chunks, several runs at once."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tinker
import torch
from tinker import types

from tests.engine.processes import CONTEXT, RawRun, forward_backward_message, result
from tests.engine.sdk import (
    LINEAR_ADAM,
    assert_close,
    assert_identical,
    datum,
    gradients,
    logprobs,
    prompt,
    saved,
    step,
    tensors,
)

ROW, OTHER_ROW, LONG_ROW = [5, 6, 7, 8, 9], [40, 30, 20], list(range(100, 117))
NewRun = Callable[..., tinker.TrainingClient]
CHUNK = 1024  # datums that the SDK sends in one request


# What there is.


def test_capabilities_name_the_model_that_clients_are_made_of(tiny_engine, tiny_model):
    rest = tinker.RestClient(base_url=tiny_engine.base_url, api_key=tiny_engine.api_key)
    (model,) = rest.get_server_capabilities().result().supported_models
    assert model.model_name == str(tiny_model)
    assert model.max_context_length == CONTEXT
    assert (model.trainable, model.sampleable) == (True, True)


def test_a_run_knows_itself(new_run: NewRun, tiny_model):
    info = new_run(rank=3).get_info()
    assert (info.is_lora, info.lora_rank) == (True, 3)
    assert info.model_data.model_name == str(tiny_model)
    tokenizer = new_run().get_tokenizer()
    assert tokenizer.encode("\n\n1.") == [1116, 33, 30]


def test_a_client_can_be_closed_and_another_one_opened(tiny_engine, tiny_model):
    address = {"base_url": tiny_engine.base_url, "api_key": tiny_engine.api_key}
    for _ in range(2):
        with tinker.ServiceClient(**address) as client:
            run = client.create_lora_training_client(str(tiny_model), rank=1).result()
            assert step(run, ROW) > 0


# Forward and backward.


def test_forward_returns_what_forward_backward_does_and_leaves_no_gradient(new_run: NewRun):
    run = new_run()
    step(run, ROW)
    rows = [datum(ROW), datum(LONG_ROW), datum(OTHER_ROW)]
    forward = run.forward(rows, "cross_entropy").result()
    assert run.optim_step(types.AdamParams()).result().metrics == {"unclipped_grad_l2:mean": 0.0}
    backward = run.forward_backward(rows, "cross_entropy").result()
    assert [len(values) for values in logprobs(forward)] == [4, 16, 2]
    for ours, theirs in zip(logprobs(forward), logprobs(backward), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert forward.metrics["loss:sum"] == pytest.approx(backward.metrics["loss:sum"], rel=1e-5)


@pytest.mark.parametrize(
    "weights", [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], [0.5, -2.0, 0.0, 3.25], None]
)
def test_cross_entropy_is_the_weighted_sum(new_run: NewRun, weights):
    inputs = {} if weights is None else {"weights": weights}
    output = new_run().forward_backward([datum(ROW, **inputs)], "cross_entropy").result()
    (values,) = logprobs(output)
    assert all(value < 0 for value in values)  # also where the weight is 0
    expected = -np.dot(weights or np.ones(4), values)
    assert output.metrics["loss:sum"] == pytest.approx(expected, rel=1e-5)


def test_importance_sampling_is_the_ratio_times_the_advantage(new_run: NewRun):
    run = new_run()
    (p,) = logprobs(run.forward([datum(ROW)], "cross_entropy").result())
    q, advantages = [p[0], p[1] - 0.5, p[2] + 0.3, p[3]], [1.0, -2.0, 0.5, 0.0]
    row = datum(ROW, logprobs=q, advantages=advantages)
    output = run.forward_backward([row], "importance_sampling").result()
    expected = -np.dot(np.exp(np.subtract(p, q)), advantages)
    assert output.metrics["loss:sum"] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(logprobs(output)[0], p, atol=1e-5)


def test_several_targets_per_position_dense_and_sparse(new_run: NewRun):
    targets = torch.tensor([[6, 99, 0], [7, 0, 0], [8, 12, 0], [9, 0, 0]])
    weights = torch.tensor([[0.7, 0.3, 0], [1.0, 0, 0], [0.5, 0.5, 0], [1.0, 0, 0]])
    model_input = types.ModelInput.from_ints(ROW[:-1])

    def output(wrap: Callable) -> types.ForwardBackwardOutput:
        inputs = {"target_tokens": wrap(targets), "weights": wrap(weights)}
        row = types.Datum(model_input=model_input, loss_fn_inputs=inputs)
        rows = [datum(OTHER_ROW), row, datum(ROW)]
        return new_run().forward_backward(rows, "cross_entropy").result()

    dense, sparse = output(lambda tensor: tensor.numpy()), output(lambda tensor: tensor)
    shapes = [tuple(entry["logprobs"].shape) for entry in dense.loss_fn_outputs]
    assert shapes == [(2,), (4, 3), (4,)]
    table = dense.loss_fn_outputs[1]["logprobs"].to_numpy()
    np.testing.assert_allclose(table[:, 0], logprobs(dense)[2], atol=1e-5)
    expected = -(weights.numpy() * table).sum() - sum(logprobs(dense)[0]) - sum(logprobs(dense)[2])
    assert dense.metrics["loss:sum"] == pytest.approx(expected, rel=1e-5)
    assert sparse.metrics["loss:sum"] == pytest.approx(dense.metrics["loss:sum"], rel=1e-6)


def test_gradients_add_up_until_the_step_and_are_gone_after_it(new_run: NewRun, tiny_checkpoints):
    apart, together = new_run(), new_run()
    for row in (ROW, LONG_ROW):
        apart.forward_backward([datum(row)], "cross_entropy")
    together.forward_backward([datum(ROW), datum(LONG_ROW)], "cross_entropy")
    expected = gradients(together, tiny_checkpoints)
    assert_close(gradients(apart, tiny_checkpoints), expected, rtol=1e-5)
    again = apart.optim_step(types.AdamParams()).result()
    assert again.metrics == {"unclipped_grad_l2:mean": 0.0}


# The optimiser's own settings (its numbers are checked in test_reference).


def test_clipping_bounds_the_norm_and_reports_the_one_before(new_run: NewRun, tiny_checkpoints):
    plain, clipped = new_run(), new_run()
    for run in (plain, clipped):
        run.forward_backward([datum(LONG_ROW)], "cross_entropy")
    full = gradients(plain, tiny_checkpoints)
    cut = gradients(clipped, tiny_checkpoints, grad_clip_norm=0.5)

    def norm(arrays: dict[str, np.ndarray]) -> float:
        return float(np.sqrt(sum((array.astype(float) ** 2).sum() for array in arrays.values())))

    assert norm(full) > 1
    assert norm(cut) == pytest.approx(0.5, rel=1e-3)
    run = new_run()
    run.forward_backward([datum(LONG_ROW)], "cross_entropy")
    reported = run.optim_step(types.AdamParams(grad_clip_norm=0.5)).result().metrics
    assert reported == {"unclipped_grad_l2:mean": pytest.approx(norm(full), rel=1e-4)}


def test_weight_decay_shrinks_the_weights(new_run: NewRun, tiny_checkpoints):
    run = new_run()
    before = tensors(run, tiny_checkpoints)
    run.forward_backward([datum(ROW)], "cross_entropy")
    run.optim_step(types.AdamParams(learning_rate=0.1, weight_decay=0.5)).result()
    after = tensors(run, tiny_checkpoints)
    for name in before:
        if "lora_A" in name:  # without a gradient as long as B is 0
            np.testing.assert_allclose(after[name], before[name] * 0.95, rtol=1e-6)


def test_a_learning_rate_of_zero_changes_nothing(new_run: NewRun, tiny_checkpoints):
    run = new_run()
    before = tensors(run, tiny_checkpoints)
    step(run, ROW, learning_rate=0.0)
    assert_identical(tensors(run, tiny_checkpoints), before)


# What an adapter is made of.


def test_the_seed_decides_how_an_adapter_starts(new_run: NewRun, tiny_checkpoints):
    def start(seed: int | None) -> dict[str, np.ndarray]:
        return tensors(new_run(seed=seed), tiny_checkpoints)

    assert_identical(start(7), start(7))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    values = [start(seed)[name] for seed in (7, 8, None, None, -1)]
    assert all(not np.array_equal(a, b) for i, a in enumerate(values) for b in values[:i])
    assert not start(7)[name.replace("lora_A", "lora_B")].any()


ATTENTION, MLP = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(
    ("attention", "mlp", "unembed"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, True)],
)
def test_only_the_chosen_layers_are_trained(
    new_run: NewRun, tiny_checkpoints, attention, mlp, unembed
):
    layers = (ATTENTION if attention else set()) | (MLP if mlp else set())
    run = new_run(train_attn=attention, train_mlp=mlp, train_unembed=unembed)
    before = tensors(run, tiny_checkpoints)
    expected = layers | ({"lm_head"} if unembed else set())
    assert {name.split(".")[-3] for name in before} == expected
    assert len(before) == 2 * (2 * len(layers) + unembed)  # A and B in each of two blocks
    step(run, ROW)
    after = tensors(run, tiny_checkpoints)
    assert all(after[name].any() for name in after if "lora_B" in name)


# Batches that the SDK sends as several requests.


def test_a_batch_of_several_chunks_is_one_batch(
    new_run: NewRun, tiny_checkpoints: Path, http, tiny_model: Path
):
    rng = np.random.default_rng(0)
    rows = [rng.integers(3, 500, 2 + i % 3).tolist() for i in range(CHUNK + 50)]
    run = new_run()
    output = run.forward_backward([datum(row) for row in rows], "cross_entropy").result()
    raw = RawRun(http, str(tiny_model))
    message = forward_backward_message(raw.model_id, 1, rows)
    whole = result(http, raw.send_forward_backward(message))

    ours = np.concatenate(logprobs(output))
    theirs = [
        np.frombuffer(record.fields["logprobs"].data, "<f4") for record in whole.loss_fn_outputs
    ]
    assert [len(values) for values in logprobs(output)] == [len(row) - 1 for row in rows]
    np.testing.assert_allclose(ours, np.concatenate(theirs), atol=1e-4)
    assert output.metrics["loss:sum"] == pytest.approx(whole.metrics["loss:sum"], rel=1e-5)

    raw.optim_step(2, **LINEAR_ADAM)
    path = result(http, raw.ordered("save_weights", 3, path="whole"))["path"]
    expected = saved(path, tiny_checkpoints)
    found = gradients(run, tiny_checkpoints)
    assert_close(found, {name: -expected[name] for name in found}, rtol=1e-4)


def test_a_batch_beyond_the_size_of_one_request(new_run: NewRun):
    """More than 5 MB: many targets per position make a few datums large."""
    targets = np.tile(np.arange(4000), (100, 1)) % 500
    weights = np.zeros((100, 4000), np.float32)
    weights[:, 1] = 1
    wide = types.Datum(
        model_input=prompt(*range(100, 200)),
        loss_fn_inputs={"target_tokens": targets, "weights": weights},
    )
    output = new_run().forward_backward([wide, datum(ROW), wide], "cross_entropy").result()
    shapes = [tuple(entry["logprobs"].shape) for entry in output.loss_fn_outputs]
    assert shapes == [(100, 4000), (4,), (100, 4000)]
    first, _, last = (entry["logprobs"].to_numpy() for entry in output.loss_fn_outputs)
    np.testing.assert_allclose(first, last, atol=1e-4)


# Losses of one's own.


def test_a_custom_loss_has_the_gradient_of_the_built_in_one(new_run: NewRun, tiny_checkpoints):
    rows = [ROW, LONG_ROW, OTHER_ROW]
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=len(row) - 1).astype(np.float32) for row in rows]
    weighted = [datum(row, weights=w) for row, w in zip(rows, weights, strict=True)]

    def loss(data: list[types.Datum], values: list[torch.Tensor]) -> tuple:
        parts = [-(torch.tensor(w) * p).sum() for w, p in zip(weights, values, strict=True)]
        return sum(parts), {"longest": float(max(map(len, values)))}

    built_in, custom = new_run(), new_run()
    expected = built_in.forward_backward(weighted, "cross_entropy").result()
    submitted = custom.forward_backward_custom([datum(row) for row in rows], loss)
    found_gradients = gradients(custom, tiny_checkpoints)  # the step is sent before the answer
    found = submitted.result()
    assert found.metrics["loss:sum"] == pytest.approx(expected.metrics["loss:sum"], rel=1e-4)
    assert found.metrics["longest"] == 16
    for ours, theirs in zip(logprobs(found), logprobs(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert_close(found_gradients, gradients(built_in, tiny_checkpoints), rtol=1e-4)


def test_a_custom_loss_over_several_chunks(new_run: NewRun):
    rows = [[3 + i % 400, 7, 9] for i in range(CHUNK + 20)]

    def loss(data: list[types.Datum], values: list[torch.Tensor]) -> tuple:
        assert len(values) == len(rows)
        return torch.cat(values).square().sum(), {}

    run = new_run()
    output = run.forward_backward_custom([datum(row) for row in rows], loss).result()
    expected = np.square(np.concatenate(logprobs(output))).sum()
    assert output.metrics["loss:sum"] == pytest.approx(expected, rel=1e-4)
    norm = run.optim_step(types.AdamParams()).result().metrics["unclipped_grad_l2:mean"]
    assert norm > 0


def test_a_traced_custom_loss_runs_in_the_client(tiny_service, new_run: NewRun):
    def halved(logprobs: torch.Tensor, weights: torch.Tensor) -> tuple:
        loss = -0.5 * (logprobs * weights).sum()
        return loss, {"custom/halved:sum": loss}

    ranks = {"logprobs": 1, "weights": 1}
    loss = tiny_service.create_custom_loss(halved, input_ranks=ranks).result()
    rows = [datum(ROW, weights=[1.0] * 4), datum(OTHER_ROW, weights=[2.0, 0.0])]
    run = new_run()
    expected = run.forward(rows, "cross_entropy").result().metrics["loss:sum"]
    metrics = run.forward_backward_custom(rows, loss).result().metrics
    assert metrics["loss:sum"] == pytest.approx(expected / 2, rel=1e-4)
    assert metrics["custom/halved:sum"] == pytest.approx(expected / 2, rel=1e-4)


# Many things in flight.


def test_pipelined_requests_equal_waiting_for_each(new_run: NewRun, tiny_checkpoints):
    waiting, pipelined = new_run(), new_run()
    expected = [step(waiting, ROW, LONG_ROW) for _ in range(4)]
    adam = types.AdamParams(learning_rate=0.05)
    flying = []
    for _ in range(4):
        flying.append(pipelined.forward_backward([datum(ROW), datum(LONG_ROW)], "cross_entropy"))
        pipelined.optim_step(adam)
    assert [future.result().metrics["loss:sum"] for future in flying] == expected
    assert expected[-1] < expected[0]
    assert_identical(tensors(pipelined, tiny_checkpoints), tensors(waiting, tiny_checkpoints))


def test_two_clients_train_and_sample_at_once(tiny_engine, tiny_model, tiny_checkpoints):
    greedy = types.SamplingParams(max_tokens=12, temperature=0.0, stop=[])

    def work(row: list[int]) -> tuple:
        """Four steps, with samples from every second state drawn meanwhile."""
        service = tinker.ServiceClient(base_url=tiny_engine.base_url, api_key=tiny_engine.api_key)
        run = service.create_lora_training_client(str(tiny_model), rank=2, seed=row[0]).result()
        losses, samples = [], []
        for i in range(4):
            losses.append(step(run, row))
            if i % 2:
                sampler = run.save_weights_and_get_sampling_client().result()
                samples.append(sampler.sample(prompt(*row[:3]), 2, greedy))
        drawn = [
            [list(sequence.tokens) for sequence in sample.result().sequences] for sample in samples
        ]
        return losses, drawn, tensors(run, tiny_checkpoints)

    rows = [ROW, LONG_ROW]
    alone = [work(row) for row in rows]
    together: list[tuple | None] = [None] * len(rows)

    def collect(i: int) -> None:
        together[i] = work(rows[i])

    threads = [threading.Thread(target=collect, args=(i,)) for i in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for one, other in zip(alone, together, strict=True):
        assert other is not None
        assert one[0] == other[0]
        assert one[1] == other[1]
        assert_identical(one[2], other[2])
    assert len({tuple(map(tuple, result[1][-1])) for result in alone}) > 1
