"""The analysis notebook reports what the log holds and refuses a run that did not improve."""

import math
from pathlib import Path

import nbformat
import papermill
import pytest
from papermill.exceptions import PapermillExecutionError

from cookbook.analysis import reference_runs
from cookbook.notebooks.stamp import claims, tagged
from cookbook.runlog import RunLog, read_config, read_metrics

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "analyze_results.ipynb"


def execute(folder: Path, **parameters: str):
    out = folder / "out.ipynb"
    papermill.execute_notebook(
        NOTEBOOK, out, parameters=parameters, cwd=folder, progress_bar=False, log_output=False
    )
    return nbformat.read(out, as_version=4)


def untrained_copy(log: Path, folder: Path) -> Path:
    """Write the log that `log` would be had its learning rate been 0: the first loss, for ever."""
    lines = read_metrics(log)
    with RunLog.open(folder, {**read_config(log), "learning_rate": 0}, "untrained") as copy:
        for line in lines:
            step = line.pop("step")
            frozen = {"test/nll", "test/bpb", "learning_rate"} & line.keys()
            first = {name: 0.0 if name == "learning_rate" else lines[0][name] for name in frozen}
            copy.log(step, {**line, **first})
    return folder


def test_the_reference_run_passes_from_any_folder(tmp_path):
    told = claims(execute(tmp_path, output_dir=str(tmp_path / "out")))
    values = [r["test/nll"] for r in read_metrics(reference_runs()["sl_basic"]) if "test/nll" in r]
    assert told is not None
    assert math.isclose(told["first"], values[0])
    assert math.isclose(told["last"], values[-1])
    assert (tmp_path / "out" / "training_report.txt").exists()


def test_claims_fail_on_a_run_without_training(tmp_path):
    log = untrained_copy(reference_runs()["sl_basic"], tmp_path / "log")
    with pytest.raises(PapermillExecutionError, match="hardly moves"):
        execute(tmp_path, log_path=str(log))
    failed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    (cell,) = tagged(failed, "claims")
    assert any(output.output_type == "error" for output in cell.outputs)
