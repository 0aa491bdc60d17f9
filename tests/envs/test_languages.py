from collections import Counter
from itertools import combinations

import pytest

from cookbook.envs import language_task, sentences
from cookbook.envs.languages import LANGUAGES, PARTS, TRAIN_PARTS, read_language
from cookbook.errors import ConfigError
from tests.envs.players import answered, is_correct, question_of


def test_no_part_is_in_two_sets_or_two_languages():
    train, test = sentences(1080, 0), sentences(320, 0, held_out=True)
    assert len({s.text for s in train}) == 1080
    assert len({s.text for s in test}) == 320
    for parts in PARTS.values():
        for part in parts:
            assert len({*part}) == 10
            assert not any(held in s.text for held in part[TRAIN_PARTS:] for s in train)
            assert not any(seen + " " in s.text for seen in part[:TRAIN_PARTS] for s in test)
    texts = [{p for part in parts for p in part} for parts in PARTS.values()]
    assert not any(a & b for a, b in combinations(texts, 2))


@pytest.mark.parametrize("held_out", [False, True])
def test_languages_are_equally_frequent_and_follow_from_the_seed(held_out):
    found = sentences(52, 3, held_out)
    assert sorted(Counter(s.language for s in found).values()) == [10, 10, 10, 11, 11]
    assert found == sentences(52, 3, held_out)
    assert found != sentences(52, 4, held_out)


def test_more_sentences_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="there are 320 such sentences"):
        sentences(321, 0, held_out=True)


def test_the_name_alone_is_an_answer():
    context = [{"role": "system", "content": "Name the language."}]
    task = language_task(n_train=5, n_test=5, seed=0, context=context)
    given = {s.text: s.language for s in sentences(5, 0)}
    for problem in task.train:
        assert question_of(problem) == problem.name
        right = given[problem.name]
        wrong = next(name for name in LANGUAGES if name != right)
        assert is_correct(problem, right)
        assert is_correct(problem, f" {right.upper()}.\n")
        assert not is_correct(problem, wrong)
        assert not is_correct(problem, f"It is {right}")
        assert answered(problem, wrong).metrics["format"] == 1
        assert answered(problem, f"{right} {wrong}").metrics["format"] == 0


@pytest.mark.parametrize("text", ["", "Dutch", "en", "English German", "It is English"])
def test_anything_else_is_none(text):
    assert read_language(text) is None
