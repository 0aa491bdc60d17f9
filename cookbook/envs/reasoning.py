"""Every task of `reasoning-gym`, about a hundred: puzzles, algebra, logic, games, code.

An optional extra: one of its dependencies, pycosat, is compiled on installing. Only the task
zebra_puzzles uses pycosat, so everything else also works without it.
"""

import asyncio
import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from cookbook.envs.problems import ask, check_sizes, split_task
from cookbook.errors import ConfigError
from cookbook.rl import Problem, Reply, Step, Task
from cookbook.rows import Message

INSTRUCTION = "\n\nWrite your final answer between <answer> and </answer>."
RIGHT = 1.0
"""Score of a right answer; the library gives less to answers that are nearly right."""
DRAWS_PER_PROBLEM = 20
"""Items looked at per problem wanted; small tasks repeat themselves."""

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


@dataclass
class ScoredEnv:
    """One question whose answer gets a score from 0 to 1 as its reward.

    Only an answer in tags that the model ended by itself is scored. The score is graded: the metric
    "correct" counts full scores alone.
    """

    messages: Sequence[Message]
    score: Callable[[str], float]
    """From the text between the tags to its score; may take a while, it runs in a thread."""

    async def start(self) -> Sequence[Message]:
        """Return the question."""
        return self.messages

    async def step(self, reply: Reply) -> Step:
        """Score the answer; the episode is over."""
        tagged = _TAGGED.findall(reply.text) if reply.finished else []
        score = await asyncio.to_thread(self.score, tagged[-1].strip()) if tagged else 0.0
        metrics = {"correct": float(score >= RIGHT), "format": float(bool(tagged))}
        return Step(reward=score, metrics=metrics)


def reasoning_task(name: str, *, n_train: int, n_test: int, seed: int, **settings: Any) -> Task:
    """Return problems of one `reasoning-gym` task.

    Args:
        name: the library's name of the task, such as "chain_sum".
        n_train: problems to train on.
        n_test: other problems, held out; the same ones whatever `n_train` is.
        seed: decides which problems, and their order.
        settings: of the library's, such as min_terms=2 for "chain_sum".
    Raises:
        ConfigError: the extra is not installed, no such task or setting, or too few problems.
    """
    check_sizes(n_train, n_test)
    gym = _reasoning_gym()
    wanted = n_train + n_test
    try:
        items = gym.create_dataset(name, size=wanted * DRAWS_PER_PROBLEM, seed=seed, **settings)
    except (ValueError, TypeError, AssertionError) as error:
        known = ", ".join(sorted(gym.factory.DATASETS))
        raise ConfigError(
            f"reasoning-gym cannot make {name!r} with {settings}: {error}. Its tasks: {known}."
        ) from error
    found: dict[str, Problem] = {}
    for item in (items[i] for i in range(len(items))):
        problem = _problem(name, item, partial(_score, items, item))
        found.setdefault(problem.name, problem)
        if len(found) == wanted:
            return split_task(f"reasoning_gym:{name}", list(found.values()), n_test)
    raise ConfigError(
        f"n_train + n_test = {wanted}, but reasoning-gym's {name!r} gave {len(found)} distinct "
        "problems. Ask for fewer, or change its settings."
    )


def _problem(name: str, item: dict[str, Any], score: Callable[[str], float]) -> Problem:
    question = item["question"].strip()
    make_env = partial(ScoredEnv, messages=ask(question + INSTRUCTION), score=score)
    return Problem(question, make_env, tag=name)


def _score(items: Any, item: dict[str, Any], answer: str) -> float:
    try:
        return float(items.score_answer(answer=answer, entry=item))
    except Exception:  # some of its scorers stumble over answers that are no answer
        return 0.0


def _reasoning_gym() -> Any:
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ConfigError(
            "The tasks of reasoning-gym need an extra. Install it: pip install -e '.[reasoning]' "
            "-c constraints.txt. It compiles pycosat, so it needs a C compiler (gcc, clang or "
            "Visual C++ Build Tools)."
        )
    if "pycosat" not in sys.modules and importlib.util.find_spec("pycosat") is None:
        sys.modules["pycosat"] = ModuleType("pycosat")  # installed without a compiler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of cellpylib, when first compiled
        return importlib.import_module("reasoning_gym")
