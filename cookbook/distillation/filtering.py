"""Which of a teacher's answers to believe: what most samples of one prompt say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cookbook.errors import DataError


@dataclass(frozen=True)
class Vote:
    """What several samples of one prompt say together."""

    answer: str | None
    """The most frequent valid answer, of equals the one given first; None if none is valid."""
    agreement: float
    """Its share of all samples, invalid ones included: 0 to 1."""


def vote(answers: Sequence[str | None]) -> Vote:
    """Return the vote of a prompt's answers, where None stands for one that could not be read.

    An invalid answer counts against all others: a teacher that often misses the form is unsure too.

    Raises:
        DataError: no answers.
    Source: Wang et al. 2022, "Self-consistency", arXiv:2203.11171, the unweighted vote; *left out*:
        weights by the samples' probabilities.
    Example:
        >>> vote(["de", "de", None, "nl"])
        Vote(answer='de', agreement=0.5)
    """
    if not answers:
        raise DataError("vote: got no answers; sample at least one for each prompt.")
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return Vote(None, 0.0)
    answer, count = counts.most_common(1)[0]
    return Vote(answer, count / len(answers))
