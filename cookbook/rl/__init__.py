"""Reinforcement learning: environments, rollouts, advantages, datums, and the trainer."""

from cookbook.rl.env import Env, Problem, Reply, Step, Task
from cookbook.rl.question import Grade, QuestionEnv

__all__ = ["Env", "Grade", "Problem", "QuestionEnv", "Reply", "Step", "Task"]
