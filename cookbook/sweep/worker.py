"""One run of a sweep in a process of its own: ``python -m cookbook.sweep.worker``.

Its first line of input is the job; its last line of output is how the job ended. The input stays
open for as long as the sweep lives: when it ends, by a SIGKILL too, so do this process, its kernel
and the kernel's engine.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
from papermill.exceptions import PapermillExecutionError

from cookbook.analysis.results import RESULTS_NOTE
from cookbook.errors import ConfigError
from cookbook.execute import QUIET_KERNEL
from cookbook.notebooks.stamp import tagged
from cookbook.runlog.folder import lock_run
from cookbook.sweep.state import DONE, FAILED, UNPROVEN

RESULTS, OUTPUT = "results", "output.txt"
ORPHAN_S = 30.0
"""How long a kernel whose sweep was killed may take to notice."""


def main() -> None:
    """Do the job on standard input."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    print(json.dumps(do(job)), flush=True)


def do(job: dict[str, Any]) -> dict[str, str]:
    """Execute the job's notebook into its folder; return its status and error.

    Args:
        job: `notebook` and `executing`, the paths of the notebook and of its copy while it runs;
            `log_path`, the run's folder; `parameters`.
    """
    notebook, executing = Path(job["notebook"]), Path(job["executing"])
    log_path = Path(job["log_path"])
    _clear(log_path, notebook.name)
    parameters = {**job["parameters"], "log_path": str(log_path)}
    status, error = DONE, ""
    try:
        papermill.execute_notebook(
            notebook, executing, parameters, progress_bar=False, extra_arguments=QUIET_KERNEL
        )
    except PapermillExecutionError as failure:
        claims = [cell.source for cell in tagged(nbformat.read(notebook, as_version=4), "claims")]
        status = UNPROVEN if failure.source in claims else FAILED
        error = f"{failure.ename}: {failure.evalue}"
    except Exception as failure:  # the kernel died, or did not start
        status, error = FAILED, f"{type(failure).__name__}: {failure}"
    log_path.mkdir(parents=True, exist_ok=True)
    _take_results(log_path)
    if executing.exists():
        shutil.move(executing, log_path / notebook.name)
    return {"status": status, "error": error}


def _clear(log_path: Path, notebook: str) -> None:
    """Take out what an earlier try left beside the log, once its kernel has let go of the log."""
    if not log_path.is_dir():
        return
    deadline = time.monotonic() + ORPHAN_S
    while True:
        try:
            lock_run(log_path).release()
            break
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    (log_path / notebook).unlink(missing_ok=True)
    (log_path / OUTPUT).unlink(missing_ok=True)
    shutil.rmtree(log_path / RESULTS, ignore_errors=True)


def _take_results(log_path: Path) -> None:
    """Move the results folder that the notebook made to the run's log."""
    note = log_path / RESULTS_NOTE
    made = Path(note.read_text(encoding="utf-8").strip()) if note.exists() else None
    if made and made.is_dir() and not made.is_relative_to(log_path):
        shutil.move(made, log_path / RESULTS)
        note.write_text(f"{log_path / RESULTS}\n", encoding="utf-8")


def _end_with_the_sweep() -> None:
    while os.read(0, 4096):  # nothing more is sent; it returns when the sweep's end is closed
        pass
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


if __name__ == "__main__":
    main()
