"""What the SDK is told, against the same model and adapter in `peft` and float64."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import tinker
import torch
from scipy.stats import chisquare
from tinker import types
from transformers import AutoModelForCausalLM

from tests.engine.processes import VOCABULARY, checkpoint_folder
from tests.engine.sdk import LINEAR_ADAM, assert_close, logprobs, prompt, saved, step, tensors

ROWS = [[5, 6, 7, 8, 9], [40, 30, 20, 10], [40, 30, 11, 12, 13, 14], list(range(100, 160))]
Inputs = dict[str, torch.Tensor]


@pytest.fixture
def pair(tiny_service: tinker.ServiceClient, tiny_model: Any, tiny_checkpoints: Any) -> Any:
    """A run that has taken two steps, so that no part of its adapter is 0, and its double."""
    run = tiny_service.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()
    for row in ROWS[:2]:
        step(run, row)
    path = run.save_weights_for_sampler("now").result().path
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    folder = str(checkpoint_folder(tiny_checkpoints, path))
    model = peft.PeftModel.from_pretrained(base, folder, is_trainable=True).double()
    return SimpleNamespace(run=run, model=model, before=saved(path, tiny_checkpoints))


def table(model: Any, tokens: list[int]) -> torch.Tensor:
    """The log-probability of every token (V) after each of these (N)."""
    return model(torch.tensor([tokens])).logits[0].log_softmax(-1)


def gradients_of(model: Any) -> dict[str, np.ndarray]:
    """The gradients of a `peft` model's adapter, under the names in a checkpoint."""
    named = {name.replace(".default", ""): one for name, one in model.named_parameters()}
    return {name: one.grad.numpy() for name, one in named.items() if one.grad is not None}


def assert_same_gradients(pair: Any, data_dir: Any, rtol: float = 5e-4) -> None:
    """Compare what the run has accumulated: its step is made the gradient itself, see `sdk`."""
    pair.run.optim_step(types.AdamParams(**LINEAR_ADAM)).result()
    after = tensors(pair.run, data_dir)
    ours = {name: before - after[name] for name, before in pair.before.items()}
    assert_close(ours, gradients_of(pair.model), rtol=rtol)


# Losses: the formulas of the documentation, with autograd for their gradients.


def cross_entropy(p: torch.Tensor, x: Inputs) -> torch.Tensor:
    return -(x["weights"] * p).sum()


def importance_sampling(p: torch.Tensor, x: Inputs) -> torch.Tensor:
    return -(x["weights"] * (p - x["logprobs"]).exp() * x["advantages"]).sum()


def ppo(low: float = 0.8, high: float = 1.2) -> Callable[..., torch.Tensor]:
    def loss(p: torch.Tensor, x: Inputs) -> torch.Tensor:
        ratio, a = (p - x["logprobs"]).exp(), x["advantages"]
        return -(x["weights"] * torch.minimum(ratio * a, ratio.clamp(low, high) * a)).sum()

    return loss


def cispo(low: float = 0.0, high: float = 4.0) -> Callable[..., torch.Tensor]:
    def loss(p: torch.Tensor, x: Inputs) -> torch.Tensor:
        ratio = (p - x["logprobs"]).exp().clamp(low, high).detach()
        return -(x["weights"] * ratio * x["advantages"] * p).sum()

    return loss


def dro(beta: float = 0.05) -> Callable[..., torch.Tensor]:
    def loss(p: torch.Tensor, x: Inputs) -> torch.Tensor:
        distance = (p - x["logprobs"]).square()
        return -(x["weights"] * (x["advantages"] * p - beta / 2 * distance)).sum()

    return loss


NARROW = {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1}
LOSSES = [
    ("cross_entropy", None, cross_entropy),
    ("importance_sampling", None, importance_sampling),
    ("ppo", None, ppo()),
    ("ppo", NARROW, ppo(0.9, 1.1)),
    ("cispo", None, cispo()),
    ("cispo", NARROW, cispo(0.9, 1.1)),
    ("dro", None, dro()),
    ("dro", {"beta": 0.7}, dro(0.7)),
]


def data_for(pair: Any, name: str) -> tuple[list[types.Datum], list[torch.Tensor], list[Inputs]]:
    """Datums of all rows, off-policy, with the reference's log-probabilities and inputs."""
    rng, datums, ours, given = np.random.default_rng(0), [], [], []
    for row in ROWS:
        p = table(pair.model, row[:-1])[torch.arange(len(row) - 1), torch.tensor(row[1:])]
        N = len(p)
        inputs = {"weights": rng.uniform(0, 2, N)}
        if name != "cross_entropy":
            inputs["logprobs"] = p.detach().numpy() + rng.uniform(-0.4, 0.4, N)
            inputs["advantages"] = rng.normal(size=N)
        inputs = {key: value.astype(np.float32) for key, value in inputs.items()}
        fields = {"target_tokens": np.asarray(row[1:]), **inputs}
        datums.append(types.Datum(model_input=prompt(*row[:-1]), loss_fn_inputs=fields))
        ours.append(p)
        given.append({key: torch.from_numpy(value).double() for key, value in inputs.items()})
    return datums, ours, given


@pytest.mark.parametrize(("name", "config", "formula"), LOSSES)
def test_a_loss_and_its_gradient_are_those_of_float64(
    pair: Any, tiny_checkpoints: Any, name: Any, config: Any, formula: Callable
) -> None:
    datums, ours, given = data_for(pair, name)
    loss = sum(formula(p, x) for p, x in zip(ours, given, strict=True))
    loss.backward()  # pyright: ignore
    output = pair.run.forward_backward(datums, name, loss_fn_config=config).result()
    assert output.metrics["loss:sum"] == pytest.approx(loss.item(), rel=1e-4)  # pyright: ignore
    assert output.metrics["num_tokens:sum"] == sum(len(p) for p in ours)
    for values, p in zip(logprobs(output), ours, strict=True):
        np.testing.assert_allclose(values, p.detach(), atol=1e-4)
    norm = np.sqrt(sum((g**2).sum() for g in gradients_of(pair.model).values()))
    told = pair.run.optim_step(types.AdamParams(learning_rate=0.0)).result().metrics
    assert told["unclipped_grad_l2:mean"] == pytest.approx(norm, rel=1e-4)
    pair.run.forward_backward(datums, name, loss_fn_config=config)
    assert_same_gradients(pair, tiny_checkpoints)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_soft_targets_and_their_gradient_are_those_of_float64(
    pair: Any, tiny_checkpoints: Any, form: str
) -> None:
    """As distillation has them: the teacher's most likely tokens and their probabilities."""
    rng, loss, datums = np.random.default_rng(1), torch.zeros((), dtype=torch.float64), []
    for row in ROWS:
        N, K = len(row) - 1, 4
        targets = torch.from_numpy(rng.integers(1, VOCABULARY, (N, K)))
        weights = torch.from_numpy(rng.dirichlet(np.ones(K), N).astype(np.float32))
        weights[::2, 2:] = 0
        targets[::2, 2:] = 0
        loss = loss - (weights * table(pair.model, row[:-1]).gather(-1, targets)).sum()
        fields = {"target_tokens": targets, "weights": weights}  # torch's become sparse
        if form == "dense":
            fields = {name: value.numpy() for name, value in fields.items()}
        datums.append(types.Datum(model_input=prompt(*row[:-1]), loss_fn_inputs=fields))
    loss.backward()
    output = pair.run.forward_backward(datums, "cross_entropy").result()
    assert output.metrics["loss:sum"] == pytest.approx(loss.item(), rel=1e-4)
    assert_same_gradients(pair, tiny_checkpoints)


def test_a_loss_of_ones_own_has_the_gradient_of_float64(pair: Any, tiny_checkpoints: Any) -> None:
    def loss(data: Any, values: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        means = torch.stack([p.mean() for p in values])
        return (means[0] - means[1]).sigmoid() + means.square().sum(), {"datums": len(values)}

    datums, ours, _ = data_for(pair, "cross_entropy")
    loss(None, ours)[0].backward()
    for datum in datums:
        del datum.loss_fn_inputs["weights"]
    assert pair.run.forward_backward_custom(datums, loss).result().metrics["datums"] == len(ROWS)
    assert_same_gradients(pair, tiny_checkpoints)


# Sampling.


@torch.no_grad()
def test_scored_prompts_are_those_of_float64(pair: Any) -> None:
    sampler = pair.run.save_weights_and_get_sampling_client().result()
    for row in ROWS:
        exact = table(pair.model, row)[:-1]
        answer = sampler.sample(
            prompt(*row),
            1,
            types.SamplingParams(max_tokens=1),
            include_prompt_logprobs=True,
            topk_prompt_logprobs=5,
        ).result()
        own = exact[torch.arange(len(row) - 1), torch.tensor(row[1:])]
        np.testing.assert_allclose(answer.prompt_logprobs[1:], own, atol=1e-4)
        best = exact.topk(5)
        for told, tokens, values in zip(
            answer.topk_prompt_logprobs[1:], best.indices, best.values, strict=True
        ):
            assert [token for token, _ in told] == tokens.tolist()
            np.testing.assert_allclose([value for _, value in told], values, atol=1e-4)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, -1, 1.0), (0.5, -1, 1.0), (1.0, 7, 1.0), (1.0, -1, 0.6), (1.5, 30, 0.8)],
)
@torch.no_grad()
def test_samples_are_drawn_from_what_float64_leaves_of_the_distribution(
    pair: Any, temperature: float, top_k: int, top_p: float
) -> None:
    """Pearson's chi-square over the draws does not reject at 1e-3 (the seed is fixed)."""
    sampler = pair.run.save_weights_and_get_sampling_client().result()
    own = table(pair.model, ROWS[0])[-1]
    exact = (own / temperature).softmax(-1).numpy()
    order = np.argsort(-exact)[: top_k if top_k > 0 else None]
    mass = exact[order].cumsum() / exact[order].sum()
    kept = order[: np.searchsorted(mass, top_p) + 1]
    settings = types.SamplingParams(
        max_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p, seed=2, stop=[]
    )
    draws = sampler.sample(prompt(*ROWS[0]), 4000, settings).result().sequences
    counts = np.zeros(VOCABULARY)
    for sequence in draws:
        (token,), (logprob,) = sequence.tokens, sequence.logprobs
        counts[token] += 1
        assert logprob == pytest.approx(own[token].item(), abs=1e-4)  # of the model itself
    assert counts.sum() == counts[kept].sum() == 4000
    expected = exact[kept] / exact[kept].sum() * 4000
    common = expected >= 5  # the rule of thumb for the test; all rarer tokens form one class
    observed, wanted = counts[kept][common], expected[common]
    if not common.all():
        observed = np.append(observed, counts[kept][~common].sum())
        wanted = np.append(wanted, expected[~common].sum())
    assert len(wanted) > 3
    assert chisquare(observed, wanted).pvalue > 1e-3
