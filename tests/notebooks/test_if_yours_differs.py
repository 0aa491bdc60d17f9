"""Each row of a notebook's table "you see, likely cause, what to change" was seen by somebody.

What is listed here shows the row: a cell of the same notebook, a test, or the settings of a run.
A new row needs its evidence.
"""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
TABLE = re.compile(r"^\| *you see[^\n]*\n\|[-| ]+\n(?P<rows>(?:\|[^\n]*(?:\n|\Z))+)", re.MULTILINE)
LEAST_ROWS = 2
CLAIMS = "tests/notebooks/test_claims.py::test_claims_fail_without_training"  # at rate 0
ROWS = "tests/notebooks/test_rows.py::"
ANALYSIS = "tests/test_analysis.py::"
WITHOUT_TABLE = {"start_here"}
"""Notebooks that lead through the others, or explain one thing, and train nothing of their own."""


def cell(number: int) -> str:
    return f"cell-{number}"


SHOWN = {
    "analyze_results": {
        "the loss rises above its start": "analyze-29",
        "the held-out value moves less than its noise": (
            "tests/notebooks/test_analyze_results.py::test_claims_fail_on_a_run_without_training"
        ),
        '"last line is torn"': "analyze-34",
        "an error that there is no run": "analyze-36",
    },
    "chat_sl": {
        "purple hardly falls": cell(17),
        "purple ends above": cell(17),
        "blue falls far below purple": f"{ROWS}test_few_rows_again_and_again_are_learned_by_heart",
        "*A conversation is left out*": (
            "tests/test_supervised.py::test_conversations_without_a_target_are_left_out_aloud"
        ),
    },
    "custom_environment": {
        "reward 0 in every step": {"max_tokens": 4},
        "*episodes failed and are left out*": cell(22),
    },
    "distillation": {
        "the KL of the on-policy student does not fall": cell(27),
        "on-policy answers all wrong": {"learning_rate": 6e-3},
    },
    "dpo": {
        "loss does not start at 0.693": cell(17),
        "accuracy 1, ranking hardly better": {"learning_rate": 5e-4, "max_steps": 8},
        "accuracy 1, implicit KL": cell(29),
    },
    "guessing_games": {
        "reward at its lowest": cell(8),
        "reward falls to 0 within": {"learning_rate": 6e-3},
        "reward rises and stops": cell(16),
    },
    "math_rl": {
        "reward 0 throughout": {"level": 3},
        "format near 1": {"level": 2},
        "reward rises, held-out accuracy does not": cell(21),
    },
    "multiplayer_rl": {
        "nearly all games end by an illegal move": cell(11),
        "illegal moves are left": {"illegal_fine": 0},
    },
    "prompt_distillation": {
        "few votes are kept": {"temperature": 2.0},
        "student far below": {"n_texts": 24},
        "student answers in": {"learning_rate": 1e-5},
    },
    "rl_basic": {
        "reward stays at the bottom": {"level": 3},
        "reward rises, then falls for good": {"learning_rate": 1.2e-3},
        "KL leaves ±0.01": cell(28),
        "many answers cut off": {"max_tokens": 4},
    },
    "rl_loop": {
        "`kl_sample_train_v1` far from 0": f"{ROWS}test_q_shifted_by_one_shows_in_the_kl",
        "reward rises, then": {"learning_rate": 6e-3},
        "reward stays at": {"max_tokens": 1},
    },
    "rlhf": {
        "judge's NLL ends": {"judge_steps": 1},
        "most comparisons": {"judge_steps": 1},
        "judge's win rate near 1": cell(28),
    },
    "shorter": {
        "length falls to 0": cell(18),
        "mean reward stays where it is": cell(18),
    },
    "sl_basic": {
        "purple flat": CLAIMS,
        "blue shoots up within two steps": cell(27),
        "the first point is near 11": cell(27),
        "NLL falls a little": {"max_steps": 1},
        "the run stops with *line 2": (
            "tests/test_data.py::test_bad_rows_name_file_line_and_field"
        ),
    },
    "sl_loop": {
        "a start near 12": f"{ROWS}test_targets_that_are_not_shifted_start_near_12",
        "no trend, only wobble, at 3e-5": {"learning_rate": 3e-5},
        "from 3.6 to 20 in four steps": {"learning_rate": 0.03},
    },
    "tool_use": {
        "held-out *format* falls": {"seed": 2},
        "reward near −0.1": {"max_tokens": 16},
        "reward 0, hardly a group": {"warmup_steps": 1},
    },
}
"""Notebook -> start of a row -> id of a cell, node of a test, or parameters that `cookbook run`
takes; the last were run by whoever wrote the row, and no test repeats them."""

NOTEBOOKS = [ROOT / "notebooks" / f"{name}.ipynb" for name in SHOWN]


def rows_of(notebook: Any) -> list[str]:
    """Return what stands in the first column of the notebook's tables."""
    texts = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    tables = [match["rows"] for text in texts for match in TABLE.finditer(text)]
    return [line.split("|")[1].strip() for table in tables for line in table.splitlines()]


def is_there(evidence: str | dict[str, Any], notebook: Any, path: Path) -> bool:
    from cookbook.parameters import read_parameters

    if isinstance(evidence, dict):
        return set(evidence) <= set(read_parameters(path))
    if "::" in evidence:
        file, name = evidence.split("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)
    return any(c.id == evidence and c.cell_type == "code" for c in notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_row_has_its_evidence(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    rows, shown = rows_of(notebook), SHOWN[path.stem]
    assert len(rows) >= LEAST_ROWS
    for row in rows:
        assert sum(row.startswith(start) for start in shown) == 1, f"not listed: {row!r}"
    for start, evidence in shown.items():
        assert any(row.startswith(start) for row in rows), f"no row starts with {start!r}"
        assert is_there(evidence, notebook, path), f"{start!r}: there is no {evidence}"


def test_every_notebook_that_trains_has_the_table() -> None:
    from cookbook.parameters import read_parameters

    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if "learning_rate" in read_parameters(path) and path.stem not in WITHOUT_TABLE:
            rows = rows_of(nbformat.read(path, as_version=4))
            assert len(rows) >= LEAST_ROWS, f"{path.name} has no table of what may differ"
