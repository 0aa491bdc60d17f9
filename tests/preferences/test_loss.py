"""The loss, its gradients and the scores, against formulas written out a second time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cookbook.preferences import Scores, batch_loss, build_pair, dpo_loss, train_step
from cookbook.preferences.datums import answer_mask

RNG = np.random.default_rng(0)


def by_hand(chosen, rejected, reference_chosen, reference_rejected, beta):
    """Return losses and their derivatives by chosen and by rejected, in plain float64."""
    losses, slopes = [], []
    for c, r, rc, rr in zip(chosen, rejected, reference_chosen, reference_rejected, strict=True):
        z = beta * ((c - rc) - (r - rr))
        losses.append(math.log1p(math.exp(-z)) if z > 0 else -z + math.log1p(math.exp(z)))
        slopes.append(-beta / (1 + math.exp(z)))
    return np.array(losses), np.array(slopes), -np.array(slopes)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_loss_and_gradients(n, beta):
    values = RNG.normal(-50, 12, size=(4, n))
    rows = [torch.tensor(row, requires_grad=i < 2) for i, row in enumerate(values)]
    losses = dpo_loss(*rows, beta)
    losses.sum().backward()
    expected, by_chosen, by_rejected = by_hand(*values, beta)
    np.testing.assert_allclose(losses.detach(), expected, rtol=1e-12)
    np.testing.assert_allclose(rows[0].grad, by_chosen, rtol=1e-12)
    np.testing.assert_allclose(rows[1].grad, by_rejected, rtol=1e-12)


def loss_of(*numbers, beta=0.1):
    return float(dpo_loss(*(torch.tensor([float(x)]).double() for x in numbers), beta))


def test_limits():
    assert loss_of(-40, -60, -50, -50, beta=1e-9) == pytest.approx(math.log(2))
    assert loss_of(-40, -60, -40, -60) == pytest.approx(math.log(2))  # the policy is the reference
    assert loss_of(-40, -40, -50, -50) == pytest.approx(math.log(2))  # both moved alike
    assert loss_of(0, -5000, -50, -50) == pytest.approx(0)
    assert loss_of(-5000, 0, -50, -50) == pytest.approx(0.1 * 5000)  # finite, and linear


def test_swapped_answers_flip_the_sign_of_the_margin():
    there, back = loss_of(-40, -60, -45, -50), loss_of(-60, -40, -50, -45)
    margin = 0.1 * 15
    assert back - there == pytest.approx(margin)  # log sigmoid(m) - log sigmoid(-m) = m


@pytest.fixture
def pairs(renderer, comparison):
    """Three: an odd number, with answers of different lengths, and one pair that is identical."""
    longer = replace(comparison, answer_b="No. " * 9)
    same = replace(comparison, answer_b=comparison.answer_a)
    return [build_pair(renderer, row) for row in (comparison, longer, same)]


def test_the_batch_loss_sums_over_answers_and_means_over_pairs(pairs):
    datums = [datum for pair in pairs for datum in pair.datums]
    rows = [
        torch.tensor(RNG.normal(-2, 1, datum.model_input.length), requires_grad=True)
        for datum in datums
    ]
    reference = [(-10.0, -12.0), (-20.0, -15.0), (-7.0, -7.0)]
    loss, _ = batch_loss(pairs, reference, 0.3)(datums, rows)
    loss.backward()
    masks = [answer_mask(datum) for datum in datums]
    sums = [float(row.detach()[mask].sum()) for row, mask in zip(rows, masks, strict=True)]
    expected, *slopes = by_hand(sums[0::2], sums[1::2], *np.transpose(reference), 0.3)
    assert float(loss) == pytest.approx(expected.mean(), rel=1e-6)
    for i, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        wanted = mask * slopes[i % 2][i // 2] / len(pairs)
        np.testing.assert_allclose(row.grad, wanted, rtol=1e-6, atol=1e-12)


def test_an_identical_pair_has_loss_log_2_and_no_gradient_on_the_weights(pairs):
    """Its two datums are the same; the slopes cancel whatever the answer's log-probabilities."""
    same = pairs[2]
    row = torch.tensor(RNG.normal(-2, 1, same.chosen.model_input.length), requires_grad=True)
    loss, _ = batch_loss([same], [(-7.0, -7.0)], 0.1)(same.datums, [row, row])
    loss.backward()
    assert float(loss) == pytest.approx(math.log(2))
    assert float(row.grad.abs().max()) == 0


def test_training_raises_the_chosen_answer_over_the_rejected_one(
    small_service, small_engine, pairs
):
    """Through the SDK and the engine, and back with the labels swapped."""
    margins = []
    for batch in (pairs[:2], [replace(p, chosen=p.rejected, rejected=p.chosen) for p in pairs[:2]]):
        client = small_service.create_lora_training_client(str(small_engine.model), rank=4).result()
        found = [logprob_sums(batch, train_step(client, batch, [(0, 0)] * 2, 0.0, 0.1))]
        reference = [tuple(row) for row in found[0]]
        for _ in range(8):
            outputs = train_step(client, batch, reference, 1e-2, 0.1)
            found.append(logprob_sums(batch, outputs))
        margins.append((found[-1] - found[0]) @ [1, -1])
    assert (margins[0] > 1).all()
    assert (margins[1] > 1).all()


def logprob_sums(pairs, outputs):
    datums = [datum for pair in pairs for datum in pair.datums]
    sums = [
        float(np.asarray(output["logprobs"].data)[answer_mask(datum)].sum())
        for output, datum in zip(outputs, datums, strict=True)
    ]
    return np.reshape(sums, (-1, 2))


# ---- scores


def scores(policy, reference, beta=0.5):
    arrays = [[tuple(map(np.array, pair)) for pair in pairs] for pairs in (policy, reference)]
    return Scores(policy=arrays[0], reference=arrays[1], beta=beta)


def test_scores_by_hand():
    found = scores(
        policy=[([-1.0, -2.0], [-4.0]), ([-5.0], [-1.0, -1.0]), ([-3.0], [-4.0])],
        reference=[([-2.0, -2.0], [-3.0]), ([-5.0], [-1.0, -1.0]), ([-2.0], [-1.0])],
    ).metrics("test/")
    # Rewards: 0.5 and -0.5; 0 and 0 (a tie); -0.5 and -1.5.
    losses = [math.log1p(math.exp(-1)), math.log(2), math.log1p(math.exp(-1))]
    expected = {
        "test/dpo_loss": sum(losses) / 3,
        "test/accuracy": (1 + 0.5 + 1) / 3,
        "test/margin": (1 + 0 + 1) / 3,
        "test/chosen_reward": 0,
        "test/rejected_reward": -2 / 3,
        "test/chosen_logprob": -11 / 3,
        "test/rejected_logprob": -10 / 3,
        "test/ranking_accuracy": 2 / 3,
        # Squared differences: 1, 0 and 1; 0, 0 and 0; 1 and 9.
        "test/implicit_kl": (1 + 1 + 1 + 9) / 8 / 2,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    assert found["test/ranking_accuracy_ci95_low"] < 2 / 3
    assert found["test/ranking_accuracy_ci95_high"] > 2 / 3


def test_rounding_makes_no_winner():
    found = scores([([-1.0, -2.0], [-4.0])], [([-1.0, -2.0002], [-4.0])])
    assert found.accuracy == 0.5


def test_the_scores_use_the_loss_that_is_trained():
    policy, reference = [([-1.0], [-4.0])], [([-2.0], [-3.0])]
    found = replace(scores(policy, reference), pair_loss=lambda c, r, rc, rr, beta: (c - r) * beta)
    assert found.metrics()["dpo_loss"] == pytest.approx(1.5)
