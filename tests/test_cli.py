import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

from cookbook import cli, execute
from cookbook.errors import ConfigError
from cookbook.parameters import Parameter, find_notebook, parse_assignments, read_parameters

PARAMETERS = """\
learning_rate: float = 3e-4  # Adam step size
num_epochs: int = 1
dataset: str = "pocket_tutor"
max_steps: int | None = None
shuffle: bool = True
log_path: str | None = None  # fresh folder
seed = 0
"""
RUN = """\
import json, pathlib
log = pathlib.Path(log_path)
log.mkdir()
lines = [{"step": step, "progress": step / 2, "train_mean_nll": 2.0 - step} for step in (0, 1)]
(log / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
folder = pathlib.Path("results", f"named_{learning_rate}").resolve()
folder.mkdir(parents=True)
(log / "results_path.txt").write_text(f"{folder}\\n")
"""
SLOW = "import time\ntime.sleep(1)"
FAIL = "assert learning_rate < 1e-5, 'the claim does not hold'"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a ``notebooks/`` of its own."""
    monkeypatch.setenv("COOKBOOK_LOG_ROOT", str(tmp_path / "logs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def write_notebook(folder: Path, name: str, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in cells]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["language_info"] = {"name": "python"}
    path = folder / "notebooks" / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def test_run_keeps_the_executed_notebook_with_the_results(folder, monkeypatch, capfd):
    monkeypatch.setattr(execute, "POLL_S", 0.1)
    write_notebook(folder, "mini", PARAMETERS, RUN, SLOW)
    assert cli.main(["run", "mini", "learning_rate=1e-5"]) == 0
    captured = capfd.readouterr()
    results = folder / "results" / "named_1e-05"
    assert captured.out.splitlines()[-1] == str(results)
    assert "step 1, 50%: train_mean_nll 1" in captured.err
    executed = nbformat.read(results / "mini.ipynb", as_version=4)
    assert any("learning_rate = 1e-05" in cell.source for cell in executed.cells)
    assert "WARNING" not in captured.err
    assert [path.name for path in (folder / "logs").iterdir() if path.suffix == ".ipynb"] == []


def test_a_failing_cell_ends_in_its_message_and_keeps_the_notebook(folder, capsys):
    write_notebook(folder, "mini", PARAMETERS, RUN, FAIL)
    log_path = folder / "mine"
    assert cli.main(["run", "mini", f"log_path={log_path}"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "AssertionError: the claim does not hold"
    executed = folder / "results" / "named_0.0003" / "mini.ipynb"
    assert str(executed) in lines[-2]
    assert "the claim does not hold" in executed.read_text()


def test_a_notebook_that_saves_no_results_is_kept_beside_its_log(folder):
    write_notebook(folder, "plain", "answer = 42", "print(answer)")
    executed = execute.run_notebook("plain", ["answer=43"])
    assert executed.parent == folder / "logs"
    assert "43\n" in executed.read_text().replace("\\n", "\n")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("learnign_rate=1", "'learnign_rate' (did you mean 'learning_rate'?). Valid parameters: "),
        ("learning_rate=fast", "Bad value: learning_rate=fast: expected float."),
        ("num_epochs=1.5", "num_epochs=1.5: expected int"),
        ("shuffle=perhaps", "shuffle=perhaps: expected bool"),
        ("learning_rate", "given as key=value, got 'learning_rate'"),
    ],
)
def test_a_bad_parameter_stops_before_anything_runs(
    folder, assignment, message, capsys, monkeypatch
):
    write_notebook(folder, "mini", PARAMETERS, RUN)
    ran = []
    monkeypatch.setattr(
        execute.papermill, "execute_notebook", lambda *arguments, **more: ran.append(arguments)
    )
    assert cli.main(["run", "mini", assignment]) == 1
    assert message in capsys.readouterr().err
    assert ran == []


def test_wandb_project_works_for_a_notebook_without_that_parameter(folder, monkeypatch):
    write_notebook(folder, "plain", "answer = 42", "import os\nprint(os.environ.get('HERE'))")
    monkeypatch.setenv("COOKBOOK_WANDB_PROJECT", "before")
    seen = []

    def execute_notebook(notebook, executed, parameters, **more):
        seen.append((parameters, os.environ["COOKBOOK_WANDB_PROJECT"]))

    monkeypatch.setattr(execute.papermill, "execute_notebook", execute_notebook)
    execute.run_notebook("plain", ["wandb_project=mine", "answer=43"])
    assert seen == [({"answer": 43}, "mine")]
    assert os.environ["COOKBOOK_WANDB_PROJECT"] == "before"


@pytest.mark.parametrize(
    ("choice", "has_parameter", "ran", "left"),
    [
        ("resume", False, True, True),
        ("overwrite", False, True, False),
        ("raise", False, False, True),
        ("raise", True, True, True),  # the notebook refuses by itself
    ],
)
def test_if_exists_holds_for_every_notebook(
    folder, choice, has_parameter, ran, left, monkeypatch, capsys
):
    own = '\nif_exists: str = "resume"' if has_parameter else ""
    write_notebook(folder, "mini", PARAMETERS + own, RUN)
    there = folder / "there"
    there.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        (there / name).write_text("{}")
    seen = []
    monkeypatch.setattr(execute.papermill, "execute_notebook", lambda *a, **_: seen.append(a[2]))
    command = ["run", "mini", f"log_path={there}", "--if-exists", choice]
    assert cli.main(command) == (0 if ran else 1)
    assert (there / "config.json").exists() == left
    assert len(seen) == ran
    assert [given.get("if_exists") for given in seen] == (
        [choice] if has_parameter else [None] * ran
    )
    if not ran:
        assert "--if-exists overwrite" in capsys.readouterr().err


def test_values_take_the_type_of_their_default(folder):
    known = read_parameters(write_notebook(folder, "mini", PARAMETERS))
    assert known["max_steps"] == Parameter("int", may_be_none=True)
    assert list(known) == [line.split(":")[0].split(" ")[0] for line in PARAMETERS.splitlines()]
    assert parse_assignments(["max_steps=None"], known) == {"max_steps": None}
    values = parse_assignments(
        ["learning_rate=1", "max_steps=7", "dataset=5=6", "shuffle=False", "seed=3", "log_path=a"],
        known,
    )
    assert json.dumps(values) == json.dumps(
        {
            "learning_rate": 1.0,
            "max_steps": 7,
            "dataset": "5=6",
            "shuffle": False,
            "seed": 3,
            "log_path": "a",
        }
    )


def test_an_unknown_notebook_names_the_nearest_and_all(folder):
    write_notebook(folder, "my_basic", PARAMETERS)
    assert find_notebook("my_basic") == Path("notebooks/my_basic.ipynb")
    assert find_notebook("notebooks/my_basic.ipynb") == Path("notebooks/my_basic.ipynb")
    with pytest.raises(ConfigError, match=r"no notebook 'my_basik'.*mean 'my_basic'.*Known: .*my_"):
        find_notebook("my_basik")


def test_an_interrupt_says_how_to_go_on(folder, capsys, monkeypatch):
    write_notebook(folder, "mini", PARAMETERS, RUN)

    def interrupt(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(execute.papermill, "execute_notebook", interrupt)
    assert cli.main(["run", "mini", "log_path=here"]) == 130
    assert "the same command with log_path=here" in capsys.readouterr().err


def test_analyze_prints_the_folder_it_wrote(tmp_path, capsys):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "metrics.jsonl").write_text('{"step": 0, "train_mean_nll": 2.0}\n')
    assert cli.main(["analyze", str(tmp_path / "log"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert (tmp_path / "out" / "training_report.txt").is_file()


def test_serve_passes_its_options_to_the_engine():
    command = [sys.executable, "-m", "cookbook", "serve", "--no-such-option"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "python -m cookbook.engine: error: unrecognized" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_serve_runs_until_it_is_interrupted(tmp_path, model_dir):
    command = [sys.executable, "-m", "cookbook", "serve", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        ready = json.loads(process.stdout.readline())
        health = f"{ready['base_url']}/api/v1/healthz"
        with urllib.request.urlopen(health, timeout=10) as reply:
            assert json.load(reply) == {"status": "ok"}
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(15) == 0
        assert process.stdout.read() == b""
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(health, timeout=10)


@pytest.mark.parametrize("arguments", [[], ["run"], ["analyze", "a", "b", "--c"], ["fly"]])
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: cookbook" in capsys.readouterr().err
