"""Distillation: a student learns from a teacher's samples, probabilities, or verdicts on its own.

All teachers must share the student's tokenizer. Letters: T tokens of a row, K most likely tokens.
"""

from cookbook.distillation.filtering import Vote, vote
from cookbook.distillation.on_policy import ReverseKL, Teacher, reverse_kl_rows
from cookbook.distillation.reading import Reader, with_context
from cookbook.distillation.soft_targets import SoftTargets, soft_datum, soft_targets

__all__ = [
    "Reader",
    "ReverseKL",
    "SoftTargets",
    "Teacher",
    "Vote",
    "reverse_kl_rows",
    "soft_datum",
    "soft_targets",
    "vote",
    "with_context",
]
