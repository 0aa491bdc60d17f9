"""The supervised trainer: one loop over seeded batches that can be killed and resumed anywhere.

A resumed run is the same run: batch order is a function of the step, a checkpoint holds exactly the
steps it names, and metrics written after it are dropped before they are written again. For that the
trainer waits for each step before it submits the next; the server sees both requests of a step at
once. *Left out* compared with the public tinker-cookbook's trainer: submitting steps ahead, which
there lets a checkpoint contain a step too many.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import tinker
from renderers import Renderer

from cookbook.checkpointing import (
    Result,
    is_finished,
    read_result,
    start_client,
)
from cookbook.data import Batches, load_train_and_test
from cookbook.loop import Metrics, OnStep, run_steps
from cookbook.rendering import get_renderer
from cookbook.runlog import RunLog, timed
from cookbook.service import connect
from cookbook.supervised.config import Config, learning_rate_multiplier
from cookbook.supervised.datums import build_datums
from cookbook.supervised.evaluation import evaluate_nll, weighted_nll

Build = Callable[[Renderer, Sequence[Any]], list[tinker.Datum]]
"""From rows to their datums."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows at hand, to train on instead of those that `Config.dataset` names."""

    train: Sequence[Any]
    test: Sequence[Any] = ()
    build: Build | None = None
    """None: rows are conversations, and the config says what is trained of them."""

    @property
    def digest(self) -> str:
        """What tells these rows from others: a run is only resumed with the same."""
        told = "\n".join(map(repr, [*self.train, None, *self.test]))
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the loop works with."""

    config: Config
    client: Any
    tokenizer: Any
    build: Callable[[Sequence[Any]], list[tinker.Datum]]
    rows: Sequence[Any]
    batches: Batches
    test_datums: list[tinker.Datum]
    n_steps: int


def print_step(metrics: Mapping[str, Any]) -> None:
    """Print one line for each tenth step and each evaluation."""
    if metrics["step"] % 10 and "test/nll" not in metrics:
        return
    shown = [f"{k} {metrics[k]:.3f}" for k in ("train_mean_nll", "test/nll") if k in metrics]
    print(f"step {metrics['step']:>5}  {metrics['progress']:>4.0%}  {'  '.join(shown)}", flush=True)


def train(
    config: Config,
    service: tinker.ServiceClient | None = None,
    on_step: OnStep = print_step,
    examples: Examples | None = None,
) -> Result:
    """Train, evaluate and save as the config says; resume a run that is already at its log path.

    Args:
        config: all settings.
        service: from `cookbook.service.connect`, which is called if it is missing.
        on_step: called with the metrics of each step, "step" included, and of the last evaluation.
        examples: rows to use instead of the data set's; `dataset` then only names them, and
            `n_test` is not asked.
    Raises:
        ConfigError: settings that do not fit the data, or the run that is already there.
        DataError: bad rows, or none with anything to train.
        ServiceError: no server, or it no longer has the checkpoint to resume from.
        cookbook.loop.Stopped: an interrupt came; the step in flight was finished and saved.
    """
    with RunLog.open(
        config.log_path,
        asdict(config) | ({"examples": examples.digest} if examples else {}),
        name=f"sl-{config.dataset_name}",
        if_exists=config.if_exists,
        wandb_project=config.wandb_project,
        wandb_name=config.wandb_name,
    ) as log:
        if is_finished(log):
            print(f"The run in {log.path} is finished already; nothing is trained.")
            return read_result(log)
        if examples is None:
            rows = load_train_and_test(config.dataset, config.n_test, config.seed)
            examples = Examples(train=rows[0], test=rows[1])
        client, first_step = start_client(
            service or connect(config.model_name),
            log,
            model_name=config.model_name,
            lora_rank=config.lora_rank,
            seed=config.seed,
        )
        job = _prepare(config, client, examples)
        run_steps(
            partial(_one_step, job),
            partial(_evaluate_end, job),
            client=client,
            log=log,
            first_step=first_step,
            n_steps=job.n_steps,
            save_every=config.save_every,
            on_step=on_step,
        )
        return read_result(log)


def train_step(client: Any, datums: Sequence[tinker.Datum], learning_rate: float) -> Metrics:
    """Take one Adam step on datums (B,) and return its loss and sizes.

    Both requests are submitted before either is waited for, so that the server can run them back
    to back. Adam: beta1 0.9, beta2 0.95, eps 1e-8, as in the public tinker-cookbook.
    """
    adam = tinker.AdamParams(learning_rate=learning_rate, beta1=0.9, beta2=0.95, eps=1e-8)
    gradient = client.forward_backward(list(datums), "cross_entropy")
    update = client.optim_step(adam)
    outputs = gradient.result().loss_fn_outputs
    update.result()
    weights = [datum.loss_fn_inputs["weights"].data for datum in datums]
    return {
        "train_mean_nll": weighted_nll(outputs, datums),
        "num_sequences": len(datums),
        "num_tokens": sum(datum.model_input.length for datum in datums),
        "num_loss_tokens": sum(weight > 0 for row in weights for weight in row),
    }


def total_steps(config: Config, n_rows: int) -> int:
    """Return the optimiser steps of a run on n_rows training conversations."""
    return Batches(n_rows, config.batch_size, 0).n_steps(config.num_epochs, config.max_steps)


def _prepare(config: Config, client: Any, examples: Examples) -> _Job:
    tokenizer = client.get_tokenizer()
    conversations = partial(build_datums, train_on=config.train_on, max_length=config.max_length)
    build = partial(examples.build or conversations, get_renderer(tokenizer, config.model_name))
    return _Job(
        config=config,
        client=client,
        tokenizer=tokenizer,
        build=build,
        rows=examples.train,
        batches=Batches(len(examples.train), config.batch_size, config.seed),
        test_datums=build(examples.test),
        n_steps=total_steps(config, len(examples.train)),
    )


def _one_step(job: _Job, step: int) -> Metrics:
    config = job.config
    started = time.perf_counter()
    factor = learning_rate_multiplier(config.lr_schedule, step, job.n_steps)
    metrics: Metrics = {
        "epoch": job.batches.locate(step)[0],
        "progress": step / job.n_steps,
        "learning_rate": config.learning_rate * factor,
    }
    if step == 0 or (config.eval_every and step % config.eval_every == 0):
        metrics |= _evaluate(job)
    datums = job.build([job.rows[index] for index in job.batches[step]])
    metrics |= train_step(job.client, datums, metrics["learning_rate"])
    return {**metrics, "time/total": time.perf_counter() - started}


def _evaluate(job: _Job) -> Metrics:
    if not job.test_datums:
        return {}
    with timed("time/evaluation") as timing:
        evaluation = evaluate_nll(job.client, job.test_datums, job.tokenizer)
    return {**evaluation.metrics(), **timing}


def _evaluate_end(job: _Job) -> Metrics:
    final = _evaluate(job)
    return {"progress": 1.0, **final} if final else {}
