"""Execute a notebook from the command line: parameters checked first, results kept afterwards."""

import ast
import contextlib
import difflib
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from cookbook.analysis.results import RESULTS_NOTE
from cookbook.errors import ConfigError, CookbookError
from cookbook.notebooks.guard import refuse_unknown
from cookbook.runlog import read_metrics, unique_log_path

POLL_S = 2.0
QUIET_KERNEL = ["--IPKernelApp.log_level=ERROR"]  # or it warns of its loopback sockets every time
HEADLINES = ("test/nll", "train_mean_nll", "env/all/reward/total")
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
TYPES = {"bool": bool, "int": int, "float": float, "str": str}


class NotebookError(CookbookError, RuntimeError):
    """A cell of an executed notebook failed; the text ends with that cell's own error."""


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's ``parameters`` cell: its type's name and whether None is allowed."""

    type_name: str
    may_be_none: bool


def run_notebook(name: str, assignments: Sequence[str]) -> Path:
    """Execute a notebook with papermill and return where its results are.

    Args:
        name: the name of a notebook in ``notebooks/``, or a path.
        assignments: ``key=value`` each; a value is read as the type of the parameter's default.

    Returns:
        The results folder, the executed notebook in it; the executed notebook itself if the
        notebook saves no results.

    Raises:
        ConfigError: no such notebook, an unknown parameter, or a value of another type; nothing has
            run then.
        NotebookError: a cell failed. The executed notebook is kept; the text says where.
    """
    notebook = find_notebook(name)
    known = read_parameters(notebook)
    parameters = parse_assignments(assignments, known)
    log_path = Path(parameters.get("log_path") or unique_log_path(notebook.stem)).expanduser()
    if "log_path" in known:
        parameters["log_path"] = str(log_path)
    executed = log_path.with_name(f"{log_path.name}.ipynb")
    executed.parent.mkdir(parents=True, exist_ok=True)
    print(f"Running {notebook.name}; its log is {log_path}", file=sys.stderr)
    before = _results_note(log_path)
    try:
        with _telling_metrics(log_path):
            papermill.execute_notebook(notebook, executed, parameters, extra_arguments=QUIET_KERNEL)
    except PapermillExecutionError as error:
        kept = _keep(executed, log_path, notebook.name, before)
        raise NotebookError(_failure(error, kept)) from error
    except KeyboardInterrupt:
        print(f"Interrupted. To go on: the same command with log_path={log_path}", file=sys.stderr)
        raise
    kept = _keep(executed, log_path, notebook.name, before)
    return kept if kept == executed else kept.parent


def find_notebook(name: str) -> Path:
    """Return the notebook's path: ``name`` itself, or looked for in ``notebooks/``.

    Raises:
        ConfigError: there is none; the text names the nearest one and all there are.
    """
    if Path(name).is_file():
        return Path(name)
    folders = (Path("notebooks"), Path(__file__).parents[1] / "notebooks")
    found = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.ipynb")}
    stem = Path(name).name.removesuffix(".ipynb")
    if stem in found:
        return found[stem]
    nearest = difflib.get_close_matches(stem, found, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigError(
        f"There is no notebook {name!r}.{hint} Known: {', '.join(sorted(found)) or 'none here'}."
    )


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Return what the notebook's cell tagged ``parameters`` defines, by name, in its order."""
    cells = nbformat.read(notebook, as_version=4).cells
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    statements = ast.parse(tagged[0].source).body if tagged else []
    found = {}
    for line in statements:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value:
            found[line.target.id] = _parameter(line.value, ast.unparse(line.annotation))
        elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            found[line.targets[0].id] = _parameter(line.value, "")
    return found


def _parameter(value: ast.expr, annotation: str) -> Parameter:
    default = ast.literal_eval(value)
    options = [part.strip() for part in annotation.split("|")] if annotation else []
    named = [option for option in options if option in TYPES]
    type_name = named[0] if named else type(default).__name__
    return Parameter(type_name, may_be_none=default is None or "None" in options)


def parse_assignments(assignments: Sequence[str], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the values of ``key=value`` pairs, each in its parameter's type.

    Raises:
        ConfigError: a pair without ``=``, an unknown name (with the nearest valid one), or values
            that cannot be read, all of them in one text.
    """
    pairs = [assignment.partition("=") for assignment in assignments]
    if bad := [key for key, sign, _ in pairs if not sign]:
        raise ConfigError(
            f"Parameters are given as key=value, got {' '.join(bad)!r}. "
            f"Valid parameters: {', '.join(known)}."
        )
    refuse_unknown([key for key, _, _ in pairs], list(known))
    values, faults = {}, []
    for key, _, text in pairs:
        try:
            values[key] = _value(text, known[key])
        except ValueError:
            faults.append(f"{key}={text}: expected {known[key].type_name}")
    if faults:
        raise ConfigError(f"Bad value: {'; '.join(faults)}.")
    return values


def _value(text: str, parameter: Parameter) -> Any:
    if parameter.may_be_none and text in ("None", "none", ""):
        return None
    if parameter.type_name == "bool":
        if text.lower() not in BOOLEANS:
            raise ValueError(text)
        return BOOLEANS[text.lower()]
    return TYPES.get(parameter.type_name, str)(text)


def _results_note(log_path: Path) -> str:
    """Return the text that names the run's results folder, '' if there is none (yet)."""
    try:
        return (log_path / RESULTS_NOTE).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _keep(executed: Path, log_path: Path, name: str, before: str) -> Path:
    """Move the executed notebook into the results folder that this run made, if it made one."""
    note = _results_note(log_path)
    if not note or note == before or not Path(note).is_dir():
        return executed
    return Path(shutil.move(executed, Path(note) / name))


def _failure(error: PapermillExecutionError, kept: Path) -> str:
    return (
        f"Cell {error.exec_count} failed. The executed notebook is {kept}\n"
        f"{error.ename}: {error.evalue}"
    )


@contextlib.contextmanager
def _telling_metrics(log_path: Path) -> Iterator[None]:
    """Print a line about the newest step of the run, above papermill's bar, as it goes."""
    done = threading.Event()
    teller = threading.Thread(target=_tell_metrics, args=(log_path, done), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _tell_metrics(log_path: Path, done: threading.Event) -> None:
    told = None
    while not done.wait(POLL_S):
        with contextlib.suppress(CookbookError, OSError):  # not there yet
            records = read_metrics(log_path)
            if records and records[-1].get("step") != told:
                told = records[-1].get("step")
                tqdm.write(_metric_line(records), file=sys.stderr)


def _metric_line(records: Sequence[Mapping[str, Any]]) -> str:
    """Return e.g. ``step 12, 40%: train_mean_nll 1.93``, each metric's newest value."""
    newest: dict[str, Any] = {}
    for record in records:
        newest.update(record)
    share = f", {newest['progress']:.0%}" if "progress" in newest else ""
    values = [f"{name} {newest[name]:.3g}" for name in HEADLINES if name in newest]
    return f"step {newest['step']}{share}: {', '.join(values)}"
