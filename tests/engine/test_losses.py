"""Every loss, its gradient and its metrics, through the SDK, against float64 written out by hand.

The gradient of any loss through the model is that of cross-entropy whose weights are the loss's
derivatives with respect to the log-probabilities, so the two must leave the same gradients.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tinker
from tinker import types

from tests.engine.sdk import assert_close, datum, gradients, logprobs

ROWS = [[5, 6, 7, 8, 9], [40, 30, 20, 10], [40, 30, 11, 12, 13, 14]]
NewRun = Callable[..., tinker.TrainingClient]


def values_and_slopes(
    name: str, config: dict[str, float], p: np.ndarray, r: np.ndarray, q: np.ndarray, a: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each position and its derivative by p, in float64; `r` are the ratios."""
    if name == "importance_sampling":
        return -r * a, -r * a
    if name == "dro":
        d = p - q
        return -(a * p - config["beta"] / 2 * d**2), -(a - config["beta"] * d)
    low, high = config["clip_low_threshold"], config["clip_high_threshold"]
    clipped = np.clip(r, low, high)
    if name == "cispo":
        return -clipped * a * p, -clipped * a
    chosen = np.where(r * a <= clipped * a, r * a, clipped * a)
    moves = (r * a <= clipped * a) | ((r > low) & (r < high))
    return -chosen, np.where(moves, -r * a, 0.0)


CASES = [
    ("importance_sampling", {}, {}),
    ("ppo", {}, {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}),
    ("ppo", {"clip_low_threshold": 0.5, "clip_high_threshold": 1.05}, None),
    ("gspo", {"clip_low_threshold": 0.9, "clip_high_threshold": 1.02}, None),
    ("cispo", {}, {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0}),
    ("cispo", {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1}, None),
    ("dro", {}, {"beta": 0.05}),
    ("dro", {"beta": 0.7}, None),
]


@pytest.mark.parametrize("shift", [0.0, 0.4], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize(("name", "given", "defaults"), CASES)
def test_a_loss_is_what_its_formula_says(
    new_run: NewRun, tiny_checkpoints: Any, name: str, given: dict, defaults: dict, shift: float
) -> None:
    config = given if defaults is None else defaults
    run, reference = new_run(), new_run()
    before = [np.asarray(values) for values in logprobs(run.forward(
        [datum(row) for row in ROWS], "cross_entropy").result())]  # fmt: skip
    rng = np.random.default_rng(0)
    q = [(p + rng.uniform(-shift, shift, len(p))).astype(np.float32) for p in before]
    a = [rng.normal(size=len(p)).astype(np.float32) for p in before]
    w = [np.asarray([1.0, 0.0, *[0.5] * (len(p) - 2)], np.float32) for p in before]
    masks = [np.asarray([0.0, *[1.0] * (len(p) - 1)], np.float32) for p in before]
    masks[1][:] = 0  # a sequence without any position to average has the ratio 1
    extra = [{"sequence_ratio_mask": mask} if name == "gspo" else {} for mask in masks]
    rows = [
        datum(row, logprobs=q_i, advantages=a_i, weights=w_i, **more)
        for row, q_i, a_i, w_i, more in zip(ROWS, q, a, w, extra, strict=True)
    ]
    output = run.forward_backward(rows, name, loss_fn_config=given or None).result()  # pyright: ignore

    p, q64, a64, w64 = (np.concatenate(part).astype(np.float64) for part in (before, q, a, w))
    ratio = np.exp(p - q64)
    if name == "gspo":
        parts = zip(before, q, masks, strict=True)
        logs = [((p_i - q_i) * m).sum() / max(m.sum(), 1) for p_i, q_i, m in parts]
        ratio = np.exp(np.repeat(logs, [len(part) for part in before]))
    values, slopes = values_and_slopes(name, config, p, ratio, q64, a64)
    assert output.metrics["loss:sum"] == pytest.approx((w64 * values).sum(), rel=1e-4, abs=1e-4)
    trained = w64 != 0
    mean = {
        "ppo_mean_ratio:mean": ratio[trained].mean(),
        "ppo_kl_div:mean": (q64 - p)[trained].mean(),
    }
    if "clip_low_threshold" in config:
        outside = (ratio < config["clip_low_threshold"]) | (ratio > config["clip_high_threshold"])
        mean["ppo_clipped_fraction:mean"] = outside[trained].mean()
    told = {key: value for key, value in output.metrics.items() if key.startswith("ppo_")}
    assert told == pytest.approx(mean, abs=1e-4)

    ends = np.cumsum([len(row) - 1 for row in ROWS])[:-1]
    weights = np.split((-w64 * slopes).astype(np.float32), ends)
    same = [datum(row, weights=part) for row, part in zip(ROWS, weights, strict=True)]
    reference.forward_backward(same, "cross_entropy").result()
    ours, theirs = (gradients(r, tiny_checkpoints) for r in (run, reference))
    assert_close(ours, theirs, rtol=1e-3)


def test_a_batch_without_any_advantage_has_no_ratio_metrics_and_no_gradient(
    new_run: NewRun,
) -> None:
    run = new_run()
    zeros = np.zeros(4, np.float32)
    row = datum(ROWS[0], logprobs=zeros, advantages=zeros)
    output = run.forward_backward([row], "ppo").result()
    assert output.metrics["loss:sum"] == 0
    assert not [name for name in output.metrics if name.startswith("ppo_")]
    assert run.optim_step(types.AdamParams()).result().metrics == {"unclipped_grad_l2:mean": 0.0}


def test_ratio_metrics_are_means_over_chunks_of_a_batch(new_run: NewRun) -> None:
    """More datums than the SDK sends in one request: the client averages what each one reports."""
    run = new_run()
    (p,) = logprobs(run.forward([datum(ROWS[1])], "cross_entropy").result())
    q, ones = np.asarray(p, np.float32) - np.float32(0.1), np.ones(3, np.float32)
    rows = [datum(ROWS[1], logprobs=q, advantages=ones)] * 1100
    metrics = run.forward_backward(rows, "ppo").result().metrics
    assert metrics["ppo_mean_ratio:mean"] == pytest.approx(np.exp(0.1), rel=1e-3)
    assert metrics["ppo_clipped_fraction:mean"] == 0
