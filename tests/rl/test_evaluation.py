import pytest

from cookbook.analysis.intervals import mean_interval, wilson_interval
from cookbook.errors import ConfigError
from cookbook.rl import Evaluation, Group, Step, Task, evaluate
from tests.rl.fakes import Sampler, Talk, episode, player, problem, turn
from tests.rl.runs import guess, run


def evaluation(*episodes):
    """Episodes given as (reward, metrics), in two groups."""
    played = [episode(turn([1], [7], reward=r, metrics=m)) for r, m in episodes]
    groups = [
        Group(problem=problem(n), episodes=es) for n, es in (("a", played[:1]), ("b", played[1:]))
    ]
    return Evaluation(groups)


def test_metrics_by_hand():
    found = evaluation(
        (1.0, {"correct": 1.0, "length": 3.0}),
        (0.0, {"correct": 0.0}),
        (1.0, {"correct": 1.0}),
        (0.5, {"length": 5.0}),
    )
    metrics = found.metrics("t")
    assert metrics["t/reward/total"] == 0.625
    assert metrics["t/total_episodes"] == 4
    assert metrics["t/correct"] == pytest.approx(2 / 3)
    bounds = [
        metrics[f"t/{name}_ci95_{end}"]
        for name in ("correct", "length", "reward/total")
        for end in ("low", "high")
    ]
    rewards = [1.0, 0.0, 1.0, 0.5]
    expected = [*wilson_interval(2, 3), *mean_interval([3.0, 5.0]), *mean_interval(rewards)]
    assert bounds == pytest.approx(expected)
    low, high = wilson_interval(2, 3)
    assert found.told() == f"0.667, 95% {low:.3f} to {high:.3f}, n = 3"


def test_a_metric_that_nothing_reports():
    with pytest.raises(ConfigError, match="no episode reports 'correct'"):
        evaluation((1.0, {})).rate()


def test_evaluate_plays_each_problem_so_often():
    sampler = Sampler()
    found = evaluate(player(), sampler, [problem("a"), problem("b")], 3, "key")
    assert [len(group.episodes) for group in found.groups] == [3, 3]
    assert found.metrics()["test/env/all/reward/total"] == 1


def test_nothing_to_evaluate_on():
    with pytest.raises(ConfigError, match="the task has no held-out problems"):
        evaluate(player(), Sampler(), [], 3, "key")
    broken = problem("a", lambda: Talk(ValueError("oops")))
    with pytest.raises(
        ConfigError, match="no held-out episode could be played: error: ValueError: oops"
    ):
        evaluate(player(), Sampler(), [broken], 3, "key")


def test_held_out_episodes_that_fail_are_reported(config, server):
    count = iter(range(10**6))
    sometimes = problem("s", lambda: Talk(ValueError("oops") if next(count) % 3 else Step()))
    with pytest.warns(UserWarning, match=r"2 episodes failed .*'s': error: ValueError: oops"):
        run(config, Task("t", [guess(20), guess(21)], [sometimes]), server)
