"""What the engine refuses: each request's message, and that client and gradients stay sound."""

import itertools
import math
import re
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import tinker
import torch
from tinker import types
from tinker.proto import tinker_public_pb2 as pb
from tokenizers import Tokenizer

from cookbook.engine.base import load_weights
from cookbook.engine.config import read_config
from cookbook.engine.generation import GenerationBatch, SampleRequest, SampleResult
from cookbook.engine.sampling import SamplingSettings
from tests.engine.processes import (
    CONTEXT,
    VOCABULARY,
    RawRun,
    failure,
    forward_backward_message,
    result,
)
from tests.engine.sdk import datum, deprecated, prompt, step

ROW = [5, 6, 7, 8]
Run = tinker.TrainingClient
Submit = Callable[[Run], Any]


def backward(*rows: types.Datum, loss: str = "cross_entropy", **options: Any) -> Submit:
    return lambda run: run.forward_backward(list(rows), loss, **options)  # pyright: ignore


def inputs(loss: str = "cross_entropy", **arrays: Any) -> Submit:
    """A batch whose second datum has these inputs."""
    values = {"target_tokens": np.asarray(ROW[1:]), **arrays}
    values = {name: np.asarray(value) for name, value in values.items() if value is not None}
    bad = types.Datum(model_input=prompt(*ROW[:-1]), loss_fn_inputs=values)
    good = datum(ROW, **{name: [0.0] * 3 for name in extra_inputs(loss)})
    return backward(good, bad, loss=loss)


def extra_inputs(loss: str) -> tuple[str, ...]:
    return ("logprobs", "advantages") if loss == "importance_sampling" else ()


def adam(**values: float) -> Submit:
    return lambda run: run.optim_step(types.AdamParams(**values))


def save(name: str, **options: Any) -> Submit:
    return lambda run: run.save_state(name, **options)


def save_sampler(name: str, **options: Any) -> Submit:
    return lambda run: run.save_weights_for_sampler(name, **options)


def load(path: str) -> Submit:
    def submit(run: Run) -> Any:
        with deprecated():
            return run.load_state(path.format(run=run.model_id))

    return submit


def twice(submit: Submit) -> Submit:
    """The second of two equal requests."""

    def both(run: Run) -> Any:
        submit(run).result()
        return submit(run)

    return both


IMAGE = types.ImageChunk(data=b"", format="png", expected_tokens=1)
NAME_RULE = "allowed are letters, digits"
TRAINING = {
    "unknown loss": (backward(datum(ROW), loss="hinge"), "loss_fn is 'hinge'; this engine has"),
    "loss without a public definition": (
        backward(datum(ROW), loss="stable_reinforce"),
        "loss_fn is 'stable_reinforce'",
    ),
    "bounds that have no default": (
        backward(datum(ROW), loss="gspo", loss_fn_config={"clip_low_threshold": 0.9}),
        "lacks clip_high_threshold; gspo has no default",
    ),
    "bounds meant as distances": (
        backward(
            datum(ROW),
            loss="ppo",
            loss_fn_config={"clip_low_threshold": 0.2, "clip_high_threshold": 0.2},
        ),
        r"bounds the ratio by 0.2 and 0.2; they are bounds of exp\(p - q\) itself",
    ),
    "negative beta": (
        backward(datum(ROW), loss="dro", loss_fn_config={"beta": -1.0}),
        "beta is -1",
    ),
    "key of another loss": (
        backward(datum(ROW), loss="cispo", loss_fn_config={"beta": 1.0}),
        "has beta; cispo takes clip_low_threshold, clip_high_threshold",
    ),
    "text as configuration": (
        backward(datum(ROW), loss="dro", loss_fn_config={"beta": "large"}),
        "loss_fn_config beta is 'large'; it must be a number",
    ),
    "loss configuration": (
        backward(datum(ROW), loss_fn_config={"beta": 1.0}),
        "loss_fn_config has beta; cross_entropy takes no configuration",
    ),
    "no targets": (inputs(target_tokens=None), "datum 1: .* lacks target_tokens"),
    "no advantages": (
        inputs("importance_sampling", logprobs=np.zeros(3, np.float32)),
        "datum 1: .* lacks advantages; importance_sampling needs target_tokens, logprobs",
    ),
    "unknown input": (inputs(mask=np.ones(3, np.float32)), "has unknown mask; cross_entropy takes"),
    "targets as floats": (
        inputs(target_tokens=np.ones(3, np.float32)),
        "target_tokens are float32; they must be integers",
    ),
    "weights as integers": (inputs(weights=np.ones(3, np.int64)), "weights is int64"),
    "too few targets": (
        inputs(target_tokens=ROW[2:]),
        r"target_tokens has shape \(2,\); it must be \(3,\) or \(3, K\)",
    ),
    "targets of three dimensions": (
        inputs(target_tokens=np.ones((3, 2, 2), np.int64)),
        r"shape \(3, 2, 2\)",
    ),
    "too few weights": (
        inputs(weights=np.ones(2, np.float32)),
        r"weights has shape \(2,\); target_tokens has \(3,\)",
    ),
    "weight that is no number": (
        inputs(weights=np.asarray([1, math.nan, 1], np.float32)),
        r"weights\[1\] is nan; all values must be finite",
    ),
    "infinite advantage": (
        inputs(
            "importance_sampling",
            logprobs=np.zeros(3, np.float32),
            advantages=np.asarray([0, 0, math.inf], np.float32),
        ),
        r"advantages\[2\] is inf",
    ),
    "token beyond the vocabulary": (
        backward(datum([VOCABULARY, 6, 7])),
        f"model_input holds token {VOCABULARY}; ids are 0 to {VOCABULARY - 1}",
    ),
    "negative token": (backward(datum([5, -1, 7])), "model_input holds token -1"),
    "target beyond the vocabulary": (
        backward(datum([5, 6, 999])),
        "target_tokens holds token 999",
    ),
    "empty input": (backward(datum([5])), "model_input is empty"),
    "too long": (
        backward(datum([5] * (CONTEXT + 2))),
        f"model_input has {CONTEXT + 1} tokens; the model's context is {CONTEXT}",
    ),
    "image": (
        backward(
            types.Datum(
                model_input=types.ModelInput(chunks=[IMAGE]),
                loss_fn_inputs={"target_tokens": [6]},
            )
        ),
        "a chunk of kind image; this engine reads text tokens only",
    ),
    "negative learning rate": (adam(learning_rate=-1e-3), "learning_rate is -0.001; it must be"),
    # The SDK sends null for what JSON has no number for.
    "infinite learning rate": (adam(learning_rate=math.inf), "learning_rate: Input should be a"),
    "beta of 1": (adam(beta2=1.0), "beta2 is 1.0; it must be finite and in"),
    "negative decay": (adam(weight_decay=-0.1), "weight_decay is -0.1"),
    "negative clip": (adam(grad_clip_norm=-1.0), "grad_clip_norm is -1.0"),
    "name that climbs": (save("../x"), f"name is '../x'; {NAME_RULE}"),
    "name with a folder": (save("a/b"), f"name is 'a/b'; {NAME_RULE}"),
    "empty name": (save(""), f"name is ''; {NAME_RULE}"),
    "long name": (save("a" * 129), NAME_RULE),
    "sampler name that climbs": (save_sampler(".."), f"name is '..'; {NAME_RULE}"),
    "name taken": (twice(save("taken")), "weights/taken exists already; .*overwrite=True"),
    "sampler name taken": (twice(save_sampler("taken")), "sampler_weights/taken exists already"),
    "short life": (save("x", ttl_seconds=60), "ttl_seconds is 60; allowed are 3600 to"),
    "long life": (save_sampler("x", ttl_seconds=10**10), "ttl_seconds is 10000000000"),
    "shared sampler": (
        lambda run: run.save_weights_and_get_sampling_client(kind="inflight"),
        "kind is 'inflight'; this engine makes snapshots only",
    ),
    "encrypted export": (
        lambda run: run.save_weights_external("x", age_encryption_recipients=["age1x"]),
        "does not encrypt exports",
    ),
}


@pytest.fixture(scope="module")
def run(tiny_service: tinker.ServiceClient, tiny_model: Any) -> Run:
    """The one client that makes all the bad training requests."""
    return tiny_service.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()


def gradient_norm(run: Run) -> float:
    """The norm of what has been accumulated plus one known datum; nothing is changed."""
    run.forward_backward([datum(ROW)], "cross_entropy")
    update = run.optim_step(types.AdamParams(learning_rate=0.0)).result()
    return (update.metrics or {})["unclipped_grad_l2:mean"]


@pytest.fixture(scope="module")
def clean_norm(run: Run) -> float:
    return gradient_norm(run)


@pytest.mark.parametrize(("submit", "message"), TRAINING.values(), ids=TRAINING)
def test_a_bad_training_request_fails_with_its_reason(run, clean_norm, submit, message):
    with pytest.raises(tinker.RequestFailedError, match=message) as caught:
        submit(run).result()
    assert str(caught.value.category).lower().endswith("user")
    assert gradient_norm(run) == clean_norm


def test_a_bad_request_keeps_the_gradients_of_those_before(run, clean_norm):
    run.forward_backward([datum(ROW)], "cross_entropy")
    for bad in (TRAINING["unknown loss"], TRAINING["negative learning rate"]):
        with pytest.raises(tinker.RequestFailedError):
            bad[0](run).result()
    assert gradient_norm(run) == pytest.approx(2 * clean_norm, rel=1e-5)


def test_one_bad_chunk_of_two_does_not_block_the_client(run, clean_norm):
    rows = [datum(ROW)] * 1030
    rows[7] = datum([5, -1, 7])  # in the chunk that the SDK sends last
    with pytest.raises(tinker.RequestFailedError, match=r"datum 7: .* holds token -1"):
        run.forward_backward(rows, "cross_entropy").result()
    run.optim_step(types.AdamParams(learning_rate=0.0)).result()
    assert gradient_norm(run) == clean_norm


def test_a_custom_loss_that_fails_leaves_the_run(tiny_service, tiny_model):
    """The SDK gives up such a client, as its documentation says; the engine goes on."""
    run = tiny_service.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()
    with pytest.raises(tinker.RequestFailedError, match="holds token -1"):
        run.forward_backward_custom([datum([5, -1, 7])], lambda data, p: (p[0].sum(), {})).result()
    other = tiny_service.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()
    assert step(other, ROW) > 0


def test_a_gradient_beyond_all_bounds_is_not_applied(tiny_service, tiny_model):
    run = tiny_service.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()
    before = run.forward([datum(ROW)], "cross_entropy").result().metrics
    off_policy = datum(ROW, logprobs=[-1e30] * 3, advantages=[1.0] * 3)
    run.forward_backward([off_policy], "importance_sampling").result()
    with pytest.raises(tinker.RequestFailedError, match=r"norm is (nan|inf): nothing was applied"):
        run.optim_step(types.AdamParams(learning_rate=0.1)).result()
    assert run.forward([datum(ROW)], "cross_entropy").result().metrics == before
    step(run, ROW)


# Through plain HTTP, what the SDK does not let through.


@pytest.fixture(scope="module")
def raw(tiny_engine: Any, tiny_model: Any) -> Any:
    with tiny_engine.http() as http:
        yield RawRun(http, str(tiny_model))


numbers = itertools.count(1)  # of the requests of `raw`


def no_data(message: pb.ForwardBackwardRequest) -> None:
    del message.data[:]


def bfloat16(message: pb.ForwardBackwardRequest) -> None:
    message.data[0].loss_fn_inputs["weights"].dense = bytes(6)
    message.data[0].loss_fn_inputs["weights"].dtype = pb.DTYPE_BFLOAT16


def wrong_shape(message: pb.ForwardBackwardRequest) -> None:
    message.data[0].loss_fn_inputs["target_tokens"].shape.extend([2, 2])


def wrong_columns(message: pb.ForwardBackwardRequest) -> None:
    target = message.data[0].loss_fn_inputs["target_tokens"]
    target.shape.extend([3, 2])
    target.sparse_csr.values = np.ones(3, "<i8").tobytes()
    target.sparse_csr.crow_indices = np.arange(4, dtype="<i8").tobytes()
    target.sparse_csr.col_indices = np.asarray([0, 1, 2], "<i8").tobytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_data, "the batch is empty"),
        (bfloat16, "weights has dtype DTYPE_BFLOAT16; use float32 or int64"),
        (wrong_shape, r"target_tokens has 3 values for shape \(2, 2\)"),
        (wrong_columns, r"indices do not fit its shape \(3, 2\)"),
    ],
)
def test_a_message_that_no_sdk_sends_fails_too(raw, spoil, message):
    number = next(numbers)
    content = forward_backward_message(raw.model_id, number, [ROW])
    spoil(content)
    text = failure(raw.http, raw.send_forward_backward(content))
    assert re.search(message, text)
    assert raw.loss(next(numbers), ROW) > 0


def test_another_optimizer_is_refused_in_its_turn(raw):
    body = {"optimizer_params": {"type": "dimuon", "learning_rate": 0.1}}
    assert "adamw" in failure(raw.http, raw.ordered("optim_step", next(numbers), **body))
    assert "optim_params: Field required" in failure(
        raw.http, raw.ordered("optim_step", next(numbers))
    )
    assert result(raw.http, raw.optim_step(next(numbers)))


# Making clients.


def lora(**options: Any) -> dict[str, Any]:
    return {"lora_config": {"rank": 2, **options}}


NOTHING = {"train_mlp": False, "train_attn": False, "train_unembed": False}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (lora(rank=0), 400, "lora rank is 0; allowed are 1 to 256"),
        (lora(rank=257), 400, "lora rank is 257"),
        (lora(rank="big"), 400, "lora_config.rank"),
        (lora(**NOTHING), 400, "at least one of train_attn, train_mlp, train_unembed"),
        ({"base_model": "other/model"}, 400, "base model is 'other/model'; this engine serves"),
        (
            {"optimizer_config": {"type": "dimuon", "version": 1}},
            400,
            "optimizer is 'dimuon'; this engine has adamw",
        ),
        ({"session_id": "s0"}, 404, "there is no session s0"),
    ],
)
def test_a_bad_model_is_refused(raw, body, status, message):
    answer = raw.http.post("create_model", json={**raw.create, "model_seq_id": 77, **body})
    assert (answer.status_code, message in answer.json()["detail"]) == (status, True), answer.text


def test_the_sdk_passes_the_reason_on(tiny_service, tiny_model):
    with pytest.raises(tinker.BadRequestError, match="lora rank is 0"):
        tiny_service.create_lora_training_client(str(tiny_model), rank=0).result()
    with pytest.raises(tinker.BadRequestError, match=r"base model is 'other/model'.*--model"):
        tiny_service.create_lora_training_client("other/model").result()
    with pytest.raises(tinker.BadRequestError, match="base model is 'other/model'"):
        tiny_service.create_sampling_client(base_model="other/model").result()


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("tinker://s1:train:0/weights/none", tinker.NotFoundError, "there is no checkpoint"),
        ("tinker://s1:train:0/weights/..", tinker.BadRequestError, "the form is tinker://"),
        ("tinker:///etc/passwd", tinker.BadRequestError, "the form is tinker://"),
        ("tinker://s1:train:0/weights", tinker.BadRequestError, "the form is tinker://"),
    ],
)
def test_a_bad_path_is_refused(tiny_service, path, error, message):
    for create in (
        tiny_service.create_training_client_from_state,
        tiny_service.create_training_client_from_state_with_optimizer,
        lambda path: tiny_service.create_sampling_client(model_path=path),
    ):
        with pytest.raises(error, match=message):
            create(path).result()


def test_training_does_not_start_from_sampler_weights(tiny_service, run):
    path = run.save_weights_for_sampler("for-sampling-only").result().path
    with pytest.raises(tinker.RequestFailedError, match="holds sampler weights"):
        tiny_service.create_training_client_from_state(path).result()


# Sampling.


def sampling(**params: Any) -> dict[str, Any]:
    return {"sampling_params": types.SamplingParams(**{"max_tokens": 4, **params})}


SAMPLING = {
    "no tokens wanted": (sampling(max_tokens=0), "max_tokens is 0; at least 1"),
    "beyond the context": (
        sampling(max_tokens=CONTEXT),
        f"prompt length plus max_tokens exceeds the context window: 3 [+] {CONTEXT} > {CONTEXT}",
    ),
    "negative temperature": (sampling(temperature=-0.1), "temperature is -0.1"),
    "top_p of 0": (sampling(top_p=0.0), "top_p is 0.0; it must be above 0"),
    "top_p above 1": (sampling(top_p=1.5), "top_p is 1.5"),
    "top_k of 0": (sampling(top_k=0), "top_k is 0; use -1 for no limit"),
    "empty stop text": (sampling(stop=["a", ""]), "stop holds an empty string"),
    "stop token out of range": (sampling(stop=[VOCABULARY]), f"stop holds token {VOCABULARY}"),
    "no samples": ({"num_samples": 0}, "num_samples is 0; allowed are 1 to 4096"),
    "too many samples": ({"num_samples": 5000}, "num_samples is 5000"),
    "empty prompt": ({"prompt": prompt()}, "prompt is empty; at least one token"),
    "token out of range": ({"prompt": prompt(VOCABULARY)}, f"prompt holds token {VOCABULARY}"),
    "negative token": ({"prompt": prompt(5, -1)}, "prompt holds token -1"),
    "image": (
        {"prompt": types.ModelInput(chunks=[IMAGE])},
        "a chunk of kind image; text tokens only",
    ),
    "too long a table": (
        {"topk_prompt_logprobs": VOCABULARY + 1},
        f"topk_prompt_logprobs is {VOCABULARY + 1}",
    ),
    "too long a table of samples": (
        {"topk_sample_logprobs": -1},
        f"topk_sample_logprobs is -1; allowed are 0 to {VOCABULARY}",
    ),
    "too many alternatives": ({"prompt_alt_tokens_k": 5000}, "prompt_alt_tokens_k is 5000"),
    "more last tokens than there are": (
        {"include_prompt_logprobs": True, "prompt_logprobs_last_n": 3},
        "prompt_logprobs_last_n is 3; it needs prompt_logprobs and 1 to 2",
    ),
    "targets for another prompt": (
        {"target_prompt_logprobs": types.TensorData([[4], [5], [6]], "int64", [3, 1])},
        r"3 values for shape \(3, 1\); it must be \(2, K\)",
    ),
    "target out of range": (
        {"target_prompt_logprobs": types.TensorData([[4], [VOCABULARY]], "int64", [2, 1])},
        f"holds token {VOCABULARY}",
    ),
}


@pytest.fixture(scope="module")
def sampler(tiny_service: tinker.ServiceClient, tiny_model: Any) -> tinker.SamplingClient:
    return tiny_service.create_sampling_client(base_model=str(tiny_model)).result()


GOOD = {"prompt": prompt(5, 6, 7), "num_samples": 1, **sampling()}


@pytest.mark.parametrize(("changes", "message"), SAMPLING.values(), ids=SAMPLING)
def test_a_bad_sampling_request_is_refused_at_once(sampler, changes, message):
    with pytest.raises(tinker.BadRequestError, match=message):
        sampler.sample(**{**GOOD, **changes}).result()
    assert len(sampler.sample(**GOOD).result().sequences) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_params": {"max_tokens": "many"}}, "sampling_params.max_tokens"),
        ({"sampling_params": {"max_tokens": 2, "seed": 0.5}}, "sampling_params.seed"),
        ({"num_samples": None}, "num_samples"),
        ({"prompt": {"chunks": [{"type": "encoded_text"}]}}, "prompt.chunks.0"),
        ({"prompt": [5, 6]}, "prompt"),
        ({"seq_id": "one"}, "seq_id"),
    ],
)
def test_values_of_a_wrong_type_are_refused_with_their_place(raw, sampler, changes, message):
    body = {
        "sampling_session_id": sampler._sampling_session_id,
        "seq_id": 10**6,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [5]}]},
        "sampling_params": {"max_tokens": 2},
        **changes,
    }
    answer = raw.http.post("asample", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["detail"]


def test_an_unknown_sampler_is_refused(raw):
    answer = raw.http.post("asample", json={"sampling_session_id": "s0:sample:0", "seq_id": 0})
    assert answer.status_code == 404
    assert "there is no sampler s0:sample:0; the engine keeps the last 64" in answer.text
    assert raw.http.get("samplers/s0:sample:0").status_code == 404


def test_a_failure_in_the_middle_of_sampling_ends_in_an_answer(tiny_model, monkeypatch):
    """What breaks the decoding batch must not leave any client waiting, nor the batch broken."""
    weights = load_weights(tiny_model, read_config(tiny_model), torch.float32, "cpu")
    batch = GenerationBatch(weights, Tokenizer.from_file(str(tiny_model / "tokenizer.json")))
    settings = SamplingSettings(max_tokens=3)
    request = SampleRequest(prompt=np.asarray(ROW), num_samples=2, settings=settings)
    outcomes: list[SampleResult | Exception] = []
    for _ in range(2):
        batch.add(request, outcomes.append)
    batch.step()
    with monkeypatch.context() as broken:
        broken.setattr(batch.cache, "reserve", Mock(side_effect=MemoryError("no memory")))
        with pytest.raises(MemoryError):
            batch.step()
    assert [type(outcome) for outcome in outcomes] == [MemoryError, MemoryError]
    assert batch.idle
    batch.add(request, outcomes.append)
    while not batch.idle:
        batch.step()
    assert isinstance(outcomes[2], SampleResult)
    assert [len(sequence.tokens) for sequence in outcomes[2].sequences] == [3, 3]
