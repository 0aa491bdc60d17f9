"""Settings of a supervised run, checked as a whole before anything starts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, get_args

from cookbook.errors import ConfigError
from cookbook.models import DEFAULT_MODEL
from cookbook.rendering import TrainOn
from cookbook.runlog import unique_log_path
from cookbook.runlog.folder import IfExists

Schedule = Literal["linear", "cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one supervised training run.

    Raises:
        ConfigError: one or more settings are out of range; the message lists all of them.
    """

    model_name: str = DEFAULT_MODEL
    """Base model: a hub id, or for the embedded engine also a local folder."""
    dataset: str = "pocket_tutor"
    """Conversations: "pocket_tutor", a .jsonl or .parquet file, or a hub id."""
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

    def __post_init__(self) -> None:
        faults = _faults(asdict(self))
        if faults:
            raise ConfigError(_listed(faults))
        if not self.log_path:
            # Chosen here and not by `train`, so that running a notebook's training cell again
            # after an interrupt finds the same run.
            object.__setattr__(self, "log_path", str(unique_log_path(f"sl-{self.dataset_name}")))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the config for a notebook's or command line's parameters.

        Raises:
            ConfigError: unknown names (with the nearest known ones) and all bad values, together.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in parameters if name not in names]
        known = {name: value for name, value in parameters.items() if name in names}
        defaults = {field.name: field.default for field in fields(cls)}
        faults = [_unknown(name, names) for name in unknown] + _faults({**defaults, **known})
        if faults:
            raise ConfigError(_listed(faults))
        return cls(**known)

    @property
    def dataset_name(self) -> str:
        """The data set's name without folders, owner and file ending."""
        return (
            Path(self.dataset).stem if self.dataset.endswith(".jsonl") else Path(self.dataset).name
        )

    def describe(self) -> None:
        """Print the settings that differ from their defaults."""
        changed = [
            f"  {field.name} = {getattr(self, field.name)!r}  (default {field.default!r})"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        print("\n".join(["Settings that differ from the defaults:", *changed]))


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


def _whole(least: int, none: bool = False) -> tuple[Callable[[Any], bool], str]:
    def fits(value: Any) -> bool:
        if value is None:
            return none
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    return fits, f"a whole number from {least} on" + (", or None" if none else "")


def _one_of(options: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in options, f"one of {', '.join(options)}"


def _is_rate(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model_name": (lambda value: _is_text(value) and value != "", "the name of a base model"),
    "dataset": (lambda value: _is_text(value) and value != "", "the name or path of a data set"),
    "learning_rate": (_is_rate, "a number from 0 on, such as 1e-4"),
    "lora_rank": _whole(1),
    "batch_size": _whole(1),
    "num_epochs": _whole(1),
    "max_steps": _whole(0),
    "lr_schedule": _one_of(get_args(Schedule)),
    "train_on": _one_of(get_args(TrainOn)),
    "max_length": _whole(2, none=True),
    "eval_every": _whole(0),
    "save_every": _whole(0),
    "n_test": _whole(0),
    "seed": _whole(0),
    "log_path": (_is_text, "a path, or '' for a fresh folder"),
    "if_exists": _one_of(get_args(IfExists)),
    "wandb_project": (_is_text, "a project name, or '' for none"),
    "wandb_name": (_is_text, "a name, or '' for the folder's"),
}


def _faults(values: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} = {values[name]!r}: expected {allowed}."
        for name, (fits, allowed) in _RULES.items()
        if not fits(values[name])
    ]


def _unknown(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names)}."
    return f"{name!r} is not a setting. {hint}"


def _listed(faults: list[str]) -> str:
    count = "1 setting is" if len(faults) == 1 else f"{len(faults)} settings are"
    return "\n  ".join([f"{count} wrong:", *faults])
