"""Make the sick runs again: `python results/reference/sick/make.py [NAME ...]`, half a minute each.

A sick run has one fault and is otherwise the healthy one beside it: the data and the tasks of
`sl_basic` and `rl_basic`, in smaller steps. Logs are made aside, then copied over what is here.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tinker

from cookbook import rl, supervised
from cookbook.data import Batches, load_train_and_test
from cookbook.envs import load_task
from cookbook.envs.comparisons import comparison_task, grade_strictly
from cookbook.rendering import get_renderer, render_training
from cookbook.runlog import RunLog
from cookbook.service import connect

HERE = Path(__file__).resolve().parent
FILES = ("config.json", "run.json", "metrics.jsonl", "checkpoints.jsonl")
ToDatum = Callable[[Any, Any], tinker.Datum]


def train_answers(renderer: Any, row: Any) -> tinker.Datum:
    """Return the healthy datum: answers are trained, targets are shifted by one."""
    return supervised.build_datums(renderer, [row])[0]


def train_questions(renderer: Any, row: Any) -> tinker.Datum:
    """Return a datum that trains what the user says instead of what the assistant answers."""
    return supervised.build_datums(renderer, [row], "all_user_and_system_messages")[0]


def leave_out_the_shift(renderer: Any, row: Any) -> tinker.Datum:
    """Return a datum that asks each position for the token that it has just read."""
    tokens, weights = render_training(renderer, row)
    scaled = [weight / sum(weights) for weight in weights]
    known: Any = {"target_tokens": tokens, "weights": scaled}
    return tinker.Datum(model_input=tinker.ModelInput.from_ints(tokens), loss_fn_inputs=known)


def supervised_run(
    log_path: str, fault: str, to_datum: ToDatum = train_answers, rate: float = 3e-3, **less: int
) -> None:
    """Train in small batches; held-out NLL is measured with the true mask.

    Args:
        rate: step size of the first step; falls to 0 in a line.
        less: `n_train` conversations only, `n_steps` instead of 10.
    """
    n_train, n_steps = less.get("n_train"), less.get("n_steps", 10)
    config = supervised.Config(
        n_test=6, batch_size=2, max_steps=n_steps, learning_rate=rate, log_path=log_path
    )
    settings = {**asdict(config), "fault": fault, "n_train": n_train}
    service = connect(config.model_name)
    client = service.create_lora_training_client(
        config.model_name, rank=config.lora_rank, seed=config.seed
    ).result()
    tokenizer = client.get_tokenizer()
    renderer = get_renderer(tokenizer, config.model_name)
    rows, test = load_train_and_test(config.dataset, config.n_test, config.seed)
    rows, test = rows[:n_train], supervised.build_datums(renderer, test)
    batches = Batches(len(rows), config.batch_size, config.seed)
    with RunLog.open(log_path, settings, name="sick") as log:
        for step in range(n_steps + 1):
            measured = step % 5 == 0 or step == n_steps
            metrics = supervised.evaluate_nll(client, test, tokenizer).metrics() if measured else {}
            if step < n_steps:
                data = [to_datum(renderer, rows[i]) for i in batches[step]]
                now = rate * (1 - step / n_steps)
                metrics |= {"learning_rate": now, **supervised.train_step(client, data, now)}
            log.log(step, {"progress": step / n_steps, **metrics})
        state = client.save_state("final", ttl_seconds=3600).result().path
        log.save_checkpoint("final", step=n_steps, state_path=state, final=True)


@dataclass(frozen=True)
class NotCentred:
    """Use each reward, minus 1, as the advantage of its answer: nothing is ever pushed up."""

    def __call__(
        self, groups: Sequence[rl.Group], rows_by_group: Sequence[Sequence[rl.Row]]
    ) -> tuple[list[list[rl.Row]], dict[str, float]]:
        """Add to each advantage what centring took from it, and take 1."""
        means = [float(group.rewards.mean()) - 1 for group in groups]
        edited = [
            [replace(row, advantages=row.advantages + mean * row.sampled) for row in rows]
            for mean, rows in zip(means, rows_by_group, strict=True)
        ]
        return edited, {}

    def describe(self) -> dict[str, Any]:
        """Return what it is."""
        return {"fault": "rewards of 0 and -1, not centred"}


class WatchedEnv(rl.QuestionEnv):
    """Pays by one grade and tells another."""

    strict: Callable[[str], rl.Grade]

    async def step(self, reply: rl.Reply) -> rl.Step:
        """Grade the answer both ways."""
        paid = await super().step(reply)
        seen = float(self.strict(reply.text).correct and reply.finished)
        return replace(paid, metrics={**paid.metrics, "strictly_right": seen})


def careless_task() -> rl.Task:
    """Return comparisons paid by the careless grader and watched by the strict one."""
    task = comparison_task(n_train=64, n_test=16, seed=0, lenient=True)

    def watched(problem: rl.Problem) -> rl.Problem:
        def make_env() -> WatchedEnv:
            plain: Any = problem.make_env()
            env = WatchedEnv(messages=plain.messages, grade=plain.grade)
            larger = max(map(int, problem.name.split(" or ")))
            env.strict = partial(grade_strictly, larger)
            return env

        return replace(problem, make_env=make_env)

    return replace(task, train=[*map(watched, task.train)], test=[*map(watched, task.test)])


def rl_run(
    log_path: str, task: rl.Task, edit: Any = None, rate: float = 1e-3, **settings: Any
) -> None:
    """Train on few prompts a step."""
    small = {"prompts_per_step": 4, "max_steps": 8, "eval_every": 4, "test_samples": 2}
    small |= {"max_tokens": 12, "keep_groups": 0, "save_every": 0}
    rl.train(
        rl.Config(log_path=log_path, learning_rate=rate, **{**small, **settings}), task, edit=edit
    )


def sums(level: int = 1) -> rl.Task:
    """Return the task of `rl_basic`."""
    return load_task("arithmetic", n_train=39, n_test=16, seed=0, level=level)


RUNS: dict[str, Callable[[str], None]] = {
    "healthy_sl": lambda log: supervised_run(log, "none"),
    "rate_too_high": lambda log: supervised_run(log, "ten times the rate", rate=0.03, n_steps=5),
    "wrong_mask": lambda log: supervised_run(log, "questions are trained", train_questions),
    "not_shifted": lambda log: supervised_run(log, "no shift by one", leave_out_the_shift),
    "overfit": lambda log: supervised_run(log, "four conversations", n_train=4, n_steps=16),
    "healthy_rl": lambda log: rl_run(log, sums()),
    "rl_rate_too_high": lambda log: rl_run(log, sums(), rate=1e-2),
    "no_centring": lambda log: rl_run(log, sums(), edit=NotCentred()),
    "nothing_rewarded": lambda log: rl_run(log, sums(level=3), dataset="arithmetic, level 3"),
    "reward_hacked": lambda log: rl_run(log, careless_task(), dataset="careless", max_tokens=14),
}


def main(names: Sequence[str]) -> None:
    """Make the runs named, by default all."""
    for name in names or RUNS:
        with tempfile.TemporaryDirectory() as folder:
            RUNS[name](folder + "/log")
            target = HERE / name
            target.mkdir(exist_ok=True)
            for file in FILES:
                shutil.copy(Path(folder, "log", file), target / file)
        print(name, "is made", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
