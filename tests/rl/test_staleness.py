"""Sampling ahead of training: by the bounded number of steps, and by no other."""

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from cookbook.rl import Step, Task
from cookbook.rl.background import Background
from cookbook.rl.queue import RolloutQueue
from cookbook.rl.rollouts import Rollout
from tests.fake_training import Killed
from tests.rl.fakes import Sampler, forever, player, problem
from tests.rl.runs import Guess, file_name, outcome, run

N = 7


class Always(Guess):
    """Alternates its reward, so that every group teaches and each step is an update."""

    count = 0

    async def step(self, reply):
        type(self).count += 1
        return Step(reward=float(self.count))


@pytest.fixture
def many():
    """A problem for each step, so that a prompt tells the step."""
    return Task("many", [problem(f"n{i}", lambda i=i: Always(i)) for i in range(20, 20 + N)])


def sampled_at(server, posed):
    """For each step, how many updates the weights that sampled it had had."""
    by_prompt = {
        call.prompt[1]: sampler.n_updates for sampler in server.samplers for call in sampler.calls
    }
    return [by_prompt[number] for number in posed]


def posed(rollouts):
    lines = [rollouts[file_name("train", step)][0] for step in range(N)]
    return [int(line["problem"].removeprefix("n")) for line in lines]


@pytest.mark.parametrize("k", [0, 1, 2, 5, 99])
def test_a_step_is_sampled_by_the_weights_of_k_steps_before(config, many, server, k):
    result = run(replace(config, max_staleness=k, prompts_per_step=1, max_steps=N), many, server)
    _, metrics, rollouts = outcome(result, server)
    assert [line["optim/staleness"] for line in metrics] == [min(step, k) for step in range(N)]
    assert sampled_at(server, posed(rollouts)) == [max(step - k, 0) for step in range(N)]


def test_a_resumed_run_never_trains_on_older_samples(config, many, server):
    config = replace(config, max_staleness=2, prompts_per_step=1, max_steps=N, save_every=3)

    def kill(metrics):
        if metrics["step"] == 4:
            raise Killed

    with pytest.raises(Killed):
        run(config, many, server, on_step=kill)
    server.samplers.clear()
    _, metrics, rollouts = outcome(run(config, many, server), server)
    assert [line["step"] for line in metrics] == list(range(N))
    assert [line["optim/staleness"] for line in metrics] == [0, 1, 2, 0, 1, 2, 2]
    assert sampled_at(server, posed(rollouts)[3:]) == [3, 3, 3, 4]


# ---- the queue


def queue_of(log, first_step, n_steps, ahead):
    def start(background, step):
        log.append(step)
        return SimpleNamespace(groups=lambda: [step])

    return RolloutQueue(start, first_step, n_steps, ahead)


def test_what_is_started_when():
    started = []
    queue = queue_of(started, 2, 7, 2)
    seen = []
    for step in range(2, 7):
        rollouts, staleness = queue.take(step)
        seen.append((rollouts, staleness, started[-1]))
    queue.close()
    assert seen == [([2], 0, 4), ([3], 1, 5), ([4], 2, 6), ([5], 2, 6), ([6], 2, 6)]
    assert started == [2, 3, 4, 5, 6], "none beyond the last step, none twice"


def test_an_error_in_the_rollouts_is_raised_where_they_are_taken():
    def reply(rng, max_tokens):
        raise ConnectionError("the server is gone")

    def start(background, step):
        return Rollout(background, player(), Sampler(reply), [problem("a")], 2, f"{step}")

    queue = RolloutQueue(start, 0, 3, 1)
    with pytest.raises(ConnectionError, match="the server is gone"):
        queue.take(0)
    queue.close()


def test_closing_cancels_what_still_runs_and_ends_the_thread():
    before, ended = threading.active_count(), []

    async def work():
        try:
            await forever()
        finally:
            ended.append(True)

    background = Background()
    future = background.submit(work())
    background.submit(asyncio.sleep(0)).result()  # it has begun
    background.close()
    assert ended == [True]
    assert future.cancelled()
    assert threading.active_count() == before
    background.close()  # a second time does no harm


def test_closing_does_not_wait_for_what_blocks(monkeypatch):
    monkeypatch.setattr("cookbook.rl.background.LEAST_PATIENCE_S", 0.1)
    let_go, background = threading.Event(), Background()

    async def work():
        assert let_go.wait(60)

    background.submit(work())
    background.close()
    assert background._thread.is_alive()
    let_go.set()
    background._thread.join(60)
    assert not background._thread.is_alive()


def test_a_run_leaves_no_thread(config, many, server):
    before = threading.active_count()
    run(replace(config, max_staleness=2, prompts_per_step=1, max_steps=3), many, server)
    assert threading.active_count() == before
