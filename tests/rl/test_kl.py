import asyncio
from concurrent.futures import Future

import numpy as np
import pytest

from cookbook.rl import Row, penalise_distance, reference_logprobs
from tests.rl.fakes import Sampler


def row(sampled, logprobs, advantages=None, tokens=None):
    sampled = np.array(sampled, bool)
    return Row(
        tokens=np.array(tokens or range(len(sampled))),
        sampled=sampled,
        logprobs=np.array(logprobs, float),
        advantages=np.array(advantages if advantages is not None else 0.5 * sampled, float),
    )


def random_rows(rng, n=4):
    rows = [
        row(sampled, -rng.random(len(sampled)) * sampled, rng.normal() * sampled)
        for sampled in (rng.random(rng.integers(2, 9)) < 0.6 for _ in range(n))
    ]
    return rows, [-rng.random(len(each.tokens)) for each in rows]


def test_by_hand():
    rows = [row([0, 1, 1], [0, -1, -2], [0, 0.5, 0.5]), row([0, 0, 1], [0, 0, -3], [0, 0, -1])]
    reference = [np.array([0, -2.0, -2.0]), np.array([0, -9.0, -5.0])]
    # distances 1, 0 and 2, mean 1; the prompt's -9 counts nowhere
    edited, distance = penalise_distance(rows, reference, coefficient=0.1)
    assert distance == pytest.approx(1.0)
    assert edited[0].advantages == pytest.approx([0, 0.5, 0.6])
    assert edited[1].advantages == pytest.approx([0, 0, -1.1])
    assert rows[0].advantages.tolist() == [0, 0.5, 0.5], "the rows that were given are left alone"


def test_the_edit_sums_to_0_over_the_batch():
    rows, reference = random_rows(np.random.default_rng(0))
    edited, _ = penalise_distance(rows, reference, 0.3)
    changes = [new.advantages - old.advantages for new, old in zip(edited, rows, strict=True)]
    assert sum(float(np.abs(change).sum()) for change in changes) > 0.1
    assert sum(float(change.sum()) for change in changes) == pytest.approx(0, abs=1e-12)
    assert all((change[~old.sampled] == 0).all() for change, old in zip(changes, rows, strict=True))


@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_coefficient_0_changes_nothing(discount):
    rows, reference = random_rows(np.random.default_rng(1))
    edited, distance = penalise_distance(rows, reference, 0.0, discount)
    assert distance != 0
    for new, old in zip(edited, rows, strict=True):
        assert (new.advantages == old.advantages).all()


@pytest.mark.parametrize("discount", [0.0, 0.5, 1.0])
def test_discount_by_brute_force(discount):
    rows, reference = random_rows(np.random.default_rng(2))
    pairs = list(zip(rows, reference, strict=True))
    distances = [[q - r for q, r in zip(a.logprobs, b, strict=True)] for a, b in pairs]
    chosen = [
        d for a, own in zip(rows, distances, strict=True) for d in np.array(own)[a.sampled].tolist()
    ]
    mean = sum(chosen) / len(chosen)
    edited, found = penalise_distance(rows, reference, 0.2, discount)
    assert found == pytest.approx(mean)
    for old, new, own in zip(rows, edited, distances, strict=True):
        n = len(old.tokens)
        for t in range(n):
            to_come = sum(
                discount ** (k - t) * (mean - own[k]) for k in range(t, n) if old.sampled[k]
            )
            expected = old.advantages[t] + (0.2 * to_come if old.sampled[t] else 0)
            assert new.advantages[t] == pytest.approx(expected)


def test_rows_without_a_sampled_token_do_no_harm():
    edited, distance = penalise_distance([row([0, 0], [0, 0])], [np.zeros(2)], 0.1)
    assert (edited[0].advantages.tolist(), distance) == ([0, 0], 0)


class OldSampler(Sampler):
    """Answers with a concurrent future, as SDK 0.24 does."""

    def compute_logprobs(self, prompt):
        future: Future[list[float | None]] = Future()
        future.set_result([None, *(-(self.salt + t) / 100 for t in prompt.to_ints()[1:])])
        return future


@pytest.mark.parametrize("make", [Sampler, OldSampler])
def test_reference_logprobs_stand_at_the_tokens_they_are_of(make):
    rows = [
        row([0, 1, 1], [0, -1, -1], tokens=[5, 6, 7]),
        row([0, 1], [0, -1], tokens=[8, 9]),
    ]
    found = asyncio.run(reference_logprobs(make(salt=10), rows))
    assert [each.tolist() for each in found] == [[0, -0.16, -0.17], [0, -0.19]]


def test_equal_rows_are_asked_for_once():
    asked = []

    class Noting(Sampler):
        def compute_logprobs(self, prompt):
            asked.append(prompt.to_ints())
            return super().compute_logprobs(prompt)

    rows = [row([0, 1], [0, -1], tokens=tokens) for tokens in ([8, 9], [8, 7], [8, 9])]
    found = asyncio.run(reference_logprobs(Noting(), rows))
    assert [each.tolist() for each in found] == [[0, -0.09], [0, -0.07], [0, -0.09]]
    assert sorted(asked) == [[8, 7], [8, 9]]
