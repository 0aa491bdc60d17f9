"""Reinforcement learning: environments, rollouts, advantages, datums, and the trainer."""

from cookbook.checkpointing import Result
from cookbook.rl.advantages import episode_advantages, group_advantages
from cookbook.rl.config import Config
from cookbook.rl.datums import Row, episode_rows, group_rows
from cookbook.rl.env import Env, NoTurn, Problem, Reply, Step, Task
from cookbook.rl.episodes import Episode, Group, Turn
from cookbook.rl.evaluation import Evaluation, evaluate
from cookbook.rl.frozen import FrozenModel
from cookbook.rl.kl import AdvantageEdit, penalise_distance, reference_logprobs
from cookbook.rl.question import Grade, QuestionEnv
from cookbook.rl.rollouts import Player, play
from cookbook.rl.trainer import make_player, train
from cookbook.rl.update import train_step

__all__ = [
    "AdvantageEdit",
    "Config",
    "Env",
    "Episode",
    "Evaluation",
    "FrozenModel",
    "Grade",
    "Group",
    "NoTurn",
    "Player",
    "Problem",
    "QuestionEnv",
    "Reply",
    "Result",
    "Row",
    "Step",
    "Task",
    "Turn",
    "episode_advantages",
    "episode_rows",
    "evaluate",
    "group_advantages",
    "group_rows",
    "make_player",
    "penalise_distance",
    "play",
    "reference_logprobs",
    "train",
    "train_step",
]
