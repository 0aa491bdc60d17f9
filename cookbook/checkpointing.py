"""Where a run's weights come from and go to: start, resume, save, result. For all trainers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tinker

from cookbook.errors import ServiceError
from cookbook.runlog import RunLog, read_metrics

CHECKPOINT_TTL_S = 7 * 24 * 3600


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run."""

    log_path: Path
    """Its folder: metrics, checkpoints, settings."""
    n_steps: int
    """Optimiser steps taken."""
    before: dict[str, Any]
    """First evaluation, all `test/` metrics of it; empty without held-out data."""
    after: dict[str, Any]
    """Evaluation of the final weights."""
    state_path: str
    """Final weights and optimiser state on the server, for training on."""
    sampler_path: str
    """Final weights on the server, for sampling."""


def start_client(
    service: Any, log: RunLog, *, model_name: str, lora_rank: int, seed: int, start_from: str = ""
) -> tuple[Any, int]:
    """Return (training client, steps it has had).

    It comes from the run's last checkpoint (weights and optimiser state), else from `start_from`
    (weights alone, a fresh optimiser), else it is a fresh adapter. Metrics beyond that step are
    dropped from the log; the loop is about to write them again.

    Args:
        service: from `cookbook.service.connect`.
        log: the run's open log.
        model_name: base model of a fresh adapter; `lora_rank` and `seed` are its too.
        start_from: `tinker://` state path of another run to go on from; empty for none.
    Raises:
        ServiceError: the server does not have the checkpoint.
    """
    checkpoint = log.last_checkpoint()
    if checkpoint is not None:
        path = checkpoint["state_path"]
        what = f"to go on after step {checkpoint['step']}"
        client = _loaded(service.create_training_client_from_state_with_optimizer, path, what)
        log.rewind(checkpoint["step"])
        return client, checkpoint["step"]
    log.rewind(0)
    if start_from:
        load = service.create_training_client_from_state
        return _loaded(load, start_from, "to start from"), 0
    return ready(service.create_lora_training_client(model_name, rank=lora_rank, seed=seed)), 0


def _loaded(load: Any, path: str, what: str) -> Any:
    try:
        return ready(load(path))
    except (tinker.APIStatusError, tinker.RequestFailedError) as error:
        raise ServiceError(
            f"The server cannot load {path} {what}: {error}. Checkpoints live for 7 days on the "
            "server that made them. Use that server, or pass if_exists='overwrite' to start anew."
        ) from error


def save_checkpoint(client: Any, log: RunLog, step: int, final: bool = False) -> None:
    """Save the weights after `step` optimiser steps and record them once the server has them.

    Periodic checkpoints (state only) expire after 7 days; the final one (state and sampler weights)
    stays.
    """
    name = "final" if final else f"{step:06d}"
    state = client.save_state(name, ttl_seconds=None if final else CHECKPOINT_TTL_S)
    sampler = client.save_weights_for_sampler(name) if final else None
    log.save_checkpoint(
        name,
        step,
        state_path=state.result().path,
        sampler_path=sampler.result().path if sampler else None,
        final=final or None,
    )


def is_finished(log: RunLog) -> bool:
    """Return whether the run has its final checkpoint."""
    return bool((log.last_checkpoint() or {}).get("final"))


def read_result(log: RunLog) -> Result:
    """Return the result of a finished run from its folder."""
    final = log.last_checkpoint() or {}
    lines = read_metrics(log.path)
    tests = [{k: v for k, v in line.items() if k.startswith("test/")} for line in lines]
    evaluations = [evaluation for evaluation in tests if evaluation]
    return Result(
        log_path=log.path,
        n_steps=final["step"],
        before=evaluations[0] if evaluations else {},
        after=evaluations[-1] if evaluations else {},
        state_path=final["state_path"],
        sampler_path=final["sampler_path"],
    )


def ready(created: Any) -> Any:
    """Return the client: SDK 0.38 gives a future of it, 0.24 the client itself."""
    return created.result() if hasattr(created, "result") else created
