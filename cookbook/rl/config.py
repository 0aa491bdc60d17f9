"""Settings of a reinforcement-learning run, checked as a whole before anything starts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from cookbook.models import DEFAULT_MODEL
from cookbook.rl.advantages import Baseline
from cookbook.runlog import unique_log_path
from cookbook.runlog.folder import IfExists
from cookbook.settings import Rule, Settings, number, one_of, text, whole

LossName = Literal["importance_sampling", "ppo", "cispo"]


def _is_loss_config(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(v, int | float) and math.isfinite(v) for v in value.values())


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Settings of one reinforcement-learning run.

    Raises:
        ConfigError: one or more settings are out of range; the message lists all of them.
    """

    model_name: str = DEFAULT_MODEL
    """Base model: a hub id, or for the embedded engine also a local folder."""
    dataset: str = "arithmetic"
    """Name of the task; a task of your own may have any."""
    learning_rate: float = 6e-4
    """Adam step size, constant, 0 or more."""
    lora_rank: int = 16
    """Rank of the adapters, at least 1 (hosted servers want powers of two)."""
    prompts_per_step: int = 8
    """P, problems in a step, at least 1."""
    group_size: int = 8
    """G, episodes of each problem, at least 2: one has no sibling to be compared with."""
    max_tokens: int = 16
    """Longest reply in tokens, at least 1."""
    max_turns: int = 16
    """Replies after which an episode is cut off, at least 1."""
    max_steps: int = 10
    """Steps of sampling and training, at least 1."""
    baseline: Baseline = "group_mean"
    """What rewards are compared with; see `cookbook.rl.group_advantages`."""
    loss_fn: LossName = "importance_sampling"
    """Server-side loss: "importance_sampling", or with bounded ratios "ppo" or "cispo"."""
    loss_fn_config: Mapping[str, float] | None = None
    """Its settings, such as {"clip_high_threshold": 1.2}; None: the server's."""
    substeps: int = 1
    """Optimiser steps that a step's groups are dealt to, at least 1."""
    max_staleness: int = 0
    """Steps that sampling may run ahead: 0 is on-policy; k samples with weights k steps old."""
    kl_coef: float = 0.0
    """Weight of the distance to the reference in the advantages; 0: it costs nothing."""
    kl_discount: float = 0.0
    """How far a token is charged with the distances of those after it, 0 to 1."""
    kl_reference: str = ""
    """Sampler path of the reference, whose distance is then logged even if it costs nothing; empty:
    the base model, asked only if `kl_coef` is above 0."""
    start_from: str = ""
    """State path of a run to go on from, such as supervised training; empty: a fresh adapter."""
    eval_every: int = 0
    """Steps between evaluations on held-out problems; 0: before and after training only."""
    test_samples: int = 4
    """Episodes of each held-out problem, at least 1."""
    save_every: int = 5
    """Steps between checkpoints to resume from; 0: only at the end."""
    keep_groups: int = 16
    """Groups of each step and evaluation whose episodes are stored to be read; 0: none."""
    env_timeout_s: float = 120.0
    """Longest one call of an environment may take, in seconds."""
    seed: int = 0
    """Of the adapter, the batches and every sample, 0 or more."""
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
        "dataset": text("the name of a task"),
        "learning_rate": number(0, "1e-4"),
        "lora_rank": whole(1),
        "prompts_per_step": whole(1),
        "group_size": whole(2),
        "max_tokens": whole(1),
        "max_turns": whole(1),
        "max_steps": whole(1),
        "baseline": one_of(get_args(Baseline)),
        "loss_fn": one_of(get_args(LossName)),
        "loss_fn_config": (_is_loss_config, "names and finite numbers, or None"),
        "substeps": whole(1),
        "max_staleness": whole(0),
        "kl_coef": number(0, "0.05"),
        "kl_discount": number(0, "0.9", most=1),
        "kl_reference": text("a tinker:// sampler path, or '' for the base model", empty=True),
        "start_from": text("a tinker:// state path, or '' for a fresh adapter", empty=True),
        "eval_every": whole(0),
        "test_samples": whole(1),
        "save_every": whole(0),
        "keep_groups": whole(0),
        "env_timeout_s": number(0, "120"),
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
            object.__setattr__(self, "log_path", str(unique_log_path(f"rl-{self.dataset}")))
