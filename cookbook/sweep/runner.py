"""Do what a sweep still lacks, several runs at a time, and tell how it went."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cookbook.analysis.wording import duration
from cookbook.errors import ConfigError
from cookbook.parameters import WANDB, find_notebook, read_parameters, tracked, with_wandb
from cookbook.sweep.grid import grid_points, read_grid
from cookbook.sweep.state import FAILED, INTERRUPTED, RUNNING, Run, Sweep
from cookbook.sweep.summary import summarise
from cookbook.sweep.worker import OUTPUT

LOCK, EXECUTING = "sweep.lock", "executing"


def run_sweep(name: str, assignments: Sequence[str], out: Path | None = None, jobs: int = 1) -> int:
    """Run a notebook once for each point of a grid; return how many runs failed.

    What is done is not done again: the same call goes on after an interruption, another grid in the
    same folder adds to it. A run that was cut off goes on from its own checkpoints; one that failed
    is tried again. Then a table of all runs is printed and their comparison written.

    Args:
        name: the name of a notebook in ``notebooks/``, or a path.
        assignments: `name=value,value` each; a single value holds for all runs.
        out: the sweep's folder, default ``results/sweep_<notebook>``.
        jobs: runs at a time; each has an engine of its own, which takes memory.
    Raises:
        ConfigError: no such notebook, an unknown parameter, a value of another type, a folder that
            holds something else or is in use; nothing has run then.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs: expected 1 or more runs at a time, got {jobs}.")
    notebook = find_notebook(name).resolve()
    known = read_parameters(notebook)
    if "log_path" not in known:
        raise ConfigError(f"{notebook.name} has no parameter log_path, so it cannot be swept.")
    grid = read_grid(assignments, with_wandb(known))
    common = {WANDB: grid.pop(WANDB)[0]} if WANDB in grid else {}
    sweep = Sweep.open((out or Path("results", f"sweep_{notebook.stem}")).resolve(), notebook.stem)
    sweep.folder.mkdir(parents=True, exist_ok=True)
    with _lock(sweep.folder), tracked(common, known):
        asked = sweep.add(grid_points(grid))
        todo = [run for run in asked if sweep.is_missing(run)]
        sweep.save()
        done = len(asked) - len(todo)
        _tell(f"{len(asked)} runs of {notebook.name} in {sweep.folder}: {done} done before")
        _Session(sweep, notebook, common, jobs).do(todo)
        summarise(sweep)
    return sum(run.status == FAILED for run in asked)


@dataclass
class _Session:
    """The runs of one call, and what they share."""

    sweep: Sweep
    notebook: Path
    common: dict[str, Any]
    jobs: int
    n_done: int = 0
    stopping: bool = False
    workers: set[subprocess.Popen[str]] = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def do(self, todo: Sequence[Run]) -> None:
        """Do all runs; however this ends, none of their processes is left."""
        self.executing.mkdir(exist_ok=True)
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                list(pool.map(lambda run: self._do_one(run, len(todo)), todo))
            except KeyboardInterrupt:
                _tell("Interrupted. The same command goes on with what is missing.")
                raise
            finally:
                self._stop()
                pool.shutdown(cancel_futures=True)
        shutil.rmtree(self.executing, ignore_errors=True)

    @property
    def executing(self) -> Path:
        """The folder of the notebooks that are being executed."""
        return self.sweep.folder / EXECUTING

    def _do_one(self, run: Run, n_todo: int) -> None:
        started = time.monotonic()
        worker = self._start(run)
        if worker is None:
            return
        told = self._ending(worker, run)
        with self.guard:
            self.workers.discard(worker)
            run.seconds = round(time.monotonic() - started, 1)
            run.status = INTERRUPTED if self.stopping else told["status"]
            run.error = "" if self.stopping else _last_line(told["error"])
            self.sweep.save()
            self.n_done += 1
            took = f"{run.status} in {duration(run.seconds)}"
            error = f": {run.error}" if run.error else ""
            _tell(f"[{self.n_done}/{n_todo}] {run.name}: {took}{error}")

    def _start(self, run: Run) -> subprocess.Popen[str] | None:
        """Start a process for the run and hand it the job; None when the sweep is being stopped."""
        with self.guard, self._output(run).open("w", encoding="utf-8") as errors:
            if self.stopping:
                return None
            run.status, run.error = RUNNING, ""
            self.sweep.save()
            worker = subprocess.Popen(
                [sys.executable, "-m", "cookbook.sweep.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=_environment(self.jobs),
                start_new_session=True,  # a Ctrl-C in the terminal is for the sweep alone
            )
            self.workers.add(worker)
            job = {
                "notebook": str(self.notebook),
                "executing": str(self.executing / f"{run.name}.ipynb"),
                "log_path": str(self.sweep.path(run)),
                "parameters": {**run.parameters, **self.common},
            }
            assert worker.stdin
            worker.stdin.write(json.dumps(job) + "\n")
            worker.stdin.flush()
        return worker

    def _ending(self, worker: subprocess.Popen[str], run: Run) -> dict[str, str]:
        """Wait for the process and return the run's status and error."""
        assert worker.stdout
        told = worker.stdout.read().strip()
        status, printed = worker.wait(), self._output(run).read_text(encoding="utf-8")
        if printed and self.sweep.path(run).is_dir():
            shutil.copy(self._output(run), self.sweep.path(run) / OUTPUT)
        if status == 0 and told:
            return json.loads(told.splitlines()[-1])
        reason = _last_line(printed) or f"status {status}"
        return {"status": FAILED, "error": f"its process ended early: {reason}"}

    def _output(self, run: Run) -> Path:
        return self.executing / f"{run.name}.txt"

    def _stop(self) -> None:
        """End what still runs: a worker whose input is closed ends itself and its kernel."""
        with self.guard:
            self.stopping = True
            for worker in self.workers:
                if worker.stdin:
                    worker.stdin.close()


def _environment(jobs: int) -> dict[str, str]:
    """Return the environment of a worker: its share of the cores, unless that is chosen already."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = {"OMP_NUM_THREADS": str(max(1, (cores or 1) // jobs))} if jobs > 1 else {}
    return {**share, **os.environ}


def _lock(folder: Path) -> AbstractContextManager[object]:
    try:
        return FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"Another sweep is at work in {folder}. Choose another --out.") from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
