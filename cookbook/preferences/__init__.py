"""Learning from comparisons: what is preferred, rather than what is right.

Shapes: B pairs of a batch, E pairs of an evaluation, N positions of a datum.
"""

from cookbook.checkpointing import Result
from cookbook.preferences.asking import asks_back
from cookbook.preferences.comparison import (
    LABELS,
    Comparison,
    Label,
    shuffled_sides,
    symmetrised,
    without_ties,
)
from cookbook.preferences.config import Config
from cookbook.preferences.data import load_comparisons, load_train_and_test, split_comparisons
from cookbook.preferences.datums import Pair, build_pair, fit_prompt
from cookbook.preferences.dpo import build_pairs, train
from cookbook.preferences.evaluation import Scores
from cookbook.preferences.judge import (
    Judge,
    judge_datum,
    judge_datums,
    judge_messages,
    judge_tokens,
)
from cookbook.preferences.loss import PairLoss, batch_loss, dpo_loss, train_step
from cookbook.preferences.reference import pair_logprobs, reference_logprobs, sums
from cookbook.preferences.rows import labelled_answers, standard_comparison
from cookbook.preferences.tournaments import (
    AnswerEnv,
    DuelEnv,
    Preference,
    Tournament,
    duel,
    matches,
    question,
    tournament,
    win_minus_loss,
)
from cookbook.preferences.verdicts import (
    CalibrationBin,
    Verdicts,
    calibration,
    calibration_error,
)

__all__ = [
    "LABELS",
    "AnswerEnv",
    "CalibrationBin",
    "Comparison",
    "Config",
    "DuelEnv",
    "Judge",
    "Label",
    "Pair",
    "PairLoss",
    "Preference",
    "Result",
    "Scores",
    "Tournament",
    "Verdicts",
    "asks_back",
    "batch_loss",
    "build_pair",
    "build_pairs",
    "calibration",
    "calibration_error",
    "dpo_loss",
    "duel",
    "fit_prompt",
    "judge_datum",
    "judge_datums",
    "judge_messages",
    "judge_tokens",
    "labelled_answers",
    "load_comparisons",
    "load_train_and_test",
    "matches",
    "pair_logprobs",
    "question",
    "reference_logprobs",
    "shuffled_sides",
    "split_comparisons",
    "standard_comparison",
    "sums",
    "symmetrised",
    "tournament",
    "train",
    "train_step",
    "win_minus_loss",
    "without_ties",
]
