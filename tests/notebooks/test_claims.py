"""Without training a notebook's claims fail; with a bad parameter it does not start."""

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from cookbook.models import DEFAULT_MODEL
from cookbook.notebooks.publish import execute
from cookbook.notebooks.stamp import code_cells, tagged, tags
from tests.engine.processes import EngineProcess, start_engine

ROOT = Path(__file__).parents[2]
GOOD = Path(__file__).parent / "bad" / "good.ipynb"
# The tiny notebook shows that these tests themselves can see what they look for.
PATHS = [GOOD, *sorted((ROOT / "notebooks").glob("*.ipynb"))]
TRAINS = re.compile(r"forward_backward|optim_step|\btrain\(")
RUN_TIMEOUT_S = 1200


def parameters(path: Path) -> list[str]:
    """Return the names that the notebook's parameters cell defines."""
    cell = tagged(nbformat.read(path, as_version=4), "parameters")[0]
    return [ast.unparse(line.target) for line in ast.parse(cell.source).body]  # pyright: ignore


@dataclass
class Failure:
    """How a run ended: the cell that failed, its error output, and the cells run before it."""

    cell: Any
    error: Any
    before: list[Any]


def failed_run(path: Path, folder: Path, **changed: Any) -> Failure:
    """Run a notebook by papermill with ``folder`` as working folder; it must fail."""
    out = folder / "out.ipynb"
    with pytest.raises(PapermillExecutionError):
        papermill.execute_notebook(
            path, out, parameters=changed, cwd=folder, progress_bar=False, log_output=False
        )
    cells: Any = [c for c in nbformat.read(out, as_version=4).cells if c.cell_type == "code"]
    for index, cell in enumerate(cells):
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors and "raises-exception" not in tags(cell):
            return Failure(cell, errors[0], cells[:index])
    raise AssertionError("papermill failed, but no cell did")


def having(*names: str) -> list[Any]:
    """Return the notebooks with all these parameters, for ``parametrize``."""
    return [pytest.param(p, id=p.stem) for p in PATHS if {*names} <= {*parameters(p)}]


@pytest.fixture(scope="module")
def bundled(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine on the bundled model: what it can do untrained must not satisfy a claim."""
    folder = tmp_path_factory.mktemp("bundled")
    started = start_engine(Path(DEFAULT_MODEL), folder, "--embedded", "--dtype", "auto")
    yield started
    started.end()


# What the claims cell says is missing; every notebook that trains has its line here.
MISSING = {
    "chat_sl": "held-out NLL did not fall",
    "custom_environment": "the held-out intervals before and after overlap",
    "distillation": "hard: the intervals before and after overlap",
    "dpo": "the held-out ranking accuracy did not rise",
    "good": "the sum did not rise",
    "guessing_games": "no turns were saved",
    "math_rl": "the held-out intervals before and after overlap",
    "multiplayer_rl": "self-play did not lower the losses against the random player",
    "prompt_distillation": "the held-out intervals before and after overlap",
    "rl_basic": "the held-out intervals before and after overlap",
    "rl_loop": "the mean reward of the last three steps is below",
    "rlhf": "the judge does not prefer the trained policy's answers",
    "shorter": "held-out answers did not become shorter",
    "sl_basic": "held-out NLL did not fall",
    "sl_loop": "the held-out NLL did not fall",
    "start_here": "fewer than six of eight held-out answers took the taught form",
    "tool_use": "reinforcement learning did not improve on the warm-up",
}
# Without a step size nothing changes, in any number of steps: few show it as well as many.
FEW = {"max_steps": 1, "batch_size": 1, "n_test": 4, "prompts_per_step": 2, "group_size": 2}
FEW |= {"max_tokens": 4, "hack_steps": 1, "tries": 1, "warmup_steps": 1}
FEW |= {"sft_steps": 1, "judge_steps": 1}
FEW |= {"token_budget": 1, "teacher_steps": 1, "n_texts": 10, "samples_per_text": 1}


@pytest.mark.slow
@pytest.mark.timeout(RUN_TIMEOUT_S)
@pytest.mark.parametrize("path", having("learning_rate"))
def test_claims_fail_without_training(
    path: Path, bundled: EngineProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKER_BASE_URL", bundled.base_url)
    monkeypatch.setenv("TINKER_API_KEY", bundled.api_key)
    few = {name: value for name, value in FEW.items() if name in parameters(path)}
    # The same answers before and after, however short: most of the time would go into them.
    short = tmp_path / path.name
    short.write_text(re.sub(r"max_tokens=\d+", "max_tokens=4", path.read_text(encoding="utf-8")))
    failure = failed_run(short, tmp_path, learning_rate=0, **few)
    assert "claims" in tags(failure.cell), f"{failure.error.evalue} in:\n{failure.cell.source}"
    assert failure.error.ename == "AssertionError"
    assert MISSING[path.stem] in failure.error.evalue


BAD_VALUES = [("learning_rate", -1), ("learning_rate", "fast"), ("lora_rank", 0)]


def test_papermill_fails_on_a_misspelt_parameter_before_training(tmp_path: Path) -> None:
    path = ROOT / "notebooks" / "sl_loop.ipynb"
    failure = failed_run(path, tmp_path, learning_rat=1)
    for name in ("learning_rat", *parameters(path)):
        assert name in failure.error.evalue
    assert not any(TRAINS.search(cell.source) for cell in failure.before)


@pytest.mark.parametrize("path", having())
def test_bad_parameters_stop_before_training(path: Path, tmp_path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    setup, defaults, config = code_cells(notebook)[:3]
    valid = parameters(path)
    bad = [(name, value) for name, value in BAD_VALUES if name in valid]
    misspelt = f"{valid[0]}x"
    # One kernel for all: each value is set like papermill sets it, and is followed by the check.
    cells = [setup]
    for name, value in [(misspelt, 1), *bad]:
        injected = nbformat.v4.new_code_cell(f"{name} = {value!r}")
        checked = nbformat.v4.new_code_cell(config.source, metadata={"tags": ["raises-exception"]})
        cells += [defaults, injected, checked]
        if name == misspelt:
            cells.append(nbformat.v4.new_code_cell(f"del {name}"))
    notebook.cells = copy.deepcopy(cells)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"c{number}"
    execute(notebook, tmp_path)
    errors = [out for cell in notebook.cells for out in cell.outputs if out.output_type == "error"]
    assert len(errors) == 1 + len(bad)
    assert all(name in errors[0].evalue for name in (misspelt, *valid))
    for (name, value), error in zip(bad, errors[1:], strict=True):
        assert name in error.evalue
        assert str(value) in error.evalue
    assert not any(TRAINS.search(cell.source) for cell in cells)
