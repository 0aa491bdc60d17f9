"""The static check of what an author writes: tags, the parameters cell, title, lengths."""

import ast
import io
import re
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cookbook.notebooks.stamp import code_cells, tagged, tags
from cookbook.notebooks.status import status_line

TAGS = ("parameters", "claims", "exercise", "solution", "raises-exception", "live")
# Papermill reads no other annotation: `str | None` would make it call a valid name unknown.
ANNOTATIONS = ("int", "float", "str", "bool")
MAX_PARAMETERS = 12
MAX_CELL_LINES = 40


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Upper limits of one notebook; lines are counted without blank ones."""

    cells: int
    code_cells: int
    code_lines: int
    words: int
    figures: int


WALKTHROUGH = Budget(cells=55, code_cells=22, code_lines=350, words=2500, figures=8)
MINIMAL_LOOP = Budget(cells=27, code_cells=11, code_lines=175, words=1250, figures=4)


def budget_of(stem: str) -> Budget:
    """Return the limits for a notebook by its file name without the ending."""
    return MINIMAL_LOOP if stem.endswith("_loop") else WALKTHROUGH


def source_faults(notebook: Any, stem: str) -> list[str]:
    """Return what is wrong with the cells as written, whatever is stored in their outputs."""
    return [
        *_kernel_faults(notebook),
        *_tag_faults(notebook),
        *_parameter_faults(notebook),
        *_budget_faults(notebook, budget_of(stem)),
    ]


def _kernel_faults(notebook: Any) -> Iterator[str]:
    kernel = notebook.metadata.get("kernelspec", {})
    seen = (kernel.get("name"), kernel.get("language"))
    if seen != ("python3", "python"):
        yield f"kernel name and language are {seen}, papermill needs ('python3', 'python')"
    if status_line(notebook) is None:
        yield "the first cell has no status line: one that starts with '≈' below the title"


def _tag_faults(notebook: Any) -> Iterator[str]:
    for number, cell in enumerate(notebook.cells, start=1):
        for tag in tags(cell):
            if tag not in TAGS:
                yield f"cell {number}: tag '{tag}' is none of {', '.join(TAGS)}"
    for tag in ("parameters", "claims"):
        count = len(tagged(notebook, tag))
        if count != 1:
            yield f"{count} cells are tagged '{tag}', there must be exactly one"


def _parameter_faults(notebook: Any) -> Iterator[str]:
    """Only plain values, each annotated and explained: nothing that an injection leaves stale."""
    for cell in tagged(notebook, "parameters")[:1]:
        try:
            statements = ast.parse(cell.source).body
        except SyntaxError as error:
            yield f"parameters cell: {error}"
            return
        lines, comments = cell.source.splitlines(), _comments(cell.source)
        if len(statements) > MAX_PARAMETERS:
            yield f"{len(statements)} parameters, allowed are {MAX_PARAMETERS}"
        for statement in statements:
            comment = comments.get(statement.lineno, "")
            if reason := _unfit(statement, comment):
                yield f"parameters cell, {lines[statement.lineno - 1].strip()!r}: {reason}"


def _unfit(statement: ast.stmt, comment: str) -> str | None:
    """Say what keeps a statement from being a parameter, or None."""
    if not isinstance(statement, ast.AnnAssign) or statement.value is None:
        return "write 'name: type = value  # unit or meaning'"
    if ast.unparse(statement.annotation) not in ANNOTATIONS:
        return f"the annotation must be one of {', '.join(ANNOTATIONS)}"
    value = statement.value
    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub):
        value = value.operand
    if not isinstance(value, ast.Constant) or type(value.value).__name__ not in ANNOTATIONS:
        return "the value must be a plain number, string or bool; derive others in the config cell"
    if not comment.strip("# "):
        return "explain it by a comment on the same line"
    if "=" in comment or "=" in str(value.value):
        return "papermill reads no line with a second '='"
    return None


def _comments(source: str) -> dict[int, str]:
    """Return the comments by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def _budget_faults(notebook: Any, budget: Budget) -> Iterator[str]:
    lines = [_code_lines(cell.source) for cell in code_cells(notebook)]
    words = sum(_words(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    counted = {
        "cells": (len(notebook.cells), budget.cells),
        "code cells": (len(lines), budget.code_cells),
        "lines of code": (sum(lines), budget.code_lines),
        "lines in the median code cell": (statistics.median(lines or [0]), 10),
        "lines in the longest code cell": (max(lines, default=0), MAX_CELL_LINES),
        "words": (words, budget.words),
    }
    for name, (count, limit) in counted.items():
        if count > limit:
            yield f"{count:g} {name}, allowed are {limit}"


def _code_lines(source: str) -> int:
    return sum(bool(line.strip()) for line in source.splitlines())


def _words(markdown: str) -> int:
    """Count the words of prose: without fenced code, HTML tags and the targets of links."""
    prose = re.sub(r"```.*?```|<[^>]+>|(?<=\]\()[^)]*", " ", markdown, flags=re.DOTALL)
    return len(re.findall(r"\w[\w'’-]*", prose))
