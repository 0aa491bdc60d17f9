"""A bandit whose optimum is known, trained through a real engine process."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from cookbook.rl import Config, Step, Task, train
from cookbook.runlog import read_metrics
from tests.engine.processes import VOCABULARY
from tests.engine.sdk import prompt
from tests.rl.fakes import problem

BEST = 77
QUESTION = "5 9 33"


class Bandit:
    """One token to say; one of all is rewarded."""

    async def start(self):
        return [{"role": "user", "content": QUESTION}]

    async def step(self, reply):
        return Step(reward=float(reply.text == str(BEST)))


def chance(service, **which):
    """A policy's probability of the rewarded token."""
    sampler = service.create_sampling_client(**which).result()
    read = [1, *map(int, QUESTION.split())]
    return math.exp(sampler.compute_logprobs(prompt(*read, BEST)).result()[-1])


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> Config:
    """Two substeps, so that the second is off-policy and the losses differ."""
    return Config(
        model_name=str(tiny_model),
        dataset="bandit",
        learning_rate=0.05,
        lora_rank=4,
        prompts_per_step=2,
        group_size=256,
        substeps=2,
        max_tokens=1,
        max_steps=6,
        save_every=0,
        keep_groups=1,
        log_path=str(tmp_path / "run"),
    )


TASK = Task("bandit", [problem(name, Bandit) for name in ("left", "right")])


@pytest.mark.parametrize("loss_fn", ["importance_sampling", "ppo", "cispo"])
def test_a_bandit_is_solved(token_renderer, config, tiny_service, loss_fn):
    assert chance(tiny_service, base_model=config.model_name) < 1 / VOCABULARY
    result = train(replace(config, loss_fn=loss_fn), TASK, tiny_service, on_step=print)
    assert chance(tiny_service, model_path=result.sampler_path) > 0.9


def test_the_gap_of_sampler_and_trainer_shows_how_stale_the_samples_are(
    token_renderer, config, tiny_service
):
    settings = {"prompts_per_step": 2, "group_size": 16, "substeps": 1, "kl_coef": 0.05}
    many = replace(config, **settings, max_staleness=1, max_steps=3)
    metrics = read_metrics(train(many, TASK, tiny_service, on_step=print).log_path)
    assert [line["optim/staleness"] for line in metrics] == [0, 1, 1]
    assert metrics[0]["optim/kl_sample_train_v2"] < 1e-8
    assert metrics[1]["optim/kl_sample_train_v2"] > 1e-4
    # the policy starts as its reference
    assert metrics[0]["kl_policy_base"] == pytest.approx(0, abs=1e-5)
