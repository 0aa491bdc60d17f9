"""A task by its name, or by the path of local files."""

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cookbook.envs.arithmetic import arithmetic_task
from cookbook.envs.comparisons import comparison_task
from cookbook.envs.math_sets import MATH_SETS, math_task
from cookbook.envs.problems import check_level
from cookbook.envs.reasoning import reasoning_task
from cookbook.envs.word_problems import word_problem_task
from cookbook.errors import ConfigError
from cookbook.rl import Task

REASONING = "reasoning_gym:"


_WITH_LEVELS = {"arithmetic": arithmetic_task, "word_problems": word_problem_task}
TASK_NAMES = (*_WITH_LEVELS, "comparisons", *MATH_SETS)
"""All but those of reasoning-gym, which are "reasoning_gym:" and the library's name."""


def load_task(name: str, *, n_train: int, n_test: int, seed: int, level: int = 1) -> Task:
    """Return a task.

    Args:
        name: one of `TASK_NAMES`; "reasoning_gym:chain_sum" and the like; or the path of rows like
            GSM8K's, a folder with train.jsonl and perhaps test.jsonl, or a .jsonl or .parquet file.
        n_train: problems to train on.
        n_test: other problems, held out.
        seed: decides which problems, and their order.
        level: difficulty; "arithmetic" and "word_problems" have 1 to 4, the others only 1.
    Raises:
        ConfigError: no such task or level, or more problems than there are.
        DataError: missing files, an unreachable hub, or a bad row.
    """
    if name in _WITH_LEVELS:
        return _WITH_LEVELS[name](n_train=n_train, n_test=n_test, seed=seed, level=level)
    build = _without_levels(name)
    check_level(name, level, 1)
    return build(n_train=n_train, n_test=n_test, seed=seed)


def _without_levels(name: str) -> Callable[..., Task]:
    if name == "comparisons":
        return comparison_task
    if name in MATH_SETS:
        return partial(math_task, name)
    if name.startswith(REASONING):
        return partial(reasoning_task, name.removeprefix(REASONING))
    if name.endswith((".jsonl", ".parquet")) or (name and Path(name).expanduser().is_dir()):
        return partial(math_task, "gsm8k", source=name)
    near = difflib.get_close_matches(name, TASK_NAMES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"There is no task {name!r}.{hint} Allowed: {', '.join(TASK_NAMES)}, "
        f"{REASONING}<name>, or the path of a folder or file of rows like GSM8K's."
    )
