"""A small run of the trainer on a service without a model, and what it leaves."""

import json
from pathlib import Path
from typing import Any

from cookbook.rl import Config, Problem, Result, Step, Task, train
from cookbook.runlog import read_metrics
from tests.rl.fakes import Service, problem

N_STEPS, P, G = 4, 2, 4


class Guess:
    """Rewarded for an even number; `number` is all the model reads."""

    def __init__(self, number, constant=None):
        self.number, self.constant = number, constant

    async def start(self):
        return [{"role": "user", "content": str(self.number)}]

    async def step(self, reply):
        even = float(int(reply.text) % 2 == 0)
        reward = even if self.constant is None else self.constant
        return Step(reward=reward, metrics={"correct": even})


def guess(number: int, tag: str = "", constant: float | None = None) -> Problem:
    return problem(f"n{number}", lambda: Guess(number, constant), tag=tag)


def run(config: Config, task: Task, server: Service, **options: Any) -> Result:
    """Train; the log of a step is a place to be killed at, too."""
    return train(config, task, server, **{"on_step": server.tick, **options})


def file_name(split: str, step: int) -> str:
    return f"{split}_{step:06d}.jsonl"


def timeless(log_path: Path) -> list[dict[str, Any]]:
    """All metrics of a run but the times."""
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(log_path)
    ]


def stored(log_path: Path) -> dict[str, list[dict[str, Any]]]:
    """The lines of each file of rollouts."""
    files = sorted((log_path / "rollouts").glob("*.jsonl"))
    return {file.name: [json.loads(line) for line in file.open()] for file in files}


def outcome(result: Result, server: Service) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """Weights (all updates with tokens, advantages and rates), metrics and rollouts of a run."""
    weights = server.checkpoints[result.state_path]
    assert server.checkpoints[result.sampler_path] == weights
    return weights, timeless(result.log_path), stored(result.log_path)
