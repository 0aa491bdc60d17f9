"""A grid of runs, each a real papermill run of a notebook that trains nothing: killed, resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from cookbook import cli
from cookbook.runlog import read_metrics
from cookbook.sweep import Sweep, state

PARAMETERS = """\
learning_rate: float = 1e-3  # Adam step size
lora_rank: int = 8  # rank
log_path: str = ""  # folder of the run
"""
# Each step leaves a line in steps.txt; the third step of one run waits until it is let go.
TRAIN = """\
import pathlib, time
from cookbook.runlog import RunLog

home = pathlib.Path(log_path).parent.parent
name = f"{learning_rate:g} {lora_rank}"
with RunLog.open(log_path, {"learning_rate": learning_rate, "lora_rank": lora_rank}, "fake") as log:
    done = (log.last_checkpoint() or {"step": 0})["step"]
    log.rewind(done)
    for step in range(done, 4):
        while step == 2 and name == "0.0001 32" and not (home / "go").exists():
            (home / "waits").touch()
            time.sleep(0.05)
        with (home / "steps.txt").open("a") as file:
            file.write(f"{name} {step}\\n")
        log.log(step, {"test/nll": 3 - 100 * learning_rate * step - lora_rank / 1e3})
        log.save_checkpoint(f"{step + 1:06d}", step + 1, state_path=f"tinker://r/weights/{step}")
"""
RESULTS = """\
folder = pathlib.Path("results", "made").resolve()
folder.mkdir(parents=True)
(folder / "training_report.txt").touch()
pathlib.Path(log_path, "results_path.txt").write_text(f"{folder}\\n")
"""
GRID = ["-p", "learning_rate=1e-3,1e-4", "-p", "lora_rank=8,32"]
TIMEOUT_S = 180


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a notebook called mini."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    write_notebook(tmp_path, PARAMETERS, TRAIN, RESULTS)
    return tmp_path


def write_notebook(folder: Path, *cells: str, claims: str = "") -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    if claims:
        notebook.cells.append(nbformat.v4.new_code_cell(claims, metadata={"tags": ["claims"]}))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["language_info"] = {"name": "python"}
    (folder / "notebooks").mkdir(exist_ok=True)
    nbformat.write(notebook, folder / "notebooks" / "mini.ipynb")


def steps(folder: Path) -> list[str]:
    return (folder / "steps.txt").read_text().splitlines()


def wait_for(path: Path) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_sweep_started_again_does_only_what_is_missing(folder, capfd):
    command = [sys.executable, "-m", "cookbook", "sweep", "mini", *GRID, "--out", "out"]
    with subprocess.Popen(command, start_new_session=True) as sweep:
        wait_for(folder / "waits")
        family = psutil.Process(sweep.pid).children(recursive=True)
        os.kill(sweep.pid, signal.SIGKILL)
    assert psutil.wait_procs(family, timeout=TIMEOUT_S)[1] == []  # its kernels end with it
    runs = Sweep.open(folder / "out", "mini").runs
    assert [run.status for run in runs] == ["done", "done", "done", "running"]
    before = steps(folder)
    assert before[-2:] == ["0.0001 32 0", "0.0001 32 1"]
    assert len(before) == 3 * 4 + 2

    (folder / "go").touch()
    assert cli.main(command[3:]) == 0
    assert steps(folder)[len(before) :] == ["0.0001 32 2", "0.0001 32 3"]
    sweep = Sweep.open(folder / "out", "mini")
    assert [run.status for run in sweep.runs] == ["done"] * 4
    for run in sweep.runs:
        assert [line["step"] for line in read_metrics(sweep.path(run))] == [0, 1, 2, 3]
        executed = (sweep.path(run) / "mini.ipynb").read_text()
        assert f"learning_rate = {run.parameters['learning_rate']}" in executed
        assert (sweep.path(run) / "results" / "training_report.txt").exists()
    told = capfd.readouterr()
    assert "4 runs of mini.ipynb" in told.err
    assert "3 done before" in told.err
    assert (folder / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")

    # Nothing is left to do; another grid adds to it.
    assert cli.main(command[3:]) == 0
    assert len(steps(folder)) == 16
    more = ["sweep", "mini", "-p", "learning_rate=1e-3,1e-2", "-p", "lora_rank=8", "--out", "out"]
    assert cli.main(more) == 0
    assert [step.rsplit(" ", 1)[0] for step in steps(folder)[16:]] == ["0.01 8"] * 4
    assert len(Sweep.open(folder / "out", "mini").runs) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupted_sweep_leaves_no_process_and_says_how_to_go_on(folder):
    one = ["-p", "learning_rate=1e-4", "-p", "lora_rank=32,64", "--out", "out"]
    command = [sys.executable, "-m", "cookbook", "sweep", "mini", *one]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as sweep:
        wait_for(folder / "waits")
        family = psutil.Process(sweep.pid).children(recursive=True)
        sweep.send_signal(signal.SIGINT)
        told = sweep.communicate(timeout=TIMEOUT_S)[1]
    assert sweep.returncode == 130
    assert "The same command goes on" in told
    assert psutil.wait_procs(family, timeout=TIMEOUT_S)[1] == []
    assert [run.status for run in Sweep.open(folder / "out", "mini").runs] == [
        "interrupted",
        "waiting",
    ]


def test_failures_are_reported_and_not_fatal(folder, capsys):
    failing = "if lora_rank == 2:\n    raise ValueError('first line\\nrank 2 is cursed')"
    write_notebook(folder, PARAMETERS, failing, TRAIN, claims="assert lora_rank != 4, 'no gain'")
    rank = ["sweep", "mini", "-p", "lora_rank=2,4,8", "--jobs", "3"]
    assert cli.main(rank) == 1
    runs = Sweep.open(folder / "results" / "sweep_mini", "mini").runs
    assert [(run.status, run.error) for run in runs] == [
        ("failed", "rank 2 is cursed"),
        ("claim failed", "AssertionError: no gain"),
        ("done", ""),
    ]
    table = capsys.readouterr().out
    assert "rank 2 is cursed" in table
    assert "comparison.png" in table
    executed = folder / "results" / "sweep_mini" / "lora_rank_2" / "mini.ipynb"
    assert "rank 2 is cursed" in executed.read_text()
    # A failed run is tried again, in a folder that holds no run yet; the others are not.
    write_notebook(folder, PARAMETERS, TRAIN)
    assert cli.main(rank) == 0
    assert sorted(steps(folder / "results")) == sorted(
        f"0.001 {rank} {step}" for rank in (2, 4, 8) for step in range(4)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "lora_rnak=8"], "'lora_rnak' (did you mean 'lora_rank'?). Valid parameters: "),
        (["-p", "lora_rank=8,big"], "lora_rank=big: expected int"),
        (["-p", "lora_rank"], "given as key=value, got 'lora_rank'"),
        (["-p", "log_path=x"], "log_path is set by the sweep for each run"),
        ([], "Give a parameter to vary: -p name=value,value. Valid: learning_rate, lora_rank, wa"),
        (["-p", "wandb_project=a,b"], "one project for all runs"),
        (["-p", "lora_rank=8", "--jobs", "0"], "--jobs: expected 1 or more"),
        (["-p", "lora_rank=8", "--out", "notebooks"], "holds other files and no sweep"),
        (["-p", "lora_rank=8", "--out", "other"], "holds a sweep of other, not of mini"),
    ],
)
def test_what_cannot_work_stops_before_anything_runs(folder, arguments, message, capsys):
    (folder / "other").mkdir()
    Sweep(folder / "other", "other").save()
    before = sorted(folder.rglob("*"))
    assert cli.main(["sweep", "mini", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_two_sweeps_do_not_share_a_folder(folder, capsys):
    out = folder / "out"
    out.mkdir()
    from cookbook.sweep import runner

    with runner._lock(out):
        assert cli.main(["sweep", "mini", "-p", "lora_rank=8", "--out", str(out)]) == 1
    assert "Another sweep is at work" in capsys.readouterr().err


def test_the_state_knows_its_runs_again_and_names_them_apart(tmp_path):
    sweep = Sweep.open(tmp_path, "mini")
    names = [run.name for run in sweep.add([{"path": "a/b"}, {"path": "a b"}, {"path": "a/b"}])]
    assert names == ["path_a_b", "path_a_b-2", "path_a_b"]
    sweep.runs[0].status = state.DONE
    sweep.save()
    again = Sweep.open(tmp_path, "mini")
    assert again.runs == sweep.runs
    assert again.is_missing(again.runs[0])  # its folder is gone
    (tmp_path / "path_a_b").mkdir()
    assert [again.is_missing(run) for run in again.runs] == [False, True]
    assert json.loads((tmp_path / "sweep.json").read_text())["notebook"] == "mini"
