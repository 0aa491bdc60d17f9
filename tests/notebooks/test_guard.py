"""A misspelt parameter stops a run; the cell that checks may be run again later."""

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from cookbook.errors import ConfigError
from cookbook.notebooks import guard, mark, status

VALID = ["model_name", "learning_rate", "seed"]

# What a notebook that imports nothing for it writes in its setup cell and in its config cell.
PLAIN_SETUP = """import difflib
before = set(globals())
"""
PLAIN_GUARD = """\
# Papermill would run the defaults after a misspelt name, so look for names that came from outside.
valid = ["model_name", "learning_rate", "seed"]
unknown = sorted(n for n in {*globals()} - {*before, *valid, "before", "valid"} if n[0] != "_")
if before and unknown:
    nearest = difflib.get_close_matches(unknown[0], valid, n=1)
    raise ValueError(f"unknown parameter {unknown[0]!r}, did you mean {nearest}? Valid: {valid}")
before = set()  # looked at once: this cell stays legal when later cells have defined names
"""
PLAIN_RANGES = """\
lowest = {"learning_rate": 0.0, "seed": 0}
for name, low in lowest.items():
    if type(globals()[name]) not in (int, type(low)) or not globals()[name] >= low:
        raise ValueError(f"{name} is {globals()[name]!r}, allowed: {type(low).__name__} >= {low}")
"""


@pytest.fixture
def names() -> dict[str, Any]:
    """A notebook's names after its setup cell."""
    return {"json": sys, "CONSTANT": 3, "__name__": "__main__", "_i": ""}


DEFAULTS = {"model_name": "tiny", "learning_rate": 1e-4, "seed": 0}


def test_values_come_back_in_order(names: dict[str, Any]) -> None:
    start = mark(names)
    names |= DEFAULTS | {"learning_rate": 1}
    assert list(start.parameters(VALID).items()) == [
        ("model_name", "tiny"),
        ("learning_rate", 1),
        ("seed", 0),
    ]


def test_misspelt_name_is_told_with_the_nearest_and_all_valid(names: dict[str, Any]) -> None:
    start = mark(names)
    names |= DEFAULTS | {"learnign_rate": 1e-5}
    with pytest.raises(ConfigError) as caught:
        start.parameters(VALID)
    assert str(caught.value) == (
        "Unknown parameter 'learnign_rate' (did you mean 'learning_rate'?). "
        "Valid parameters: model_name, learning_rate, seed. "
        "Correct the name and run again from the setup cell on."
    )


def test_name_like_no_other_and_several_at_once(names: dict[str, Any]) -> None:
    start = mark(names)
    names |= DEFAULTS | {"zzz": 1, "sed": 2}
    with pytest.raises(ConfigError, match=r"'zzz', 'sed' \(did you mean 'seed'\?\)"):
        start.parameters(VALID)


def test_still_refused_when_called_again_after_a_refusal(names: dict[str, Any]) -> None:
    start = mark(names)
    names |= DEFAULTS | {"sed": 2}
    for _ in range(2):
        with pytest.raises(ConfigError, match="sed"):
            start.parameters(VALID)


def test_cell_may_be_run_again_after_others_defined_names(names: dict[str, Any]) -> None:
    start = mark(names)
    names |= DEFAULTS | {"start": start}
    start.parameters(VALID)
    names |= {"rewards": [1.0], "learning_rate": 1e-3}
    assert start.parameters(VALID)["learning_rate"] == 1e-3
    again = mark(names)  # the setup cell is run again
    names["start"] = again
    assert again.parameters(VALID)["learning_rate"] == 1e-3


def test_imports_and_functions_are_no_parameters(names: dict[str, Any]) -> None:
    start = mark(names)
    names |= DEFAULTS | {"start": start, "Path": Path, "helper": len, "client": object()}
    assert set(start.parameters(VALID)) == set(VALID)


def test_valid_name_that_is_not_defined(names: dict[str, Any]) -> None:
    start = mark(names)
    names["learning_rate"] = 1e-4
    with pytest.raises(ConfigError, match="Parameter not defined: model_name, seed"):
        start.parameters(VALID)


def run_plain(names: dict[str, Any], injected: str = "") -> dict[str, Any]:
    """Run the plain pattern's cells one after the other, as a kernel does."""
    parameters = "\n".join(f"{name} = {value!r}" for name, value in DEFAULTS.items())
    for cell in (PLAIN_SETUP, parameters, injected, PLAIN_GUARD, PLAIN_RANGES):
        exec(cell, names)
    return names


def test_plain_pattern_passes_and_may_be_run_again() -> None:
    names = run_plain({}, "learning_rate = 0")
    names |= {"rewards": [1.0], "step": 3}
    exec(PLAIN_GUARD + PLAIN_RANGES, names)
    run_plain(names)
    assert names["learning_rate"] == DEFAULTS["learning_rate"]


def test_plain_pattern_refuses_a_misspelt_name_each_time() -> None:
    names: dict[str, Any] = {}
    text = r"unknown parameter 'learnign_rate', did you mean \['learning_rate'\]\? Valid: \['model"
    with pytest.raises(ValueError, match=text):
        run_plain(names, "learnign_rate = 1e-5")
    with pytest.raises(ValueError, match="'learnign_rate'"):
        exec(PLAIN_GUARD, names)


@pytest.mark.parametrize(
    ("injected", "told"),
    [
        ("learning_rate = -1", "learning_rate is -1, allowed: float >= 0.0"),
        ("learning_rate = 'fast'", "learning_rate is 'fast', allowed: float >= 0.0"),
        ("learning_rate = float('nan')", "learning_rate is nan"),
        ("seed = 0.5", "seed is 0.5, allowed: int >= 0"),
        ("seed = True", "seed is True"),
    ],
)
def test_plain_pattern_refuses_bad_values(injected: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run_plain({}, injected)


@pytest.mark.parametrize("module", [guard, status])
def test_examples_in_the_docstrings(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0


def test_plain_pattern_is_short() -> None:
    assert len(PLAIN_GUARD.splitlines()) <= 8


def test_papermill_ends_non_zero(tmp_path: Path) -> None:
    parameters = "\n".join(f"{name} = {value!r}" for name, value in DEFAULTS.items())
    sources = [PLAIN_SETUP, parameters, PLAIN_GUARD, "open('ran', 'w')"]
    notebook: Any = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in sources],
        metadata={"kernelspec": {"name": "python3", "display_name": "", "language": "python"}},
    )
    notebook.cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, tmp_path / "tiny.ipynb")
    command = [sys.executable, "-m", "papermill", "-p", "learnign_rate", "1e-5"]
    done = subprocess.run(
        [*command, "tiny.ipynb", "out.ipynb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "learnign_rate" in done.stderr
    assert "model_name" in done.stderr
    assert not (tmp_path / "ran").exists()
