"""From `name=value,value` to the points of a grid."""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cookbook.errors import ConfigError
from cookbook.parameters import WANDB, Parameter, parse_assignments

OWN = ("log_path", "if_exists")
"""What the sweep itself gives to each run."""
MAX_NAME = 120


def read_grid(
    assignments: Sequence[str], known: Mapping[str, Parameter]
) -> dict[str, tuple[Any, ...]]:
    """Return the values of each parameter, in its type, without repetitions.

    Args:
        assignments: `name=value,value` each; the values of a name given twice are put together.
        known: the notebook's parameters.
    Raises:
        ConfigError: no parameter is given, one is unknown, unreadable or the sweep's own.
    """
    if not assignments:
        raise ConfigError(f"Give a parameter to vary: -p name=value,value. Valid: {_free(known)}.")
    grid: dict[str, dict[Any, None]] = {}
    for assignment in assignments:
        name, sign, texts = assignment.partition("=")
        if name in OWN:
            raise ConfigError(f"{name} is set by the sweep for each run. Valid: {_free(known)}.")
        for text in texts.split(","):
            value = parse_assignments([f"{name}{sign}{text}"], known)[name]
            grid.setdefault(name, {})[value] = None
    if len(grid.get(WANDB, ())) > 1:
        raise ConfigError("wandb_project: one project for all runs of a sweep, got several.")
    return {name: tuple(values) for name, values in grid.items()}


def grid_points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the parameters of each run: every combination, the last name varying fastest."""
    combinations = itertools.product(*grid.values())
    return [dict(zip(grid, values, strict=True)) for values in combinations]


def run_name(parameters: Mapping[str, Any]) -> str:
    """Return a folder name that tells the parameters: `learning_rate_1e-05-lora_rank_8`."""
    parts = [f"{name}_{_told(value)}" for name, value in parameters.items()]
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts)).strip("._-")
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:MAX_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _free(known: Mapping[str, Parameter]) -> str:
    return ", ".join(name for name in known if name not in OWN)
