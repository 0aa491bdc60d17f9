import itertools
import math

import numpy as np
import pytest

from cookbook.errors import ConfigError
from cookbook.rl import group_advantages

BASELINES = ("group_mean", "leave_one_out", "group_normalised")

BY_HAND = {
    "group_mean": [-0.75, 0.25, 0.25, 0.25],
    "leave_one_out": [-1.0, 1 / 3, 1 / 3, 1 / 3],
    "group_normalised": [-math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3), 1 / math.sqrt(3)],
}


@pytest.mark.parametrize("baseline", BASELINES)
def test_by_hand(baseline):
    assert group_advantages([[0, 1, 1, 1]], baseline)[0] == pytest.approx(BY_HAND[baseline])


def test_group_mean_is_the_default():
    assert group_advantages([[0.0, 1.0]])[0].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("baseline", BASELINES)
def test_ragged_groups_keep_their_sizes_and_each_sums_to_0(baseline):
    rng = np.random.default_rng(0)
    rewards = [rng.normal(size=size) for size in (5, 1, 0, 2, 9)]
    found = group_advantages(rewards, baseline)
    assert [len(group) for group in found] == [5, 1, 0, 2, 9]
    assert [float(group.sum()) for group in found] == pytest.approx([0] * 5, abs=1e-12)
    for group, own in zip(found, rewards, strict=True):
        if len(group) > 1:
            assert (np.argsort(group) == np.argsort(own)).all()


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -2.7, 1e-30])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 10])
def test_constant_groups_are_exactly_0(baseline, value, size):
    assert group_advantages([[value] * size], baseline)[0].tolist() == [0.0] * size


def test_groups_do_not_see_each_other():
    both = group_advantages([[0, 1], [5, 9]])
    assert [group.tolist() for group in both] == [[-0.5, 0.5], [-2.0, 2.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_not_finite_is_refused(bad):
    with pytest.raises(ConfigError, match=r"rewards are \[0\.0, .*; all must be finite numbers"):
        group_advantages([[1.0, 2.0], [0.0, bad]])


def test_an_unknown_baseline_is_refused_with_the_known_ones():
    with pytest.raises(
        ConfigError, match="'mean'; allowed: group_mean, leave_one_out, group_normalised"
    ):
        group_advantages([], "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_expected_gradient_on_a_bandit_of_two_actions(size, p):
    """All 2^G groups, each with its probability: policy p = sigmoid(theta), gradient in theta."""
    rewards, scores = (0.3, 1.7), (-p, 1 - p)  # of action 0 and 1; scores: d log pi / d theta
    expected = dict.fromkeys(BASELINES, 0.0)
    for actions in itertools.product((0, 1), repeat=size):
        chance = math.prod(p if action else 1 - p for action in actions)
        for baseline in BASELINES:
            advantages = group_advantages([[rewards[a] for a in actions]], baseline)[0]
            estimate = np.mean(advantages * [scores[a] for a in actions])
            expected[baseline] += chance * float(estimate)
    truth = p * (1 - p) * (rewards[1] - rewards[0])
    assert expected["leave_one_out"] == pytest.approx(truth)
    assert expected["group_mean"] == pytest.approx(truth * (size - 1) / size)
    assert expected["group_normalised"] > 0  # the right direction, another length
