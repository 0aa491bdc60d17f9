"""What a sweep's folder remembers: its runs and how each ended, in a file replaced whole."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cookbook.errors import ConfigError, DataError
from cookbook.runlog.folder import write_object
from cookbook.sweep.grid import run_name

STATE = "sweep.json"
WAITING, RUNNING, INTERRUPTED = "waiting", "running", "interrupted"
DONE, UNPROVEN, FAILED = "done", "claim failed", "failed"
ENDED = (DONE, UNPROVEN)
"""Trained to the end: in a sweep it is a result that a setting breaks the notebook's promise."""


@dataclass
class Run:
    """One point of the grid."""

    name: str
    """Its folder."""
    parameters: dict[str, Any]
    status: str = WAITING
    seconds: float = 0.0
    """Of the last try."""
    error: str = ""
    """Last line of what went wrong."""


@dataclass
class Sweep:
    """A notebook's runs in one folder."""

    folder: Path
    notebook: str
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, notebook: str) -> "Sweep":
        """Return the sweep in `folder`, an empty one if there is none.

        Raises:
            ConfigError: the folder holds another notebook's sweep, or other files.
            DataError: the state cannot be read.
        """
        file = folder / STATE
        if not file.exists():
            if folder.exists() and (not folder.is_dir() or _others(folder)):
                raise ConfigError(f"{folder} holds other files and no sweep. Choose another --out.")
            return cls(folder, notebook)
        try:
            told = json.loads(file.read_bytes())
            runs = [Run(**run) for run in told["runs"]]
            there = told["notebook"]
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{file} cannot be read ({error}). Choose another --out.") from error
        if there != notebook:
            raise ConfigError(
                f"{folder} holds a sweep of {there}, not of {notebook}. Choose another --out."
            )
        return cls(folder, notebook, runs)

    def add(self, points: Sequence[dict[str, Any]]) -> list[Run]:
        """Return the runs of `points`, those that are there already among them."""
        return [self._find(parameters) or self._new(parameters) for parameters in points]

    def path(self, run: Run) -> Path:
        """Return the run's folder, which is its log path."""
        return self.folder / run.name

    def is_missing(self, run: Run) -> bool:
        """Return whether the run still has to be done, or done again."""
        return run.status not in ENDED or not self.path(run).is_dir()

    def save(self) -> None:
        """Replace the state file, all or nothing."""
        runs = [asdict(run) for run in self.runs]
        write_object(self.folder / STATE, {"notebook": self.notebook, "runs": runs})

    def _find(self, parameters: dict[str, Any]) -> Run | None:
        return next((run for run in self.runs if run.parameters == parameters), None)

    def _new(self, parameters: dict[str, Any]) -> Run:
        name, taken = run_name(parameters), {run.name for run in self.runs}
        numbered = (f"{name}-{n}" for n in range(2, len(taken) + 3))
        free = name if name not in taken else next(n for n in numbered if n not in taken)
        self.runs.append(Run(free, parameters))
        return self.runs[-1]


def _others(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix not in (".lock", ".part")]
