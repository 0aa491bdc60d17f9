"""Find a notebook's exercises and put their solutions in place, so that a test can run them.

The form: a code cell tagged ``exercise`` holds only the stub; the next code cell is the checker; a
markdown cell after them holds ``<details><summary>Solution</summary>`` with one fenced block of
Python, the only copy of the solution. The checker prints ``not attempted yet`` for the stub and a
line that starts with ``Correct`` for the right answer.
"""

import ast
import re
from dataclasses import dataclass
from typing import Any

import nbformat

from cookbook.errors import DataError
from cookbook.notebooks.stamp import tags

NOT_ATTEMPTED = "not attempted yet"
CORRECT = re.compile(r"^Correct", re.MULTILINE)
_FOLD = re.compile(
    r"<details>\s*<summary>[^<]*solution[^<]*</summary>.*?```python\n(?P<code>.*?)```.*?</details>",
    re.DOTALL | re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise: where its stub and its checker stand among the cells, and its solution."""

    stub: int
    checker: int
    solution: str


def exercises(notebook: Any) -> list[Exercise]:
    """Return the notebook's exercises in order; an empty list if it has none.

    Raises:
        DataError: a stub has no checker after it or no solution fold beside it.
    """
    stubs = [i for i, cell in enumerate(notebook.cells) if "exercise" in tags(cell)]
    ends = [*stubs, len(notebook.cells)][1:]
    return [_exercise(notebook.cells, *where) for where in zip(stubs, ends, strict=True)]


def _exercise(cells: list[Any], stub: int, end: int) -> Exercise:
    """Read the exercise whose stub is cell ``stub``, from what stands before cell ``end``."""
    after = range(stub + 1, end)
    checkers = [i for i in after if cells[i].cell_type == "code"]
    prose = [cells[i].source for i in after if cells[i].cell_type == "markdown"]
    folds = [match for text in prose if (match := _FOLD.search(text))]
    if not checkers or not folds:
        lacking = "code cell after it that checks it" if folds else "fold after it with its answer"
        raise DataError(
            f"cell {stub + 1}: the exercise has no {lacking}. Write the stub, the checker, then "
            "<details><summary>Solution</summary> ```python ... ``` </details> in a text cell."
        )
    return Exercise(stub=stub, checker=checkers[0], solution=folds[0]["code"].strip())


def with_solution(notebook: Any, exercise: Exercise, solution: str | None = None) -> Any:
    """Return a small notebook that runs the exercise's checker on its solution.

    Of the cells before, it holds only those that define a name that is needed further down (an
    import, a function, a value), so that no model is trained unless the exercise asks for it. A
    name that a cell both reads and assigns counts as the cell's own.

    Args:
        solution: what stands in the stub's place instead of the fold's code.
    """
    code = exercise.solution if solution is None else solution
    checker = notebook.cells[exercise.checker].source
    sources = [code, checker]
    needed = (_read(code) | _read(checker)) - (_defined(code) | _defined(checker))
    for cell in reversed(notebook.cells[: exercise.stub]):
        if cell.cell_type == "code" and _defined(cell.source) & needed:
            sources.insert(0, cell.source)
            needed |= _read(cell.source) - _defined(cell.source)
    small: Any = nbformat.v4.new_notebook(metadata=notebook.metadata)
    small.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return small


def _names(source: str, context: type[ast.expr_context]) -> set[str]:
    """Return the names that occur in a context anywhere in the source."""
    return {
        node.id
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


def _read(source: str) -> set[str]:
    return _names(source, ast.Load)


def _defined(source: str) -> set[str]:
    """Return the names that a cell binds: assigned, imported, defined or taken as an argument."""
    found = _names(source, ast.Store)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found
