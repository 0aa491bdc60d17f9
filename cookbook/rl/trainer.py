"""The trainer: sample, reward, advantage, datum, loss, step; again.

As in the supervised trainer a checkpoint holds exactly the steps it names, and a step's problems
and seeds follow from its number: a resumed run repeats the interrupted step, and on a server whose
sampling is reproducible it ends as if nothing had happened. (With `max_staleness` the rollouts in
flight are lost and played again by the weights of the checkpoint.)
"""

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import tinker

from cookbook.checkpointing import (
    Result,
    is_finished,
    read_result,
    ready,
    start_client,
)
from cookbook.data import Batches
from cookbook.loop import Metrics, OnStep, run_steps
from cookbook.rendering import get_renderer
from cookbook.rl.advantages import episode_advantages
from cookbook.rl.background import Background
from cookbook.rl.config import Config
from cookbook.rl.datums import Row, group_rows
from cookbook.rl.env import Problem, Task
from cookbook.rl.episodes import Group
from cookbook.rl.evaluation import evaluate
from cookbook.rl.kl import AdvantageEdit, penalise_distance, reference_logprobs
from cookbook.rl.metrics import episode_metrics, sampler_entropy
from cookbook.rl.queue import RolloutQueue
from cookbook.rl.rollouts import OnGroup, Player, Rollout
from cookbook.rl.storage import store_rollouts
from cookbook.rl.update import train_step
from cookbook.runlog import RunLog, timed
from cookbook.service import connect


@dataclass(kw_only=True)
class _Job:
    """What the loop works with."""

    config: Config
    task: Task
    log: RunLog
    client: Any
    player: Player
    reference: Any
    batches: Batches
    on_group: OnGroup | None
    edit: AdvantageEdit | None
    newest_sampler: Any = None

    def renew_sampler(self) -> None:
        """Make a sampling client of the weights of now."""
        self.newest_sampler = ready(self.client.save_weights_and_get_sampling_client())

    def problems(self, step: int) -> list[Problem]:
        """Return the problems (P) of a step."""
        return [self.task.train[index] for index in self.batches[step]]


def print_step(metrics: Mapping[str, Any]) -> None:
    """Print one line for each step."""
    names = {"reward": "env/all/reward/total", "held out": "test/env/all/reward/total"}
    shown = [f"{label} {metrics[name]:.3f}" for label, name in names.items() if name in metrics]
    done = metrics["progress/done_frac"]
    print(f"step {metrics['step']:>5}  {done:>4.0%}  {'  '.join(shown)}", flush=True)


def train(
    config: Config,
    task: Task,
    service: tinker.ServiceClient | None = None,
    on_step: OnStep = print_step,
    on_group: OnGroup | None = None,
    edit: AdvantageEdit | None = None,
) -> Result:
    """Train, evaluate and save as the config says; resume a run that is already at its log path.

    Args:
        config: all settings.
        task: problems to train on, and others to evaluate on.
        service: from `cookbook.service.connect`, which is called if it is missing.
        on_step: called with the metrics of each step, "step" included, and of the last evaluation.
        on_group: called as the groups of a step end, with how many have and of how many.
        edit: changes the advantages before the update; every group is then trained, also those of
            equal rewards. `cookbook.distillation.ReverseKL` is one.
    Raises:
        ConfigError: settings that do not fit the task, or the run that is already there.
        ServiceError: no server, or it no longer has the checkpoint to resume from.
        cookbook.loop.Stopped: an interrupt came; the step in flight was finished and saved.
    """
    with RunLog.open(
        config.log_path,
        asdict(config) | {"task": task.describe()} | ({"edit": edit.describe()} if edit else {}),
        name=f"rl-{config.dataset}",
        if_exists=config.if_exists,
        wandb_project=config.wandb_project,
        wandb_name=config.wandb_name,
    ) as log:
        if is_finished(log):
            print(f"The run in {log.path} is finished already; nothing is trained.")
            return read_result(log)
        service = service or connect(config.model_name)
        client, first_step = start_client(
            service,
            log,
            model_name=config.model_name,
            lora_rank=config.lora_rank,
            seed=config.seed,
            start_from=config.start_from,
        )
        job = _Job(
            config=config,
            task=task,
            log=log,
            client=client,
            player=make_player(config, client.get_tokenizer()),
            reference=_reference(service, config),
            batches=Batches(len(task.train), config.prompts_per_step, config.seed),
            on_group=on_group,
            edit=edit,
        )
        with closing(_rollouts_ahead(job, first_step)) as queue:
            run_steps(
                partial(_one_step, job, queue),
                partial(_evaluate_end, job),
                client=client,
                log=log,
                first_step=first_step,
                n_steps=config.max_steps,
                save_every=config.save_every,
                on_step=on_step,
            )
        return read_result(log)


def make_player(config: Config, tokenizer: Any) -> Player:
    """Return the player that a run with these settings uses."""
    return Player(
        renderer=get_renderer(tokenizer, config.model_name),
        max_tokens=config.max_tokens,
        max_turns=config.max_turns,
        env_timeout_s=config.env_timeout_s,
    )


def _reference(service: Any, config: Config) -> Any:
    if config.kl_reference:
        return ready(service.create_sampling_client(model_path=config.kl_reference))
    if config.kl_coef:
        return ready(service.create_sampling_client(base_model=config.model_name))
    return None


def _rollouts_ahead(job: _Job, first_step: int) -> RolloutQueue:
    config = job.config
    return RolloutQueue(partial(_rollouts, job), first_step, config.max_steps, config.max_staleness)


def _rollouts(job: _Job, background: Background, step: int) -> Rollout:
    """Start the rollouts of a step, played by the weights of now."""
    key = f"{job.config.seed} train {step}"
    sampler, size, problems = job.newest_sampler, job.config.group_size, job.problems(step)
    return Rollout(background, job.player, sampler, problems, size, key, job.on_group)


def _one_step(job: _Job, queue: RolloutQueue, step: int) -> Metrics:
    config, started = job.config, time.perf_counter()
    job.renew_sampler()
    metrics: Metrics = {
        "progress/batch": step,
        "progress/done_frac": step / config.max_steps,
        "optim/lr": config.learning_rate,
    }
    if step == 0 or (config.eval_every and step % config.eval_every == 0):
        metrics |= _evaluate(job, step)
    with timed("time/sampling") as sampling:
        groups, staleness = queue.take(step)
    advantages = episode_advantages(groups, config.baseline)
    # An edit gives each token an advantage of its own; an episode has none then.
    kept = None if job.edit else advantages[: config.keep_groups]
    store_rollouts(job.log.path, "train", step, groups[: config.keep_groups], kept)
    _warn_of_failures(groups)
    with timed("time/training") as training:
        metrics |= _update(job, groups, advantages)
    metrics |= episode_metrics(groups)
    metrics |= {"optim/entropy": sampler_entropy(groups), "optim/staleness": staleness}
    return {**metrics, **sampling, **training, "time/total": time.perf_counter() - started}


def _update(job: _Job, groups: Sequence[Group], advantages: Sequence[np.ndarray]) -> Metrics:
    """Train on the groups that teach; without any the step is skipped."""
    config, metrics = job.config, Metrics()
    keep = config.kl_coef > 0 or job.edit is not None
    found = [(g, group_rows(g, a, keep)) for g, a in zip(groups, advantages, strict=True)]
    rows_by_group = [rows for _, rows in found if rows]
    metrics["num_sequences"] = sum(map(len, rows_by_group))
    metrics["num_tokens"] = sum(len(row.tokens) for rows in rows_by_group for row in rows)
    if not rows_by_group:
        return metrics
    if job.reference is not None:
        rows_by_group, metrics["kl_policy_base"] = _penalised(job, rows_by_group)
    if job.edit:
        rows_by_group, told = job.edit([group for group, rows in found if rows], rows_by_group)
        metrics |= told
    return metrics | train_step(
        job.client,
        rows_by_group,
        config.learning_rate,
        config.loss_fn,
        config.loss_fn_config,
        config.substeps,
    )


def _penalised(job: _Job, rows_by_group: list[list[Row]]) -> tuple[list[list[Row]], float]:
    rows = [row for group in rows_by_group for row in group]
    with Background() as background:
        reference = background.submit(reference_logprobs(job.reference, rows)).result()
    edited, distance = penalise_distance(
        rows, reference, job.config.kl_coef, job.config.kl_discount
    )
    left = iter(edited)
    return [[next(left) for _ in group] for group in rows_by_group], distance


def _evaluate(job: _Job, step: int) -> Metrics:
    if not job.task.test:
        return {}
    config = job.config
    with timed("time/evaluation") as timing:
        evaluation = evaluate(
            job.player,
            job.newest_sampler,
            job.task.test,
            config.test_samples,
            f"{config.seed} test",  # the same seeds each time: what changes is the policy
        )
    _warn_of_failures(evaluation.groups)
    store_rollouts(job.log.path, "test", step, evaluation.groups[: config.keep_groups])
    return {**evaluation.metrics(), **timing}


def _evaluate_end(job: _Job) -> Metrics:
    job.renew_sampler()
    final = _evaluate(job, job.config.max_steps)
    return {"progress/done_frac": 1.0, **final} if final else {}


def _warn_of_failures(groups: Sequence[Group]) -> None:
    failures = [(group.problem.name, why) for group in groups for why in group.failures]
    if failures:
        name, why = failures[0]
        warnings.warn(
            f"{len(failures)} episodes failed and are left out, the first of problem {name!r}: "
            f"{why}",
            stacklevel=2,
        )
