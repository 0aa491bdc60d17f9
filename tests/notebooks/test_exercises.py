"""Each exercise's hidden solution satisfies its checker, and its stub says "not attempted yet"."""

import ast
import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from cookbook.errors import DataError
from cookbook.notebooks.exercises import CORRECT, NOT_ATTEMPTED, Exercise, exercises, with_solution
from cookbook.notebooks.publish import execute

ROOT = Path(__file__).parents[2]
WRONG = Path(__file__).parent / "wrong"
GOOD = Path(__file__).parent / "bad" / "good.ipynb"
PATHS = [GOOD, *sorted((ROOT / "notebooks").glob("*.ipynb"))]
HAVE = {path: exercises(nbformat.read(path, 4)) for path in PATHS}
ALL = [(path, exercise) for path in PATHS for exercise in HAVE[path]]


def printed(cell: Any) -> str:
    """Return what an executed cell printed."""
    return "".join(output.get("text", "") for output in cell.outputs)


@dataclass(frozen=True)
class Attempt:
    """What stands in a stub's place, and what its checker has to say then."""

    source: str
    told: str


def wrong_answers(path: Path, notebook: Any, exercise: Exercise) -> list[Attempt]:
    """Return the answers of `wrong/<notebook>.txt` that define what the exercise's stub defines.

    There each stands below a line `# %% part of the message that names its mistake`.
    """
    file = WRONG / f"{path.stem}.txt"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    parts = [part.partition("\n") for part in re.split(r"^# %% ", text, flags=re.MULTILINE)[1:]]
    wanted = top_level(notebook.cells[exercise.stub].source)
    return [Attempt(source, told) for told, _, source in parts if top_level(source) & wanted]


def top_level(source: str) -> set[str]:
    defining = (ast.FunctionDef, ast.ClassDef)
    return {node.name for node in ast.parse(source).body if isinstance(node, defining)}


def messages(checker: str) -> list[str]:
    """Return a pattern for each message of a checker that names a mistake.

    These are the texts that start with "Not yet", and those in a dictionary of mistakes.
    """
    tree = ast.parse(checker)
    nodes = list(ast.walk(tree))
    within = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = [n for n in nodes if isinstance(n, ast.JoinedStr | ast.Constant) and n not in within]
    found = [p for node in texts if (p := pattern(node)).startswith("Not\\ yet")]
    for table in (node for node in nodes if isinstance(node, ast.Dict)):
        spoken = [value for value in table.values if " " in str(getattr(value, "value", ""))]
        if not any(isinstance(key, ast.Constant) and key.value == "role" for key in table.keys):
            found += [pattern(value) for value in spoken]
    ends = ("Correct", re.escape(NOT_ATTEMPTED))
    return [text for text in dict.fromkeys(found) if not text.startswith(ends)]


def pattern(node: ast.expr) -> str:
    """Return a text with what is filled in as anything; nothing for other constants."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        return "".join("(?s:.*)" if part is None else re.escape(str(part)) for part in parts)
    return re.escape(str(node.value)) if isinstance(node, ast.Constant) else ""


@pytest.mark.parametrize("path", [path for path in PATHS if HAVE[path]], ids=lambda path: path.stem)
def test_stubs_solutions_and_every_recognised_mistake_are_told_apart(
    path: Path, tmp_path: Path
) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    # One kernel goes on from each stub over wrong answers to the solution, as a reader does.
    together: Any = nbformat.v4.new_notebook(metadata=notebook.metadata)
    tried: list[tuple[Exercise, Attempt, Any]] = []
    for exercise in HAVE[path]:
        stub = Attempt(notebook.cells[exercise.stub].source, NOT_ATTEMPTED)
        wrong = wrong_answers(path, notebook, exercise)
        known = set[str]()
        for attempt in (stub, *wrong, Attempt(exercise.solution, "Correct")):
            cells = with_solution(notebook, exercise, attempt.source).cells
            together.cells += [cell for cell in cells[:-2] if cell.source not in known]
            together.cells += cells[-2:]
            known |= {cell.source for cell in cells}
            tried.append((exercise, attempt, cells[-1]))
    for number, cell in enumerate(together.cells):
        cell.id = f"c{number}"
    execute(together, tmp_path)
    for exercise, attempt, cell in tried:
        told = printed(cell)
        assert attempt.told in told, f"{attempt.source}\n: expected {attempt.told!r}, got {told!r}"
        assert bool(CORRECT.search(told)) == (attempt.source == exercise.solution), told
    for exercise in HAVE[path]:
        said = [printed(cell) for one, _, cell in tried if one is exercise]
        patterns = messages(notebook.cells[exercise.checker].source)
        missing = [p for p in patterns if not any(re.search(p, text) for text in said)]
        assert not missing, (
            f"cell {exercise.checker + 1} of {path.name} recognises mistakes that no answer in "
            f"tests/notebooks/wrong/{path.stem}.txt makes; add one for each: {missing}"
        )


@pytest.mark.parametrize(("path", "exercise"), ALL, ids=[f"{p.stem}-{e.stub}" for p, e in ALL])
def test_fold_is_the_only_copy_of_the_solution(path: Path, exercise: Exercise) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    assert sum(exercise.solution in cell.source for cell in notebook.cells) == 1


def test_messages_of_a_checker_are_found_wherever_they_stand() -> None:
    checker = """
tried = {"role": "user", "content": "not a message"}
mistakes = {1.0: "that is the sum", 2.0: "halve it"}
print("Correct" if answer else f"Not yet: {answer} is {'big' if answer > 1 else 'small'}")
print({NotImplemented: "not attempted yet"}.get(answer, f"Not yet: {mistakes[answer]}"))
"""
    found = messages(checker)
    assert sum(text.startswith("Not\\ yet") for text in found) == 2
    assert {re.escape("that is the sum"), re.escape("halve it")} < set(found)
    assert len(found) == 4
    assert re.search(found[0], "Not yet: 3 is big")


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
