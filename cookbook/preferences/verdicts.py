"""What a judge makes of labelled comparisons: right or wrong, biased by place, calibrated or not.

Shape: E comparisons, each judged in both orders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cookbook.analysis.intervals import mean_interval, wilson_interval
from cookbook.errors import DataError
from cookbook.preferences.comparison import Label

Interval = tuple[float, float, float]
"""A figure and the ends of its 95% interval."""


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """Probabilities that the answer shown first is the better one, and the labels."""

    both: np.ndarray
    """Of each comparison as given and with its answers swapped (E, 2)."""
    labels: Sequence[Label]
    """The better answer of each comparison as given (E)."""

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probability that answer A is the better one, the mean over both orders (E,)."""
        return (self.both[:, 0] + 1 - self.both[:, 1]) / 2

    @property
    def place_bias(self) -> Interval:
        """How much likelier the first place wins than the second, with its t interval.

        0 for a judge that sees the answers alone; 1 for one that always says A. It is the mean over
        comparisons of (P(first | as given) + P(first | swapped)) - 1, to which the answers do not
        matter: what one order gives an answer for its quality, the other takes.
        """
        return _mean(self.both.sum(axis=1) - 1)

    @property
    def fickle(self) -> Interval:
        """Share of comparisons whose winner depends on the order, with its Wilson interval."""
        return _rate((self.both[:, 0] > 0.5) == (self.both[:, 1] > 0.5))

    def accuracy(self, symmetrised: bool = True) -> Interval:
        """Return how often the winner is the labelled one, ties left out, with its Wilson interval.

        Args:
            symmetrised: judge by the mean of both orders; else by each order alone, which counts
                every comparison twice and its interval as if those were independent.
        Raises:
            DataError: all comparisons are ties.
        """
        decided = np.array([label != "Tie" for label in self.labels])
        if not decided.any():
            raise DataError("All comparisons are ties, so no verdict is right. Give others.")
        first_is_better = np.array([label == "A" for label in self.labels])
        if symmetrised:
            right = (self.probabilities > 0.5) == first_is_better
            return _rate(right[decided])
        as_given = (self.both[:, 0] > 0.5) == first_is_better
        swapped = (self.both[:, 1] > 0.5) != first_is_better
        return _rate(np.concatenate([as_given[decided], swapped[decided]]))

    def calibration(self, n_bins: int = 4) -> "list[CalibrationBin]":
        """Return how often the favoured answer is the labelled one, by how sure the judge is."""
        decided = [i for i, label in enumerate(self.labels) if label != "Tie"]
        confidence = np.maximum(self.probabilities, 1 - self.probabilities)[decided]
        right = [(self.probabilities[i] > 0.5) == (self.labels[i] == "A") for i in decided]
        return calibration(confidence, right, n_bins)


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Predictions of about the same probability, and how often they came true."""

    predicted: float
    """Mean probability."""
    share: float
    """Share that came true."""
    low: float
    """Lower end of its 95% Wilson interval."""
    high: float
    """Upper end of it."""
    n: int
    """Predictions in the bin."""


def calibration(
    probabilities: Sequence[float] | np.ndarray,
    came_true: Sequence[bool] | np.ndarray,
    n_bins: int = 4,
) -> list[CalibrationBin]:
    """Return the calibration curve of predictions (E), from the least to the most probable.

    Bins hold as many predictions each, so that none is empty; a calibrated predictor has
    ``share = predicted`` in all of them, up to chance.

    Args:
        probabilities: of each event (E,), 0 to 1.
        came_true: whether it happened (E,).
        n_bins: at most so many.
    Raises:
        DataError: no predictions, other numbers of outcomes, or fewer than one bin.
    Source: the reliability diagram of DeGroot and Fienberg 1983, The Statistician 32:12, with
        bins of equal count instead of equal width.
    """
    predicted, outcome = np.asarray(probabilities, float), np.asarray(came_true, bool)
    if len(predicted) != len(outcome) or not len(predicted) or n_bins < 1:
        raise DataError(
            f"calibration: expected as many outcomes as predictions and at least one of each and "
            f"one bin, got {len(predicted)} predictions, {len(outcome)} outcomes, {n_bins} bins."
        )
    order = np.argsort(predicted, kind="stable")
    bins = []
    for members in np.array_split(order, min(n_bins, len(order))):
        share, low, high = _rate(outcome[members])
        mean = float(predicted[members].mean())
        bins.append(CalibrationBin(predicted=mean, share=share, low=low, high=high, n=len(members)))
    return bins


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Return the mean distance of share and prediction, bins weighted by their size; 0 is perfect.

    Source: expected calibration error, Guo et al. 2017 (arXiv:1706.04599), equation 3.
    """
    total = sum(each.n for each in bins)
    return sum(each.n * abs(each.share - each.predicted) for each in bins) / total


def _rate(hits: np.ndarray) -> Interval:
    k, n = int(hits.sum()), len(hits)
    return (k / n, *wilson_interval(k, n))


def _mean(values: np.ndarray) -> Interval:
    mean = float(values.mean())
    return (mean, *(mean_interval(values.tolist()) if len(values) > 1 else (np.nan, np.nan)))
