"""Supervised training on conversations: settings, examples, evaluation, and the trainer."""

from cookbook.checkpointing import Result
from cookbook.supervised.config import Config, learning_rate_multiplier
from cookbook.supervised.datums import build_datums, datum_from_tokens
from cookbook.supervised.evaluation import (
    Evaluation,
    evaluate_nll,
    target_logprobs,
    weighted_nll,
    whole_input,
)
from cookbook.supervised.lengths import Lengths, measure_lengths
from cookbook.supervised.trainer import Examples, total_steps, train, train_step

__all__ = [
    "Config",
    "Evaluation",
    "Examples",
    "Lengths",
    "Result",
    "build_datums",
    "datum_from_tokens",
    "evaluate_nll",
    "learning_rate_multiplier",
    "measure_lengths",
    "target_logprobs",
    "total_steps",
    "train",
    "train_step",
    "weighted_nll",
    "whole_input",
]
