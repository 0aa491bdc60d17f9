"""`start_here` and the concept notebooks: their checkers name each mistake."""

import ast
from typing import Any

import pytest

from cookbook.notebooks.exercises import exercises
from cookbook.notebooks.stamp import code_cells
from tests.notebooks.loop_kernel import checked, read_notebook

PROBABILITY = "def probability(logprobs):\n return "
LAST = "def last_answer(roles, numbers, sampled):\n rows = zip(roles, numbers, sampled)\n return "
LOSS = "def token_loss(p, q, A):\n return "
TOP_P = "def keep_top_p(p, top_p):\n return "
NUCLEUS = """def keep_top_p(p, top_p):
 order = np.argsort({by})
 kept = np.zeros_like(p)
 below = np.cumsum(p[order]) {minus}< top_p
 kept[{to}] = np.where(below, p[order], 0)
 return kept / {total}"""
ORDER = "order"


def nucleus(by: str = "-p", minus: str = "- p[order] ", to: str = ORDER, total: str = "kept.sum()"):
    return NUCLEUS.format(by=by, minus=minus, to=to, total=total)


ANSWERS = [
    ("start_here", PROBABILITY + "NotImplemented", "not attempted yet"),
    ("start_here", PROBABILITY + "np.exp(sum(logprobs))", "Correct"),
    ("start_here", PROBABILITY + "sum(logprobs)", "still a logarithm"),
    ("start_here", PROBABILITY + "np.exp(np.mean(logprobs))", "a typical token"),
    ("start_here", PROBABILITY + "np.exp(logprobs).sum()", "a probability above 1"),
    ("start_here", PROBABILITY + "np.exp(logprobs).mean()", "the mean probability"),
    ("start_here", PROBABILITY + "7", "got 7, expected 0.2"),
    ("concept_rendering", LAST + "NotImplemented", "not attempted yet"),
    (
        "concept_rendering",
        LAST + "[float(n == max(numbers) and r == 'assistant' and s) for r, n, s in rows]",
        "Correct",
    ),
    (
        "concept_rendering",
        LAST + "[float(r == 'assistant' and s) for r, n, s in rows]",
        "these are all answers",
    ),
    ("concept_rendering", LAST + "[float(n == 3) for r, n, s in rows]", "the header is given"),
    (
        "concept_rendering",
        LAST + "[*(float(n == 3 and s) for r, n, s in rows)][1:] + [0.0]",
        "do not shift",
    ),
    ("concept_rendering", LAST + "[0.0] * len(roles)", "expected [0.0"),
    (
        "concept_rendering",
        LAST + "[float(n == max(numbers) and s) for r, n, s in rows]",
        "when the user speaks last",
    ),
    ("concept_losses", LOSS + "NotImplemented", "not attempted yet"),
    ("concept_losses", LOSS + "-float(np.exp(p - q)) * A", "Correct"),
    ("concept_losses", LOSS + "float(np.exp(p - q)) * A", "the sign"),
    ("concept_losses", LOSS + "-float(np.exp(q - p)) * A", "upside down"),
    ("concept_losses", LOSS + "-float(p - q) * A", "the logarithm of the ratio"),
    ("concept_losses", LOSS + "-float(p) * A", "there is no ratio"),
    ("concept_losses", LOSS + "-float(np.exp(p - q))", "where is the advantage"),
    ("concept_losses", LOSS + "None", "expected a number"),
    ("concept_losses", LOSS + "5.0", "expected -3, got 5"),
    ("concept_sampling", TOP_P + "NotImplemented", "not attempted yet"),
    ("concept_sampling", nucleus(), "Correct"),
    ("concept_sampling", TOP_P + "p", "nothing was removed"),
    ("concept_sampling", nucleus(total="1"), "must sum to 1"),
    ("concept_sampling", nucleus(minus=""), "the token that reaches top_p"),
    ("concept_sampling", nucleus(to="slice(None)"), "the order changed"),
    ("concept_sampling", nucleus(by="np.arange(4)"), "sort by probability"),
    ("concept_sampling", TOP_P + "None", "expected four numbers"),
    ("concept_sampling", TOP_P + "np.ones(4)", "got [1. 1. 1. 1.]"),
]


def imports_of(notebook: Any) -> str:
    """Return the import statements of a notebook's first cell."""
    tree = ast.parse(code_cells(notebook)[0].source)
    return "\n".join(
        ast.unparse(s) for s in tree.body if isinstance(s, ast.Import | ast.ImportFrom)
    )


@pytest.mark.parametrize(("name", "answer", "verdict"), ANSWERS)
def test_checker_names_each_mistake(name: str, answer: str, verdict: str) -> None:
    notebook = read_notebook(name)
    told = checked(
        notebook,
        0,
        answer,
        imports_of(notebook),
        notebook.cells[exercises(notebook)[0].stub].source,
    )
    assert verdict in told
    assert told.startswith("Correct") == (verdict == "Correct")
