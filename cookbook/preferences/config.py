"""Settings of a run of direct preference optimisation, checked before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args

from cookbook.models import DEFAULT_MODEL
from cookbook.preferences.data import BUNDLED
from cookbook.runlog import unique_log_path
from cookbook.runlog.folder import IfExists
from cookbook.settings import Rule, Settings, number, one_of, text, whole
from cookbook.supervised.config import Schedule


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Settings of one run of direct preference optimisation (DPO).

    Raises:
        ConfigError: one or more settings are out of range; the message lists all of them.
    """

    model_name: str = DEFAULT_MODEL
    """Base model: a hub id, or for the embedded engine also a local folder."""
    dataset: str = BUNDLED
    """Comparisons: "tutor_replies", a .jsonl or .parquet file, or a hub id."""
    learning_rate: float = 5e-4
    """Peak Adam step size, 0 or more."""
    beta: float = 0.1
    """What a nat of distance from the reference costs, above 0; 0.05 to 0.5 is usual."""
    lora_rank: int = 16
    """Rank of the adapters, at least 1 (hosted servers want powers of two)."""
    batch_size: int = 8
    """Pairs per optimiser step, at least 1."""
    num_epochs: int = 1
    """Passes over the training comparisons, at least 1."""
    max_steps: int = 0
    """Stop after this many optimiser steps; 0: after the last epoch."""
    lr_schedule: Schedule = "linear"
    """How the step size falls: "linear" or "cosine" to 0, or "constant"."""
    max_length: int | None = 512
    """Longest prompt and answer in tokens, at least 2; longer ones lose their oldest turns."""
    start_from: str = ""
    """State path of a run to go on from, such as supervised training; empty: a fresh adapter."""
    eval_every: int = 10
    """Steps between evaluations on held-out comparisons; 0: before and after training only."""
    save_every: int = 20
    """Steps between checkpoints to resume from; 0: only at the end."""
    n_test: int = 48
    """Comparisons held out for evaluation; 0: no evaluation."""
    seed: int = 0
    """Of adapters, held-out comparisons and batch order, 0 or more."""
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
        "beta": number(1e-6, "0.1"),
        "lora_rank": whole(1),
        "batch_size": whole(1),
        "num_epochs": whole(1),
        "max_steps": whole(0),
        "lr_schedule": one_of(get_args(Schedule)),
        "max_length": whole(2, none=True),
        "start_from": text("a tinker:// state path, or '' for a fresh adapter", empty=True),
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
            name = Path(self.dataset).name.removesuffix(".jsonl").removesuffix(".parquet")
            object.__setattr__(self, "log_path", str(unique_log_path(f"dpo-{name}")))
