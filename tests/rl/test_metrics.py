import asyncio

import numpy as np
import pytest

from cookbook.rl import Grade, Group, QuestionEnv, Reply, episode_rows
from cookbook.rl.metrics import episode_metrics, sampler_entropy, sampler_gap
from tests.rl.fakes import episode, problem, turn


def group(*rewards, tag="", **more):
    episodes = [episode(turn([1, 2], [7], [-1.0], reward=reward), **more) for reward in rewards]
    return Group(problem=problem("p", tag=tag), episodes=episodes)


def test_groups_are_told_apart_by_their_rewards():
    metrics = episode_metrics([group(0, 1), group(0.5, 0.5), group(0, 0), group(0.5, 0.6), group()])
    assert metrics["env/all/reward/total"] == pytest.approx(3.1 / 8)
    kinds = {name: metrics[f"env/all/by_group/frac_{name}"] for name in ("mixed", "all_good")}
    assert kinds == {"mixed": 0.5, "all_good": 0.5}
    assert metrics["env/all/by_group/frac_all_bad"] == 0.25


def test_tags_are_logged_apart_if_there_are_several():
    metrics = episode_metrics([group(0, 1, tag="a"), group(1, 1, tag="b")])
    found = [metrics[f"env/{name}/reward/total"] for name in ("all", "a", "b")]
    assert found == [0.75, 0.5, 1.0]
    assert not [name for name in episode_metrics([group(0, tag="a")]) if name.startswith("env/a/")]


def test_cut_off_episodes_are_counted():
    cut = episode_metrics([group(0, ending="max_turns"), group(0), group(0), group(0)])
    assert cut["env/all/frac_unfinished"] == 0.25


def test_entropy_and_lengths_by_hand():
    played = [
        episode(turn([1], [7, 8], [-1, -2]), turn([1, 7, 8, 9], [7], [-6])),
        episode(turn([1], [7, 8, 9], [-1, -1, -1])),
    ]
    groups = [Group(problem=problem("p"), episodes=played)]
    assert sampler_entropy(groups) == pytest.approx(2.0)
    metrics = episode_metrics(groups)
    names = ("ac_tokens_per_turn", "ob_tokens_per_turn", "turns_per_episode", "total_ac_tokens")
    assert [metrics[f"env/all/{name}"] for name in names] == [2, 2, 1.5, 6]


def test_the_gap_counts_sampled_tokens_only():
    rows = episode_rows(episode(turn([1, 2], [7, 8], [-1, -2])), 1.0)
    found = sampler_gap(rows, [np.array([-50.0, -1.5, -1.5])])
    assert found["optim/kl_sample_train_v1"] == pytest.approx(0)
    assert found["optim/kl_sample_train_v2"] == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("grade", "finished", "reward"),
    [
        (Grade(correct=True), True, 1.0),
        (Grade(correct=True, well_formed=False), True, 0.9),
        (Grade(correct=False), True, 0.0),
        (Grade(correct=False, well_formed=False), True, -0.1),
        (Grade(correct=True), False, -0.1),
    ],
)
def test_rewards_of_a_question(grade, finished, reward):
    env = QuestionEnv(messages=[], grade=lambda text: grade, format_weight=0.1)
    message = {"role": "assistant", "content": "42"}
    step = asyncio.run(env.step(Reply(message=message, finished=finished, n_tokens=1)))
    assert step.done
    assert step.reward == pytest.approx(reward)
    assert step.metrics["correct"] == float(grade.correct and finished)
