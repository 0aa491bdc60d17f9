"""Exact match of short answers, as question answering is graded."""

import re
import string
from collections.abc import Sequence


def normalised(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and extra blanks.

    Source: the evaluation of SQuAD, Rajpurkar et al. 2016, arXiv:1606.05250.
    """
    bare = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(accepted: Sequence[str], answer: str) -> bool:
    """Return whether an answer is one of the accepted ones, up to `normalised`."""
    return normalised(answer) in {normalised(text) for text in accepted}
