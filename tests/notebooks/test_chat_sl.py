"""`chat_sl`: its checkers name each mistake."""

import pytest

from cookbook.notebooks.exercises import exercises
from tests.notebooks.loop_kernel import checked, read_notebook

NOTEBOOK = read_notebook("chat_sl")
FLAGS = """def flag_turns(messages, n_words):
 rows, before = [], None
 for m in messages:
  brief = {brief}
  rows.append({{**m, "trainable": {flag}}})
  before = m
 return rows"""
BRIEF = "before and before['role'] == 'user' and len(before['content'].split()) < n_words"
FLAG = "bool(m['role'] == 'assistant' and not brief)"
FIT = """def first_fit(n_tokens, row_length):
 rows = []
 for n in {order}:
  room = [row for row in rows if sum(row) + n <= row_length]
  if {new}:
   rows.append([n])
  else:
   {chosen}.append(n)
 return {rows}"""
FITTING = {
    "order": "sorted(n_tokens)[::-1]",
    "new": "not room",
    "chosen": "room[0]",
    "rows": "rows",
}


def flags(brief: str = BRIEF, flag: str = FLAG) -> str:
    return FLAGS.format(brief=brief, flag=flag)


def fit(**changed: str) -> str:
    return FIT.format(**{**FITTING, **changed})


ANSWERS = [
    (0, "def flag_turns(messages, n_words):\n return NotImplemented", "not attempted yet"),
    (0, flags(), "Correct"),
    (0, "def flag_turns(messages, n_words):\n return None", "needs the key"),
    (0, "def flag_turns(messages, n_words):\n return [dict(m) for m in messages]", "needs the key"),
    (0, flags(flag="not brief"), "only messages of the assistant"),
    (0, flags(brief="False"), "the reply to 'Thanks!' is trained"),
    (
        0,
        flags(brief="before and len(before['content'].split()) < 5"),
        "follows the assistant's own",
    ),
    (0, flags(flag="False"), "the answer to the first question"),
    (
        0,
        "def flag_turns(messages, n_words):\n for m in messages:\n  m['trainable'] = True\n"
        " return messages",
        "return copies",
    ),
    (1, "def first_fit(n_tokens, row_length):\n return NotImplemented", "not attempted yet"),
    (1, fit(), "Correct: 3 rows, 90% full"),
    (1, "def first_fit(n_tokens, row_length):\n return 3", "expected a list of lists"),
    (1, fit(rows="[sum(rows, [])]"), "more than 100 tokens"),
    (1, fit(rows="rows[:-1]"), "in exactly one row"),
    (1, fit(new="True"), "a row of its own"),
    (1, fit(order="n_tokens"), "longest first"),
    (1, fit(order="sorted(n_tokens)"), "longest first"),
    (1, fit(chosen="room[-1]", new="not room or n == 30"), "first row with room"),
]


@pytest.mark.parametrize(("number", "answer", "verdict"), ANSWERS)
def test_checker_names_each_mistake(number: int, answer: str, verdict: str) -> None:
    stub = NOTEBOOK.cells[exercises(NOTEBOOK)[number].stub].source
    told = checked(NOTEBOOK, number, answer, stub)
    assert verdict in told
    assert told.startswith("Correct") == (verdict.startswith("Correct"))
