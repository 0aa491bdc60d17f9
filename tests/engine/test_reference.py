"""The engine's numbers against `transformers` + `peft` on the same weights, in float32."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from cookbook.engine.adam import AdamSettings
from cookbook.engine.base import Weights, load_weights
from cookbook.engine.config import read_config
from cookbook.engine.generation import GenerationBatch, SampleRequest, SampleResult
from cookbook.engine.lora import Adapter, LoraSpec, save_adapter
from cookbook.engine.losses import loss_call
from cookbook.engine.prompt_scores import PromptQuestions
from cookbook.engine.sampling import SamplingSettings, choose, new_sequence
from cookbook.engine.trainer import TrainingDatum, TrainingRun

RANK = 4
CROSS_ENTROPY = loss_call("cross_entropy", {})
OPENING = "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"
TEXTS = (
    "Bread rises.",
    "Rain falls when drops in a cloud grow too heavy for the air to hold.",
    "A recipe is a list of steps.\n\n1. Mix flour and water.\n2. Wait an hour.\n3. Bake it hot.",
    OPENING + "Air scatters blue light more than red.<|im_end|>",
    OPENING + "Because of scattering in the air.<|im_end|>",
)


def random_adapter(weights: Weights, seed: int = 0) -> Adapter:
    """An adapter whose B is not zero, so that every part of it matters."""
    adapter = Adapter.new(LoraSpec(rank=RANK), weights.config.linear_shapes(), seed, "cpu")
    generator = torch.Generator().manual_seed(seed)
    for pair in adapter.pairs.values():
        pair.b.data.normal_(0, 0.01, generator=generator)
    return adapter


def batch_of_datums(tokenizer: Tokenizer) -> list[TrainingDatum]:
    """Datums of different lengths; the last two begin alike, so they share packed rows.

    Real sentences, not random tokens: on those a few activations of this model are so large that
    float32 itself is off by more than the tolerance (measured against float64).
    """
    rng = np.random.default_rng(0)
    sequences = [np.asarray(tokenizer.encode(text).ids) for text in TEXTS]
    return [
        TrainingDatum(
            tokens[:-1], tokens[1:], {"weights": rng.random(len(tokens) - 1, dtype=np.float32)}
        )
        for tokens in sequences
    ]


@pytest.fixture(scope="module")
def weights(model_dir: Path) -> Weights:
    """The bundled model in float32."""
    return load_weights(model_dir, read_config(model_dir), torch.float32, "cpu")


@pytest.fixture
def reference(model_dir: Path, weights: Weights, tmp_path: Path) -> SimpleNamespace:
    """The same model and adapter in peft (read from the engine's own files), and in the engine."""
    adapter = random_adapter(weights)
    save_adapter(adapter, tmp_path, "the base model")
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, str(tmp_path), is_trainable=True)
    return SimpleNamespace(model=model, run=TrainingRun(weights, adapter))


def reference_loss(model: Any, data: list[TrainingDatum]) -> tuple[list[torch.Tensor], Any]:
    """Per-datum logprobs, one sequence at a time without padding, and the weighted sum's loss."""
    logprobs = []
    for datum in data:
        logits = model(torch.from_numpy(datum.tokens)[None]).logits[0]
        targets = torch.from_numpy(datum.targets)
        logprobs.append(logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0])
    pairs = zip(logprobs, data, strict=True)
    return logprobs, -sum((torch.from_numpy(d.inputs["weights"]) * p).sum() for p, d in pairs)


def reference_parameters(model: Any, adapter: Adapter) -> Iterator[tuple[torch.Tensor, Any]]:
    """Pairs of (our parameter, peft's parameter)."""
    theirs = dict(model.named_parameters())
    for path, pair in adapter.pairs.items():
        for letter, ours in (("A", pair.a), ("B", pair.b)):
            yield ours, theirs[f"base_model.model.{path}.lora_{letter}.default.weight"]


def test_logprobs_gradients_and_adam_steps_match_peft(
    reference: SimpleNamespace, tokenizer: Tokenizer
) -> None:
    model, run = reference.model, reference.run
    data = batch_of_datums(tokenizer)
    settings = AdamSettings(learning_rate=1e-4, weight_decay=0.01, grad_clip_norm=1.0)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=1e-4, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.01,
    )  # fmt: skip
    for _ in range(2):
        result = run.forward_backward(data, CROSS_ENTROPY)
        logprobs, loss = reference_loss(model, data)
        for ours, theirs in zip(result.logprobs, logprobs, strict=True):
            np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-4)
        assert result.metrics["loss:sum"] == pytest.approx(loss.item(), rel=1e-5)
        loss.backward()
        for ours, theirs in reference_parameters(model, run.adapter):
            error = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
            assert error < 1e-3
            # Adam's first step divides each gradient by its own size, which would blow rounding
            # errors up to whole steps: the optimisers are compared on the same gradients.
            theirs.grad.copy_(ours.grad)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        metrics = run.optim_step(settings)
        assert metrics["unclipped_grad_l2:mean"] == pytest.approx(norm.item(), rel=1e-4)
        optimizer.step()
        optimizer.zero_grad()
        for ours, theirs in reference_parameters(model, run.adapter):
            torch.testing.assert_close(ours.data, theirs.data, atol=1e-5, rtol=0)


def test_adam_step_is_torch_adamw_on_the_same_gradients(weights: Weights) -> None:
    run = TrainingRun(weights, random_adapter(weights))
    copies = [p.detach().clone().requires_grad_() for p in run.adapter.parameters()]
    settings = {"weight_decay": 0.1, "eps": 1e-8}
    optimizer = torch.optim.AdamW(copies, betas=(0.9, 0.95), **settings)
    for step in range(5):
        learning_rate = 1e-3 / (step + 1)
        for ours, copy in zip(run.adapter.parameters(), copies, strict=True):
            ours.grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(step))
            copy.grad = ours.grad.clone()
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.step()
        run.optim_step(AdamSettings(learning_rate=learning_rate, **settings))
        for ours, copy in zip(run.adapter.parameters(), copies, strict=True):
            torch.testing.assert_close(ours, copy, atol=1e-5, rtol=0)


def test_packing_and_accumulation_change_nothing_but_rounding(
    weights: Weights, tokenizer: Tokenizer
) -> None:
    data = batch_of_datums(tokenizer)
    together = TrainingRun(weights, random_adapter(weights))
    apart = TrainingRun(weights, random_adapter(weights))
    joint = together.forward_backward(data, CROSS_ENTROPY)
    single = [apart.forward_backward([datum], CROSS_ENTROPY).logprobs[0] for datum in data]
    for a, b in zip(joint.logprobs, single, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(together.adapter.parameters(), apart.adapter.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).norm() / b.grad.norm() < 1e-3


def test_training_repeats_bit_for_bit(weights: Weights, tokenizer: Tokenizer) -> None:
    data = batch_of_datums(tokenizer)
    runs = [TrainingRun(weights, random_adapter(weights)) for _ in range(2)]
    for run in runs:
        for _ in range(2):
            run.forward_backward(data, CROSS_ENTROPY)
            run.optim_step(AdamSettings(learning_rate=1e-3))
    for a, b in zip(runs[0].adapter.parameters(), runs[1].adapter.parameters(), strict=True):
        assert torch.equal(a, b)


def test_importance_sampling_value_and_gradient(weights: Weights, tokenizer: Tokenizer) -> None:
    """On its own samples (p = q) the loss is -sum(A) and its gradient that of -sum(A p)."""
    rng = np.random.default_rng(1)
    data, plain = [], []
    run = TrainingRun(weights, random_adapter(weights))
    for datum in batch_of_datums(tokenizer):
        advantages = rng.normal(size=len(datum.tokens)).astype(np.float32)
        logprobs = run.forward([datum], CROSS_ENTROPY).logprobs[0]
        inputs = {"logprobs": logprobs, "advantages": advantages}
        inputs["weights"] = np.ones_like(advantages)
        data.append(TrainingDatum(datum.tokens, datum.targets, inputs))
        plain.append(TrainingDatum(datum.tokens, datum.targets, {"weights": advantages}))
    result = run.forward_backward(data, loss_call("importance_sampling", {}))
    total = sum(float(datum.inputs["advantages"].sum()) for datum in data)
    assert result.metrics["loss:sum"] == pytest.approx(-total, abs=1e-3)
    other = TrainingRun(weights, random_adapter(weights))
    other.forward_backward(plain, CROSS_ENTROPY)
    for a, b in zip(run.adapter.parameters(), other.adapter.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert (a.grad - b.grad).norm() / b.grad.norm() < 1e-3


def sample(batch: GenerationBatch, *requests: SampleRequest) -> list[SampleResult]:
    """Run requests to their end, each joining a step after the one before."""
    results: list[Any] = [None] * len(requests)
    for i, request in enumerate(requests):
        batch.add(request, lambda result, i=i: results.__setitem__(i, result))
        batch.step()
        batch.step()
    while not batch.idle:
        batch.step()
    return results


def prompt(tokenizer: Tokenizer, text: str) -> np.ndarray:
    """Token ids of a chat turn."""
    chat = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return np.asarray(tokenizer.encode(chat).ids)


@pytest.fixture(scope="module")
def tokenizer(model_dir: Path) -> Tokenizer:
    """The bundled model's tokenizer, as the engine reads it."""
    return Tokenizer.from_file(str(model_dir / "tokenizer.json"))


def test_temperature_zero_is_greedy_decoding(
    reference: SimpleNamespace, tokenizer: Tokenizer
) -> None:
    texts = ["What is the capital of France?", "Name a colour.", "Count to five, please."]
    batch = GenerationBatch(reference.run.base, tokenizer, reference.run.adapter)
    settings = SamplingSettings(max_tokens=16, temperature=0.0, stop_ids=frozenset({2}))
    requests = [
        SampleRequest(prompt=prompt(tokenizer, text), num_samples=i + 1, settings=settings)
        for i, text in enumerate(texts)
    ]
    for request, result in zip(requests, sample(batch, *requests), strict=True):
        ids = torch.from_numpy(request.prompt)[None]
        with torch.no_grad():
            theirs = reference.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16,
                do_sample=False,
            )  # fmt: skip
        expected = theirs[0, len(request.prompt) :].tolist()
        assert [s.tokens for s in result.sequences] == [expected] * request.num_samples


def test_samples_beyond_the_limit_wait_their_turn(
    reference: SimpleNamespace, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SamplingSettings(max_tokens=3, temperature=0.0, stop_ids=frozenset({2}))
    requests = [
        SampleRequest(prompt=prompt(tokenizer, text), num_samples=count, settings=settings)
        for text, count in (("Name a colour.", 2), ("Count.", 2), ("Hello!", 5), ("Why?", 1))
    ]

    def run() -> tuple[list[list[list[int]]], set[int]]:
        batch = GenerationBatch(reference.run.base, tokenizer, reference.run.adapter)
        told: list[Any] = [None] * len(requests)
        for i, request in enumerate(requests):
            batch.add(request, lambda result, i=i: told.__setitem__(i, result))
        sizes = set()
        while not batch.idle:
            batch.step()
            sizes.add(len(batch.running))
        return [[s.tokens for s in result.sequences] for result in told], sizes - {0}

    together, sizes = run()
    assert sizes == {10}
    longest = max(len(request.prompt) for request in requests) + settings.max_tokens
    monkeypatch.setattr("cookbook.engine.generation.MAX_PLACES", 3 * longest)
    # The third asks for more than the limit, so it runs alone.
    assert run() == (together, {2, 5, 1})


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
def test_sampled_logprobs_are_the_trainers(
    model_dir: Path, tokenizer: Tokenizer, dtype: torch.dtype, limit: float
) -> None:
    weights = load_weights(model_dir, read_config(model_dir), dtype, "cpu")
    run = TrainingRun(weights, random_adapter(weights))
    batch = GenerationBatch(weights, tokenizer, run.adapter)
    request = SampleRequest(
        prompt=prompt(tokenizer, "Tell me about rain."),
        num_samples=4,
        settings=SamplingSettings(max_tokens=12, seed=3),
        questions=PromptQuestions(logprobs=True),
    )
    (result,) = sample(batch, request)
    P = len(request.prompt)
    errors = []
    for sequence in result.sequences:
        tokens = np.concatenate([request.prompt, sequence.tokens])
        zeros = np.zeros(len(tokens) - 1, np.float32)
        datum = TrainingDatum(tokens[:-1], tokens[1:], {"weights": zeros})
        trained = run.forward([datum], CROSS_ENTROPY).logprobs[0]
        errors.append(np.abs(trained[P - 1 :] - np.asarray(sequence.logprobs)))
        assert result.scores.logprobs is not None
        errors.append(np.abs(trained[: P - 1] - result.scores.logprobs[1:]))
    joined = np.concatenate(errors)
    measured = joined.max() if dtype == torch.float32 else joined.mean()
    assert measured < limit


@pytest.mark.parametrize(("temperature", "top_k", "draws"), [(1.0, -1, 4000), (0.7, 20, 1000)])
def test_samples_follow_the_exact_distribution(
    weights: Weights, tokenizer: Tokenizer, temperature: float, top_k: int, draws: int
) -> None:
    """Pearson's chi-square over the draws does not reject at 1e-3 (fixed seeds)."""
    ids = torch.from_numpy(prompt(tokenizer, "Name an animal."))
    batch = GenerationBatch(weights, tokenizer)
    (result,) = sample(
        batch,
        SampleRequest(
            prompt=ids.numpy(), num_samples=1, settings=SamplingSettings(max_tokens=1),
            questions=PromptQuestions(topk=weights.config.vocab_size),
        ),
    )  # fmt: skip
    assert result.scores.topk is not None
    V = weights.config.vocab_size
    logits = torch.zeros(V)
    logits[result.scores.topk.tokens[-1]] = torch.from_numpy(result.scores.topk.logprobs[-1])
    exact = (logits.double() / temperature).softmax(-1)
    if top_k > 0:
        exact[exact < exact.topk(top_k).values[-1]] = 0
        exact /= exact.sum()
    settings = SamplingSettings(max_tokens=1, temperature=temperature, top_k=top_k, seed=11)
    counts = np.zeros(V)
    for start in range(0, draws, 500):
        sequences = [new_sequence(settings, start + i) for i in range(500)]
        tokens, _ = choose(logits.expand(500, V), sequences)
        np.add.at(counts, tokens, 1)
    expected = exact.numpy() * draws
    common = expected >= 5  # the rule of thumb for the test; all rarer tokens form one class
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0
    assert observed[~keep].sum() == 0
    assert chisquare(observed[keep], wanted[keep] * draws / wanted[keep].sum()).pvalue > 1e-3
