"""Publishing executes, cleans, stamps and replaces a notebook, or leaves it as it was."""

import copy
import datetime
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from cookbook.notebooks import normalise, stamp
from cookbook.notebooks.__main__ import main
from cookbook.notebooks.faults import faults
from cookbook.notebooks.publish import peak_memory
from cookbook.notebooks.status import fill_status, is_filled

GOOD = Path(__file__).parent / "bad" / "good.ipynb"
LEAKS = """print(config, flush=True)
import os, pathlib, sys, tempfile
print("server", os.environ.get("TINKER_BASE_URL"))
print(pathlib.Path.home() / "x", "http://127.0.0.1:45001/a", "tml-0123456789")
print("10%|#  | 1/9\\r100%|###| 9/9")
print("cwd", os.getcwd() == os.environ["EXPECTED_FOLDER"])"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the good notebook, in a folder of its own."""
    return Path(shutil.copy(GOOD, tmp_path / "good.ipynb"))


def edit(path: Path, number: int, source: str) -> None:
    """Replace the source of a cell, counted from 1."""
    notebook: Any = nbformat.read(path, as_version=4)
    notebook.cells[number - 1].source = source
    nbformat.write(notebook, path)


def test_published_notebook_is_clean_and_stamped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKER_BASE_URL", "http://elsewhere")
    monkeypatch.setenv("EXPECTED_FOLDER", str(path.parent))
    edit(path, 4, LEAKS.replace("config", "start.parameters(valid=['learning_rate', 'max_steps'])"))
    edit(path, 1, "# Add\n\n≈ ? on ? CPU cores · ? GiB · no model · executed ?")
    notebook: Any = nbformat.read(path, as_version=4)
    notebook.metadata |= {"widgets": {"a": 1}, "papermill": {}, "language_info": {"version": "3"}}
    notebook.cells[1].metadata = {"papermill": {"duration": 1}, "execution": {}, "scrolled": True}
    notebook.cells.append(nbformat.v4.new_code_cell(""))
    nbformat.write(notebook, path)

    assert main([str(path)]) == 0
    assert faults(path) == []
    done: Any = nbformat.read(path, as_version=4)
    assert done.cells[3].outputs[0].text.splitlines() == [
        "{'learning_rate': 0.5, 'max_steps': 8}",
        "server None",
        "~/x http://127.0.0.1:PORT/a tml-KEY",
        "100%|###| 9/9",
        "cwd True",
    ]
    assert set(done.metadata) == {"cookbook", "kernelspec", "language_info"}
    assert done.cells[1].metadata == {}
    assert len(done.cells) == 10
    told = done.metadata["cookbook"]
    assert told["claims"] == {"sum": 4.0}
    assert told["cells_hash"] == stamp.cells_hash(done)
    assert told["package_hash"] == stamp.package_hash(done)
    assert stamp.is_current(done)
    changed = copy.deepcopy(done)
    changed.cells[-1].source += "\nmore = 1"
    done.metadata["cookbook"]["package_hash"] = "0" * 16
    assert not stamp.is_current(changed)
    assert not stamp.is_current(done)
    assert told["date"] == datetime.date.today().isoformat()
    assert told["versions"]["python"].startswith("3.")
    assert 0 < told["seconds"] < 60
    line = done.cells[0].source.splitlines()[-1]
    assert is_filled(line)
    assert " · no model · " in line
    assert 0.02 < float(line.split(" · ")[1].removesuffix(" GiB")) < 2
    assert [entry.name for entry in path.parent.iterdir()] == ["good.ipynb"]


def test_failed_claims_leave_the_file_as_it_was(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(path, 10, "assert sums[-1] > 100, 'no effect'")
    before = path.read_bytes()
    assert main([str(path)]) == 1
    assert path.read_bytes() == before
    told = capsys.readouterr().err
    assert "good.ipynb: not stored, because a cell failed" in told
    assert "no effect" in told


def test_faulty_source_is_not_executed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(path, 3, "learning_rate = 1e-4")
    before = path.read_bytes()
    assert main([str(path)]) == 1
    assert path.read_bytes() == before
    assert "write 'name: type = value" in capsys.readouterr().err


def test_nbmake_runs_a_stamped_notebook_from_another_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    options = ["--nbmake", "-q", "-p", "nbmake.pytest_plugin", "--rootdir", str(path.parent)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(path)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert path.read_bytes() == GOOD.read_bytes()


def test_cells_hash_sees_code_and_not_prose() -> None:
    notebook: Any = nbformat.read(GOOD, as_version=4)
    before = stamp.cells_hash(notebook)
    notebook.cells[0].source += "\nMore prose."
    notebook.cells[1].outputs = []
    notebook.cells[1].source += "\n"
    assert stamp.cells_hash(notebook) == before
    notebook.cells[2].source = notebook.cells[2].source.replace("0.5", "0.6")
    assert stamp.cells_hash(notebook) != before


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the cookbook's place."""
    root = tmp_path / "cookbook"
    files = {
        "__init__.py": "",
        "service.py": "import cookbook.home",
        "home.py": "",
        "analysis.py": "def f():\n    from cookbook.runlog import x",
        "runlog.py": "",
        "data.py": "",
        "data/rows.jsonl": "{}",
        "engine/__init__.py": "",
        "engine/server.py": "",
        "unused.py": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(stamp, "PACKAGE", root)
    return root


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("import json", []),
        ("import cookbook", ["__init__.py"]),
        ("from cookbook import home", ["__init__.py", "home.py"]),
        ("from cookbook.analysis import f", ["__init__.py", "analysis.py", "runlog.py"]),
        ("import cookbook.data as d", ["__init__.py", "data/rows.jsonl", "data.py"]),
        (
            "from cookbook.service import connect",
            ["__init__.py", "engine/__init__.py", "engine/server.py", "home.py", "service.py"],
        ),
        ("%matplotlib inline", []),
    ],
)
def test_package_hash_covers_what_is_reached(code: str, reached: list[str], package: Path) -> None:
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    before = stamp.package_hash(notebook)
    changing = []
    for file in sorted(file for file in package.rglob("*") if file.is_file()):
        text = file.read_text()
        file.write_text(text + "\n# changed")
        if stamp.package_hash(notebook) != before:
            changing.append(file.relative_to(package).as_posix())
        file.write_text(text)
    assert changing == reached


@pytest.mark.parametrize(
    ("seconds", "peak", "line"),
    [
        (101.2, 1.14 * 2**30, "≈ 1 min 40 s on 2 CPU cores · 1.1 GiB"),
        (6.3, 0.2 * 2**30, "≈ 7 s on 2 CPU cores · 0.2 GiB"),
        (119, 2**30, "≈ 2 min on 2 CPU cores · 1.0 GiB"),
    ],
)
def test_status_line_is_filled_and_filled_again(seconds: float, peak: float, line: str) -> None:
    cell = nbformat.v4.new_markdown_cell("# T\n\n≈ ? · ? GiB · 0.4 M tokens · executed ?\n\nMore.")
    notebook: Any = nbformat.v4.new_notebook(cells=[cell])
    for date in ("2026-01-02", "2026-11-22"):
        fill_status(notebook, seconds, 2, int(peak), date)
        want = f"{line} · 0.4 M tokens · executed {date}"
        assert notebook.cells[0].source == f"# T\n\n{want}\n\nMore."
        assert is_filled(want)


def test_no_status_line() -> None:
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# T")])
    with pytest.raises(ValueError, match="The first cell has no status line"):
        fill_status(notebook, 1, 2, 3, "2026-11-22")


def test_redactor_replaces_inner_paths_first() -> None:
    home = Path("/home/ana")
    redact = normalise.redactor([(home / "repo", "."), (home / ".cache" / "c", "$C"), (home, "~")])
    assert redact("/home/ana/repo/results/a in /home/ana/repo") == "results/a in ."
    assert redact("'/home/ana/.cache/c/models'") == "'$C/models'"
    assert redact("/home/ana/x /home/anabel") == "~/x /home/anabel"
    assert redact("/tmp/ipykernel_12/345.py:3: UserWarning") == "<cell>:3: UserWarning"


def test_redactor_hides_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-machine-7")
    assert normalise.redactor([])("on lab-machine-7, pid 3") == "on localhost, pid 3"


def test_pictures_are_not_rewritten() -> None:
    key = "tml-abcdefgh"
    data = {"image/png": key, "text/html": key, "application/json": {"a": [key]}}
    cell = nbformat.v4.new_code_cell("x")
    cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    notebook: Any = nbformat.v4.new_notebook(cells=[cell])
    normalise.normalise(notebook)
    assert dict(notebook.cells[0].outputs[0].data) == {
        "image/png": key,
        "text/html": "tml-KEY",
        "application/json": {"a": ["tml-KEY"]},
    }


def test_peak_memory_sees_grandchildren() -> None:
    inner = "import time; x = bytearray(150_000_000); time.sleep(1.5)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    with peak_memory() as peak:
        subprocess.run([sys.executable, "-c", outer], check=True, timeout=30)
    assert 140_000_000 < peak.size_bytes < 400_000_000


@pytest.mark.parametrize(
    ("text", "found"),
    [('a\n{"n": 1}\n', {"n": 1}), ("[1]", None), ('{"n": 1}\nok', None), ("", None)],
)
def test_claims_are_the_last_line_printed(text: str, found: dict[str, int] | None) -> None:
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["claims"]})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]
    assert stamp.claims(nbformat.v4.new_notebook(cells=[cell])) == found
