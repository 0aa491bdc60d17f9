import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook.errors import DataError
from cookbook.preferences import (
    LABELS,
    Comparison,
    asks_back,
    shuffled_sides,
    symmetrised,
    without_ties,
)

PROMPT = [{"role": "user", "content": "q"}]


def make(label="A", a="first", b="second"):
    return Comparison(prompt=PROMPT, answer_a=a, answer_b=b, label=label)


@pytest.mark.parametrize("label", LABELS)
def test_swapping_keeps_the_verdict_and_twice_is_nothing(label):
    once = make(label).swapped()
    assert (once.answer_a, once.answer_b) == ("second", "first")
    assert once.swapped() == make(label)
    if label != "Tie":
        assert (once.chosen, once.rejected) == (make(label).chosen, make(label).rejected)


def test_chosen_and_rejected():
    assert (make("A").chosen, make("A").rejected) == ("first", "second")
    assert (make("B").chosen, make("B").rejected) == ("second", "first")
    with pytest.raises(DataError, match=r"A tie has neither .*without_ties"):
        _ = make("Tie").chosen
    assert without_ties([make("A"), make("Tie"), make("B")]) == [make("A"), make("B")]


@given(st.lists(st.sampled_from(LABELS)))
def test_symmetrised_shows_every_place_equally_often(labels):
    shown = symmetrised([make(label, f"a{i}") for i, label in enumerate(labels)])
    assert len(shown) == 2 * len(labels)
    won = [comparison.label for comparison in shown]
    assert won.count("A") == won.count("B")
    assert [c.swapped() for c in shown[::2]] == shown[1::2]


def test_shuffled_sides_is_a_function_of_the_seed():
    rows = [make("A", f"a{i}") for i in range(200)]
    shown = shuffled_sides(rows, seed=3)
    assert shown == shuffled_sides(rows, seed=3) != shuffled_sides(rows, seed=4)
    assert 70 < [c.label for c in shown].count("A") < 130
    assert [c.chosen for c in shown] == [c.chosen for c in rows]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"label": "a"}, r"field 'label': expected one of A, B, Tie, got 'a'"),
        ({"label": 1}, r"field 'label': .*got 1"),
        ({"answer_a": " \n"}, r"field 'answer_a': expected an answer, got ' .n'"),
        ({"answer_b": None}, r"field 'answer_b': expected text, got nothing"),
        ({"answer_b": "a\ud800"}, r"field 'answer_b': .*surrogate"),
        ({"prompt": []}, r"field 'prompt': its field 'messages': .*at least one"),
        ({"prompt": "q"}, r"field 'prompt': its field 'messages': expected a list"),
        ({"prompt": [{"role": "bot", "content": ""}]}, r"'prompt': .*'messages\[0\].role'"),
        (
            {"prompt": [*PROMPT, {"role": "assistant", "content": "x"}]},
            r"field 'prompt': .*got the assistant's own",
        ),
    ],
)
def test_bad_comparisons(bad, words):
    fields = {"prompt": PROMPT, "answer_a": "x", "answer_b": "y", "label": "A", **bad}
    with pytest.raises(DataError, match=words):
        Comparison(**fields)


def test_with_answer_leaves_the_prompt_alone():
    assert make().with_answer("x")[-1] == {"role": "assistant", "content": "x"}
    assert make().prompt == PROMPT


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Iron rusts in damp air. Where are your tools?", True),
        ("It costs 3.14 euros in total. Is that too much?\n", True),
        ('They call it "rust". Do you say "corrosion?"', True),
        ("Iron rusts in damp air.", False),
        ("What do you think?", False),
        ("Why? It rusts in damp air. Where is it?", False),
        ("It rusts in damp air. Where is it? Or what is it?", False),
        ("Why does it rust? It is the damp air.", False),
        ("No. What divides it?", False),  # one word is no answer
        ("Iron rusts in damp air. Where is it? Tell me.", False),
        ("", False),
    ],
)
def test_asks_back(reply, expected):
    assert asks_back(reply) is expected
