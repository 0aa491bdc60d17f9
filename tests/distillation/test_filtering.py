import random
from collections import Counter

import pytest

from cookbook.distillation import vote
from cookbook.errors import DataError


@pytest.mark.parametrize(
    ("answers", "answer", "agreement"),
    [
        (["de"], "de", 1.0),
        (["de", "nl", "de", "de"], "de", 0.75),
        ([None, "de", None, None], "de", 0.25),
        ([None, None], None, 0.0),
        (["nl", "de", "de", "nl"], "nl", 0.5),
    ],
)
def test_the_most_frequent_valid_answer_wins(answers, answer, agreement):
    found = vote(answers)
    assert (found.answer, found.agreement) == (answer, agreement)


def test_on_random_answers_it_is_the_count():
    rng = random.Random(0)
    for _ in range(200):
        answers = rng.choices(["a", "b", "c", None], k=rng.randrange(1, 9))
        found, counts = vote(answers), Counter(a for a in answers if a)
        best = max(counts.values(), default=0)
        assert found.agreement == best / len(answers)
        assert counts[found.answer] == best
        assert found.agreement == pytest.approx(vote(answers[::-1]).agreement)


def test_without_answers_there_is_no_vote():
    with pytest.raises(DataError, match="got no answers"):
        vote([])
