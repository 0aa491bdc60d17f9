"""Execute a notebook from the command line: parameters checked first, results kept afterwards."""

import contextlib
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import papermill
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from cookbook.analysis.results import RESULTS_NOTE
from cookbook.errors import ConfigError, CookbookError
from cookbook.parameters import (
    Parameter,
    find_notebook,
    parse_assignments,
    read_parameters,
    tracked,
    with_wandb,
)
from cookbook.runlog import read_metrics, unique_log_path
from cookbook.runlog.folder import delete_run, holds_run

POLL_S = 2.0
QUIET_KERNEL = ["--IPKernelApp.log_level=ERROR"]  # or it warns of its loopback sockets every time
HEADLINES = ("test/nll", "train_mean_nll", "env/all/reward/total")


class NotebookError(CookbookError, RuntimeError):
    """A cell of an executed notebook failed; the text ends with that cell's own error."""


def run_notebook(name: str, assignments: Sequence[str], if_exists: str = "") -> Path:
    """Execute a notebook with papermill and return where its results are.

    Args:
        name: the name of a notebook in ``notebooks/``, or a path.
        assignments: ``key=value`` each; a value is read as the type of the parameter's default.
            ``wandb_project`` works for every notebook.
        if_exists: for a run that is already at the log path: "resume", "overwrite" or "raise";
            empty leaves it to the notebook.

    Returns:
        The results folder, the executed notebook in it; the executed notebook itself if the
        notebook saves no results.

    Raises:
        ConfigError: no such notebook, an unknown parameter, a value of another type, or a run at
            the log path that must not be touched; nothing has run then.
        NotebookError: a cell failed. The executed notebook is kept; the text says where.
    """
    notebook = find_notebook(name)
    known = read_parameters(notebook)
    parameters = parse_assignments(assignments, with_wandb(known))
    log_path = Path(parameters.get("log_path") or unique_log_path(notebook.stem)).expanduser()
    if "log_path" in known:
        parameters["log_path"] = str(log_path)
    if if_exists:
        _settle(if_exists, log_path, parameters, known)
    executed = log_path.with_name(f"{log_path.name}.ipynb")
    executed.parent.mkdir(parents=True, exist_ok=True)
    print(f"Running {notebook.name}; its log is {log_path}", file=sys.stderr)
    before = _results_note(log_path)
    try:
        with tracked(parameters, known), _telling_metrics(log_path):
            papermill.execute_notebook(notebook, executed, parameters, extra_arguments=QUIET_KERNEL)
    except PapermillExecutionError as error:
        kept = _keep(executed, log_path, notebook.name, before)
        raise NotebookError(_failure(error, kept)) from error
    except KeyboardInterrupt:
        print(f"Interrupted. To go on: the same command with log_path={log_path}", file=sys.stderr)
        raise
    kept = _keep(executed, log_path, notebook.name, before)
    return kept if kept == executed else kept.parent


def _settle(
    if_exists: str, log_path: Path, parameters: dict[str, Any], known: Mapping[str, Parameter]
) -> None:
    """Leave what is at `log_path` to the notebook if it has the parameter, else do as it says."""
    if "log_path" not in known:
        raise ConfigError("This notebook keeps no run (it has no log_path): leave out --if-exists.")
    if "if_exists" in known:
        parameters["if_exists"] = if_exists
    elif if_exists == "raise" and holds_run(log_path):
        raise ConfigError(
            f"log_path {log_path} already holds a run. Choose another one, or pass --if-exists "
            "resume to go on with it or --if-exists overwrite to delete it and start anew."
        )
    elif if_exists == "overwrite" and log_path.exists():
        delete_run(log_path)


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
