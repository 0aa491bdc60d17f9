"""Tasks for reinforcement learning: rules and data, no server. `load_task` knows them by name."""

from cookbook.envs.arithmetic import arithmetic_task
from cookbook.envs.comparisons import comparison_task
from cookbook.envs.facts import Corpus, Fact, fact_messages, fact_task, load_corpus
from cookbook.envs.guess_number import (
    GuessNumberEnv,
    fewest_turns,
    guess_number_task,
    guess_number_turns,
)
from cookbook.envs.languages import Sentence, language_task, read_language, sentences
from cookbook.envs.math_sets import math_task
from cookbook.envs.reasoning import reasoning_task
from cookbook.envs.self_play import (
    Game,
    board_prompt,
    match_problems,
    model_player,
    play_out,
    program_player,
    self_play_problems,
)
from cookbook.envs.tasks import load_task
from cookbook.envs.twenty_questions import model_answerer, twenty_questions_task
from cookbook.envs.word_problems import (
    WordProblem,
    word_problem_examples,
    word_problem_task,
    word_problems,
)

__all__ = [
    "Corpus",
    "Fact",
    "Game",
    "GuessNumberEnv",
    "Sentence",
    "WordProblem",
    "arithmetic_task",
    "board_prompt",
    "comparison_task",
    "fact_messages",
    "fact_task",
    "fewest_turns",
    "guess_number_task",
    "guess_number_turns",
    "language_task",
    "load_corpus",
    "load_task",
    "match_problems",
    "math_task",
    "model_answerer",
    "model_player",
    "play_out",
    "program_player",
    "read_language",
    "reasoning_task",
    "self_play_problems",
    "sentences",
    "twenty_questions_task",
    "word_problem_examples",
    "word_problem_task",
    "word_problems",
]
