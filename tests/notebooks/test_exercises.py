"""Each exercise's hidden solution satisfies its checker, and its stub says "not attempted yet"."""

import copy
from pathlib import Path
from typing import Any

import nbformat
import pytest

from cookbook.errors import DataError
from cookbook.notebooks.exercises import CORRECT, NOT_ATTEMPTED, Exercise, exercises, with_solution
from cookbook.notebooks.publish import execute

ROOT = Path(__file__).parents[2]
GOOD = Path(__file__).parent / "bad" / "good.ipynb"
PATHS = [GOOD, *sorted((ROOT / "notebooks").glob("*.ipynb"))]
HAVE = {path: exercises(nbformat.read(path, 4)) for path in PATHS}
ALL = [(path, exercise) for path in PATHS for exercise in HAVE[path]]


def printed(cell: Any) -> str:
    """Return what an executed cell printed."""
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.parametrize("path", [path for path in PATHS if HAVE[path]], ids=lambda path: path.stem)
def test_solutions_are_correct_and_stubs_are_not_attempted(path: Path, tmp_path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    # One kernel goes on from each stub to its solution and to the next exercise, as a reader does.
    together: Any = nbformat.v4.new_notebook(metadata=notebook.metadata)
    checkers = []
    for exercise in HAVE[path]:
        stub = notebook.cells[exercise.stub].source
        attempts = (with_solution(notebook, exercise, code).cells for code in (stub, None))
        for cells in attempts:
            together.cells += cells
            checkers.append(cells[-1])
    for number, cell in enumerate(together.cells):
        cell.id = f"c{number}"
    execute(together, tmp_path)
    told = [printed(cell) for cell in checkers]
    assert all(NOT_ATTEMPTED in text for text in told[::2]), told
    assert all(CORRECT.search(text) and NOT_ATTEMPTED not in text for text in told[1::2]), told


@pytest.mark.parametrize(("path", "exercise"), ALL, ids=[f"{p.stem}-{e.stub}" for p, e in ALL])
def test_fold_is_the_only_copy_of_the_solution(path: Path, exercise: Exercise) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    assert sum(exercise.solution in cell.source for cell in notebook.cells) == 1


def test_wrong_answer_is_named(good: Any, tmp_path: Path) -> None:
    wrong = "def mean(values):\n    return sum(values)"
    notebook = with_solution(good, exercises(good)[0], wrong)
    execute(notebook, tmp_path)
    told = printed(notebook.cells[-1])
    assert told == "Not yet: did you forget to divide by the number of values?\n"


def test_only_the_cells_that_are_needed_are_kept(good: Any) -> None:
    exercise = exercises(good)[0]
    assert (exercise.stub, exercise.checker) == (6, 7)
    assert len(with_solution(good, exercise).cells) == 2
    good.cells[exercise.checker].source = "print(mean(sums))"
    kept = [cell.source for cell in with_solution(good, exercise).cells]
    wanted = [good.cells[i].source for i in (1, 2, 4)]
    assert kept == [*wanted, exercise.solution, "print(mean(sums))"]


def test_notebook_without_exercises(good: Any) -> None:
    good.cells[6].metadata = {}
    assert exercises(good) == []


def test_two_exercises_have_their_own_folds(good: Any) -> None:
    second = copy.deepcopy(good.cells[5:9])
    second[3].source = second[3].source.replace("/ len(values)", "/ 2")
    good.cells[9:9] = second
    first, other = exercises(good)
    assert "len(values)" in first.solution
    assert "/ 2" in other.solution


def test_missing_fold_and_missing_checker(good: Any) -> None:
    del good.cells[9:], good.cells[7]
    with pytest.raises(DataError, match="cell 7: the exercise has no code cell after it"):
        exercises(good)
    del good.cells[7:]
    good.cells.append(nbformat.v4.new_code_cell("1"))
    with pytest.raises(DataError, match="cell 7: the exercise has no fold"):
        exercises(good)
