"""Tasks for reinforcement learning: rules and data, no server. `load_task` knows them by name."""

from cookbook.envs.arithmetic import arithmetic_task
from cookbook.envs.comparisons import comparison_task
from cookbook.envs.math_sets import math_task
from cookbook.envs.reasoning import reasoning_task
from cookbook.envs.tasks import load_task
from cookbook.envs.word_problems import (
    WordProblem,
    word_problem_examples,
    word_problem_task,
    word_problems,
)

__all__ = [
    "WordProblem",
    "arithmetic_task",
    "comparison_task",
    "load_task",
    "math_task",
    "reasoning_task",
    "word_problem_examples",
    "word_problem_task",
    "word_problems",
]
