"""Tournaments inside a group: who meets whom, what it pays, and what a rollout makes of it."""

import asyncio
from itertools import combinations

import numpy as np
import pytest
import tinker

from cookbook.errors import ConfigError
from cookbook.preferences import (
    AnswerEnv,
    DuelEnv,
    duel,
    matches,
    question,
    tournament,
    win_minus_loss,
)
from cookbook.rl import Config, Reply, Task, play, train
from tests.rl.fakes import STOP, Sampler, Service, TokenRenderer, player

PROMPT = [{"role": "user", "content": "9"}]


async def larger(prompt, pairs):
    """Prefer the larger number; the same number is a tie."""
    return [float(np.sign(float(a) - float(b))) for a, b in pairs]


def reply(text, finished=True):
    message = {"role": "assistant", "content": text}
    return Reply(message=message, finished=finished, n_tokens=1)


def rewards_of(*texts, chunk_size=4):
    problem = tournament("p", PROMPT, larger, chunk_size=chunk_size)
    return asyncio.run(problem.group_rewards([[reply(text)] for text in texts]))


# ---- matches


@pytest.mark.parametrize("size", range(2, 18))
@pytest.mark.parametrize("chunk_size", [2, 3, 4, 5, 8])
def test_everybody_meets_all_of_the_own_chunk_once(size, chunk_size):
    played = matches(size, chunk_size)
    assert len(set(played)) == len(played)
    assert all(first < second for first, second in played)
    met = {k: {k} | {other for pair in played if k in pair for other in pair} for k in range(size)}
    assert all(len(chunk) > 1 for chunk in met.values())
    assert all(met[other] == met[k] for k in met for other in met[k])
    largest = max(map(len, met.values()))
    assert largest <= max(chunk_size, 3)
    assert largest - min(map(len, met.values())) <= 1


@pytest.mark.parametrize("size", [0, 1])
def test_one_answer_has_no_match(size):
    assert matches(size) == []
    assert win_minus_loss(size, [], []).tolist() == [0.0] * size


def test_a_small_group_plays_all_pairs():
    assert matches(4) == list(combinations(range(4), 2))


def test_a_chunk_of_one_is_refused_before_anything_is_sampled():
    with pytest.raises(ConfigError, match="chunk_size=1: a match takes two answers"):
        tournament("p", PROMPT, larger, chunk_size=1)


# ---- rewards


def test_by_hand():
    # 3 beats both others, 1 loses to both
    assert rewards_of("3", "2", "1") == [1.0, 0.0, -1.0]
    assert rewards_of("3", "3", "1") == [0.5, 0.5, -1.0]
    margins = win_minus_loss(3, [(0, 1), (0, 2), (1, 2)], [0.5, -0.2, 0.1])
    assert margins == pytest.approx([0.15, -0.2, 0.05])


def test_ties_pay_nothing():
    assert rewards_of("7", "7", "7", "7") == [0.0] * 4


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("chunk_size", [2, 3, 4])
def test_the_rewards_of_a_group_sum_to_0(size, chunk_size):
    played = matches(size, chunk_size)
    margins = np.random.default_rng(size).uniform(-1, 1, len(played))
    rewards = win_minus_loss(size, played, margins.tolist())
    assert rewards.sum() == pytest.approx(0, abs=1e-12)
    assert np.abs(rewards).max() <= 1
    assert size == 1 or np.abs(rewards).min() > 0


def test_as_many_margins_as_matches():
    with pytest.raises(ValueError, match="zip"):
        win_minus_loss(3, matches(3), [1.0])


# ---- environments


def test_an_answer_pays_for_being_cut_off_and_its_measures_pay_nothing():
    env = AnswerEnv(PROMPT, format_weight=0.5, measures={"length": len})
    step = asyncio.run(env.step(reply("four")))
    assert (step.reward, step.done, step.metrics) == (0.0, True, {"format": 1.0, "length": 4.0})
    step = asyncio.run(env.step(reply("four", finished=False)))
    assert (step.reward, step.metrics["format"]) == (-0.5, 0.0)


@pytest.mark.parametrize(("text", "won"), [("6", 1.0), ("5", 0.5), ("4", 0.0)])
def test_a_duel_pays_for_winning(text, won):
    env = DuelEnv(PROMPT, measures={"length": len}, rival="5", prefer=larger)
    step = asyncio.run(env.step(reply(text)))
    assert step.reward == won
    assert step.metrics == {"format": 1.0, "length": 1.0, "win": won}


# ---- played


def test_a_played_group_is_rewarded_by_its_own_matches():
    problem = tournament("p", PROMPT, larger)
    (group,) = play(player(), Sampler(), [problem], 4, "key")
    numbers = [int(episode.turns[0].reply.text) for episode in group.episodes]
    assert len(set(numbers)) > 1
    wins = [sum(np.sign(n - other) for other in numbers) / 3 for n in numbers]
    assert group.rewards == pytest.approx(wins)
    assert group.rewards.sum() == pytest.approx(0)


def test_a_group_that_lost_members_compares_the_others():
    problem = tournament("p", PROMPT, larger, measures={"x": lambda text: 1 / (int(text) - 7)})
    rng_hits_7 = Sampler(reply=lambda rng, _: [rng.choice([5, 6, 7, 8]), STOP])
    (group,) = play(player(), rng_hits_7, [problem], 8, "key")
    assert 0 < len(group.failures) < 8
    assert len(group.episodes) == 8 - len(group.failures)
    assert "ZeroDivisionError" in group.failures[0]
    assert group.rewards.sum() == pytest.approx(0)
    assert np.ptp(group.rewards) > 0


def test_a_preference_that_fails_costs_its_group_only():
    async def broken(prompt, pairs):
        raise RuntimeError("the judge is away")

    problems = [tournament("a", PROMPT, broken), tournament("b", PROMPT, larger)]
    lost, kept = play(player(), Sampler(), problems, 3, "key")
    assert (len(lost.episodes), len(kept.episodes)) == (0, 3)
    assert lost.failures == ["error: RuntimeError: the judge is away"] * 3


def test_a_judge_that_is_no_longer_served_ends_the_rollout():
    async def gone(prompt, pairs):
        raise tinker.RequestFailedError("no such sampler", request_id="1", category="user")

    problems = [tournament("a", PROMPT, gone), question("b", PROMPT)]
    with pytest.raises(tinker.RequestFailedError, match="no such sampler"):
        play(player(), Sampler(), problems, 3, "key")


# ---- trained


@pytest.fixture
def service(monkeypatch):
    monkeypatch.setattr("cookbook.rl.trainer.get_renderer", lambda *_: TokenRenderer())
    return Service()


def test_a_run_on_tournaments_trains_and_only_resumes_with_the_same_judge(service, tmp_path):
    problems = [tournament(f"p{i}", PROMPT, larger) for i in range(2)]
    held_out = [duel("t", PROMPT, "5", larger, measures={"length": len})]
    task = Task("t", problems, held_out, about="tinker://judge/1")
    config = Config(
        prompts_per_step=2, group_size=4, max_steps=2, save_every=1, log_path=str(tmp_path / "run")
    )
    result = train(config, task, service, on_step=lambda _: None)
    assert set(result.after) >= {"test/env/all/win", "test/env/all/length"}
    assert result.after["test/env/all/win"] == result.after["test/env/all/reward/total"]
    trained = [advantages for batch, _ in service.checkpoints[result.state_path][1:]
               for _, advantages in batch]  # fmt: skip
    assert any(any(each) for each in trained)
    other = Task("t", problems, held_out, about="tinker://judge/2")
    with pytest.raises(ConfigError, match=r"judge/1.*there"):
        train(config, other, service, on_step=lambda _: None)


def test_a_named_reference_is_logged_at_no_cost(service, tmp_path):
    task = Task("t", [tournament(f"p{i}", PROMPT, larger) for i in range(2)])
    logged = {}
    for name, settings in {"free": {}, "measured": {"kl_reference": "tinker://r/s"}}.items():
        config = Config(
            prompts_per_step=2, group_size=4, max_steps=2, log_path=str(tmp_path / name), **settings
        )
        result = train(config, task, service, on_step=lambda _: None)
        lines = (result.log_path / "metrics.jsonl").read_text()
        logged[name] = "kl_policy_base" in lines, service.checkpoints[result.state_path]
    assert service.references == [{"model_path": "tinker://r/s"}]
    assert (logged["free"][0], logged["measured"][0]) == (False, True)
    assert logged["free"][1] == logged["measured"][1]
