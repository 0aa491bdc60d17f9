"""Settings of a supervised run, checked as a whole before anything starts."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from cookbook.models import DEFAULT_MODEL
from cookbook.rendering import TrainOn
from cookbook.runlog import unique_log_path
from cookbook.runlog.folder import IfExists
from cookbook.settings import Rule, Settings, number, one_of, text, whole

Schedule = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Settings of one supervised training run.

    Raises:
        ConfigError: one or more settings are out of range; the message lists all of them.
    """

    model_name: str = DEFAULT_MODEL
    """Base model: a hub id, or for the embedded engine also a local folder."""
    dataset: str = "pocket_tutor"
    """Conversations: "pocket_tutor", a .jsonl, .json or .parquet file, or a hub id."""
    learning_rate: float = 3e-3
    """Peak Adam step size, 0 or more."""
    lora_rank: int = 16
    """Rank of the adapters, at least 1 (hosted servers want powers of two)."""
    batch_size: int = 4
    """Conversations per optimiser step, at least 1."""
    num_epochs: int = 1
    """Passes over the training conversations, at least 1."""
    max_steps: int = 0
    """Stop after this many optimiser steps; 0: after the last epoch."""
    lr_schedule: Schedule = "linear"
    """How the step size falls: "linear" or "cosine" to 0, or "constant"."""
    train_on: TrainOn = "all_assistant_messages"
    """Which messages are trained; see `cookbook.rendering.render_training`."""
    max_length: int | None = 512
    """Longest conversation in tokens, at least 2; longer ones lose their end. None: no limit."""
    eval_every: int = 10
    """Steps between evaluations on held-out conversations; 0: before and after training only."""
    save_every: int = 20
    """Steps between checkpoints to resume from; 0: only at the end."""
    n_test: int = 32
    """Conversations held out for evaluation; 0: no evaluation."""
    seed: int = 0
    """Of adapters, held-out rows and batch order, 0 or more."""
    log_path: str = ""
    """Folder of the run; empty: a fresh one, chosen when this object is made."""
    if_exists: IfExists = "resume"
    """For a run that is already at log_path: "resume", "overwrite" or "raise"."""
    wandb_project: str = ""
    """W&B project that gets the metrics too; empty: none."""
    wandb_name: str = ""
    """Name of the run there; empty: the folder's name."""

    RULES: ClassVar[Mapping[str, Rule]] = {
        "model_name": text("the name of a base model"),
        "dataset": text("the name or path of a data set"),
        "learning_rate": number(0, "1e-4"),
        "lora_rank": whole(1),
        "batch_size": whole(1),
        "num_epochs": whole(1),
        "max_steps": whole(0),
        "lr_schedule": one_of(get_args(Schedule)),
        "train_on": one_of(get_args(TrainOn)),
        "max_length": whole(2, none=True),
        "eval_every": whole(0),
        "save_every": whole(0),
        "n_test": whole(0),
        "seed": whole(0),
        "log_path": text("a path, or '' for a fresh folder", empty=True),
        "if_exists": one_of(get_args(IfExists)),
        "wandb_project": text("a project name, or '' for none", empty=True),
        "wandb_name": text("a name, or '' for the folder's", empty=True),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.log_path:
            # Chosen here and not by `train`, so that running a notebook's training cell again
            # after an interrupt finds the same run.
            object.__setattr__(self, "log_path", str(unique_log_path(f"sl-{self.dataset_name}")))

    @property
    def dataset_name(self) -> str:
        """The data set's name without folders, owner and file ending."""
        return re.sub(r"\.jsonl?(\.gz)?$", "", Path(self.dataset).name)


def learning_rate_multiplier(schedule: Schedule, step: int, n_steps: int) -> float:
    """Return the factor on the peak step size at `step` (0 to n_steps - 1), between 0 and 1.

    Formula: linear 1 - t/N; cosine (1 + cos(pi t/N)) / 2; constant 1. No warm-up. Step 0 has 1, the
    last linear one 1/N.
    """
    if schedule == "linear":
        return 1 - step / n_steps
    if schedule == "cosine":
        return (1 + math.cos(math.pi * step / n_steps)) / 2
    return 1.0
