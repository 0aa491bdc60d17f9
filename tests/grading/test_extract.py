import gzip
import json
from pathlib import Path

import pytest

from cookbook.grading import gsm8k_answer, last_boxed, last_number

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("8", "8"),
        ("3 + 5 = 8.", "8"),
        ("It costs $1,234.50 in all.", "1234.50"),
        ("1,234,567", "1234567"),
        ("1, 2", "2"),
        ("1,2", "2"),
        ("1,2345", "2345"),
        ("-3", "-3"),
        ("5 - 8 = -3", "-3"),
        ("7-3", "3"),
        ("\N{MINUS SIGN}3", "-3"),
        ("\N{ARABIC-INDIC DIGIT FOUR}\N{ARABIC-INDIC DIGIT TWO}", "42"),
        ("x\N{SUPERSCRIPT TWO}", None),
        ("none", None),
        ("", None),
    ],
)
def test_last_number(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{}", ""),
        (r"\boxed{1} then \boxed{2", None),
        (r"\boxed{2\}", None),
        (r"\boxed", None),
        (r"\boxed 2", None),
        ("7", None),
    ],
)
def test_last_boxed(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 * 9 = <<2*9=18>>18\n#### 18", "18"),
        ("#### 1,080\nmore", "1080"),
        ("#### 1\n#### -2.5", "-2.5"),
        ("####", None),
        ("18", None),
    ],
)
def test_gsm8k_answer(text, answer):
    assert gsm8k_answer(text) == answer


def test_gsm8k_answer_agrees_with_the_labels_of_real_solutions():
    path = SHARED / "gsm8k" / "example_model_solutions.jsonl.gz"
    if not path.exists():
        pytest.skip("the shared data folder is not there")

    def answer(solution):
        return gsm8k_answer(solution.replace("\nA:", "\n####"))

    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    verdicts = [
        ((answer(given["solution"]) == answer(row["ground_truth"])), given["is_correct"])
        for row in rows
        for name, given in row.items()
        if isinstance(given, dict)
    ]
    assert len(verdicts) == 4 * 1319
    assert [pair for pair in verdicts if pair[0] != pair[1]] == []
