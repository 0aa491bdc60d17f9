"""The trainer of direct preference optimisation: killed and resumed anywhere, it is the same run.

Batches are a function of the step, a checkpoint holds exactly the steps it names, and the reference
is the one the run began with, whatever weights it goes on from. The loop is that of
`cookbook.supervised.trainer`; the loss is computed here, on the client.
"""

import time
import warnings
from collections.abc import Mapping, Sequence
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
from cookbook.data import Batches
from cookbook.errors import DataError
from cookbook.loop import Metrics, OnStep, run_steps
from cookbook.preferences.comparison import Comparison, without_ties
from cookbook.preferences.config import Config
from cookbook.preferences.data import load_train_and_test
from cookbook.preferences.datums import Pair, build_pair
from cookbook.preferences.evaluation import Scores
from cookbook.preferences.loss import PairLoss, dpo_loss, train_step
from cookbook.preferences.reference import (
    PairLogprobs,
    pair_logprobs,
    reference_logprobs,
    split_outputs,
    sums,
)
from cookbook.rendering import get_renderer
from cookbook.runlog import RunLog, timed
from cookbook.service import connect
from cookbook.supervised import learning_rate_multiplier


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What the loop works with."""

    config: Config
    client: Any
    pair_loss: PairLoss
    batches: Batches
    train: Mapping[int, Pair]
    """Pairs by the index of their comparison, those of all steps."""
    test: Sequence[Pair]
    reference: Mapping[str, PairLogprobs]
    """Reference log-probabilities by the key of their pair."""
    n_steps: int

    def reference_of(self, pairs: Sequence[Pair]) -> list[PairLogprobs]:
        """Return the reference log-probabilities of pairs."""
        return [self.reference[pair.key] for pair in pairs]

    def scores(self, pairs: Sequence[Pair], policy: Sequence[PairLogprobs]) -> Scores:
        """Return what the policy makes of pairs."""
        return Scores(
            policy=policy,
            reference=self.reference_of(pairs),
            beta=self.config.beta,
            pair_loss=self.pair_loss,
        )


def print_step(metrics: Mapping[str, Any]) -> None:
    """Print one line for each tenth step and each evaluation."""
    if metrics["step"] % 10 and "test/ranking_accuracy" not in metrics:
        return
    names = ("dpo_loss", "accuracy", "test/ranking_accuracy")
    shown = [f"{name} {metrics[name]:.3f}" for name in names if name in metrics]
    print(f"step {metrics['step']:>5}  {metrics['progress']:>4.0%}  {'  '.join(shown)}", flush=True)


def train(
    config: Config,
    service: tinker.ServiceClient | None = None,
    on_step: OnStep = print_step,
    pair_loss: PairLoss = dpo_loss,
) -> Result:
    """Train, evaluate and save as the config says; resume a run that is already at its log path.

    Args:
        config: all settings.
        service: from `cookbook.service.connect`, which is called if it is missing.
        on_step: called with the metrics of each step, "step" included, and of the last evaluation.
        pair_loss: the loss of a pair; another one makes another algorithm of the same family.
    Raises:
        ConfigError: settings that do not fit the data, or the run that is already there.
        DataError: bad rows, or a step without any pair that fits `max_length`.
        ServiceError: no server, or it no longer has the checkpoint to resume from.
        cookbook.loop.Stopped: an interrupt came; the step in flight was finished and saved.
    """
    with RunLog.open(
        config.log_path,
        asdict(config),
        name="dpo",
        if_exists=config.if_exists,
        wandb_project=config.wandb_project,
        wandb_name=config.wandb_name,
    ) as log:
        if is_finished(log):
            print(f"The run in {log.path} is finished already; nothing is trained.")
            return read_result(log)
        train_rows, test_rows = load_train_and_test(config.dataset, config.n_test, config.seed)
        client, first_step = start_client(
            service or connect(config.model_name),
            log,
            model_name=config.model_name,
            lora_rank=config.lora_rank,
            seed=config.seed,
            start_from=config.start_from,
        )
        job = _prepare(config, log, client, first_step, train_rows, test_rows, pair_loss)
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


def _prepare(
    config: Config,
    log: RunLog,
    client: Any,
    first_step: int,
    train_rows: list[Comparison],
    test_rows: list[Comparison],
    pair_loss: PairLoss,
) -> _Job:
    renderer = get_renderer(client.get_tokenizer(), config.model_name)
    rows = without_ties(train_rows)
    batches = Batches(len(rows), config.batch_size, config.seed)
    n_steps = batches.n_steps(config.num_epochs, config.max_steps)
    used = dict.fromkeys(index for step in range(n_steps) for index in batches[step])
    train_pairs = build_pairs(renderer, {index: rows[index] for index in used}, config.max_length)
    test = build_pairs(renderer, dict(enumerate(without_ties(test_rows))), config.max_length)
    empty = [step for step in range(n_steps) if not train_pairs.keys() & set(batches[step])]
    if empty:
        raise DataError(
            f"Step {empty[0]} has no pair within max_length={config.max_length}. Raise it, or "
            "raise batch_size."
        )
    pairs = [*train_pairs.values(), *test.values()]
    reference = reference_logprobs(client, pairs, log.path, first_step)
    return _Job(
        config=config,
        client=client,
        pair_loss=pair_loss,
        batches=batches,
        train=train_pairs,
        test=list(test.values()),
        reference={pair.key: row for pair, row in zip(pairs, reference, strict=True)},
        n_steps=n_steps,
    )


def build_pairs(
    renderer: Renderer, comparisons: Mapping[int, Comparison], max_length: int | None = None
) -> dict[int, Pair]:
    """Return the pair of each comparison; those that are too long are left out with a warning."""
    pairs, too_long = {}, []
    for index, comparison in comparisons.items():
        try:
            pairs[index] = build_pair(renderer, comparison, max_length)
        except DataError as error:
            too_long.append(str(error))
    if too_long:
        warnings.warn(
            f"{len(too_long)} of {len(comparisons)} comparisons are left out. {too_long[0]}",
            stacklevel=3,
        )
    return pairs


def _one_step(job: _Job, step: int) -> Metrics:
    config, started = job.config, time.perf_counter()
    rate = config.learning_rate * learning_rate_multiplier(config.lr_schedule, step, job.n_steps)
    metrics: Metrics = {
        "epoch": job.batches.locate(step)[0],
        "progress": step / job.n_steps,
        "learning_rate": rate,
    }
    if step == 0 or (config.eval_every and step % config.eval_every == 0):
        metrics |= _evaluate(job, step)
    pairs = [job.train[index] for index in job.batches[step] if index in job.train]
    reference = sums(job.reference_of(pairs))
    outputs = train_step(job.client, pairs, reference, rate, config.beta, job.pair_loss)
    policy = split_outputs(pairs, [output["logprobs"].data for output in outputs])
    metrics |= job.scores(pairs, policy).metrics()
    metrics["num_pairs"] = len(pairs)
    metrics["num_tokens"] = sum(d.model_input.length for pair in pairs for d in pair.datums)
    return {**metrics, "time/total": time.perf_counter() - started}


def _evaluate(job: _Job, step: int) -> Metrics:
    if not job.test:
        return {}
    with timed("time/evaluation") as timing:
        # Before the first update the policy is the reference, so nothing need be computed.
        policy = pair_logprobs(job.client, job.test) if step else job.reference_of(job.test)
        scores = job.scores(job.test, policy)
    return {**scores.metrics("test/"), **timing}


def _evaluate_end(job: _Job) -> Metrics:
    final = _evaluate(job, job.n_steps)
    return {"progress": 1.0, **final} if final else {}
