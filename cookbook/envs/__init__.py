"""Tasks for reinforcement learning: rules and data, no server. `load_task` knows them by name."""

from cookbook.envs.arithmetic import arithmetic_task
from cookbook.envs.comparisons import comparison_task
from cookbook.envs.languages import Sentence, language_task, read_language, sentences
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
    "Sentence",
    "WordProblem",
    "arithmetic_task",
    "comparison_task",
    "language_task",
    "load_task",
    "math_task",
    "read_language",
    "reasoning_task",
    "sentences",
    "word_problem_examples",
    "word_problem_task",
    "word_problems",
]
