"""A bandit whose optimum is known, trained through a real engine process."""

import math
from pathlib import Path

import pytest

from cookbook.rl import Config, Step, Task, train
from cookbook.runlog import read_metrics
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


@pytest.mark.parametrize("loss_fn", ["importance_sampling", "ppo", "cispo"])
def test_a_bandit_is_solved(token_renderer, tiny_service, tiny_model: Path, tmp_path, loss_fn):
    before = chance(tiny_service, base_model=str(tiny_model))
    config = Config(
        model_name=str(tiny_model),
        dataset="bandit",
        learning_rate=0.05,
        lora_rank=4,
        prompts_per_step=1,
        group_size=512,
        max_tokens=1,
        max_steps=12,
        loss_fn=loss_fn,
        save_every=0,
        keep_groups=1,
        log_path=str(tmp_path / "run"),
    )
    task = Task("bandit", [problem("b", Bandit)])
    result = train(
        config,
        task,
        tiny_service,
        on_step=print,
    )
    after = chance(tiny_service, model_path=result.sampler_path)
    print(f"{before=} {after=}")
    assert before < 0.02
    assert after > 0.9
    first = read_metrics(result.log_path)[0]
    assert first["env/all/reward/total"] < 0.05
    assert abs(first["optim/kl_sample_train_v1"]) < 1e-4
