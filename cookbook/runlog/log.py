"""The writer of a run folder and the readers of its line files."""

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from cookbook.errors import CookbookError, DataError
from cookbook.runlog import folder, lines
from cookbook.runlog.folder import IfExists, unique_log_path
from cookbook.runlog.lines import Record
from cookbook.runlog.provenance import run_facts
from cookbook.runlog.tracking import NoTracker, Tracker, WandbTracker, new_run_id

METRICS, CHECKPOINTS = "metrics.jsonl", "checkpoints.jsonl"
WANDB_VARIABLE = "COOKBOOK_WANDB_PROJECT"
LogPath = str | os.PathLike[str]

# A notebook cell that is run again opens its run again; the older writer is then closed.
_open_logs: "weakref.WeakValueDictionary[Path, RunLog]" = weakref.WeakValueDictionary()


class RunLog:
    """A run folder opened for writing, by one process at a time; make it with `RunLog.open`.

    Example:
        with RunLog.open(None, {"learning_rate": 1e-4}, name="demo") as log:
            log.log(0, {"train_mean_nll": 2.5})
            log.save_checkpoint("000001", step=1, state_path="tinker://run/weights/000001")
    """

    def __init__(self, path: Path, lock: FileLock, tracker: Tracker) -> None:
        self.path = path
        self._lock = lock
        self._tracker = tracker
        for name in (METRICS, CHECKPOINTS):
            lines.repair(path / name)
        self._open_files()
        _open_logs[path] = self

    @classmethod
    def open(
        cls,
        log_path: LogPath | None,
        config: Mapping[str, Any],
        name: str,
        if_exists: IfExists = "resume",
        wandb_project: str | None = None,
        wandb_name: str | None = None,
    ) -> Self:
        """Return the run log at `log_path`, new or continued; never asks a question.

        Args:
            log_path: folder of the run; empty or None for a fresh one (see `unique_log_path`).
            config: all settings of the run, JSON-like values.
            name: short name of the recipe; a fresh folder's name starts with it.
            if_exists: for a run that is already there: go on with it ("resume"), delete it and
                start anew ("overwrite"), or stop ("raise").
            wandb_project: W&B project that gets the metrics too; empty or None for the one that
                $COOKBOOK_WANDB_PROJECT names, if any.
            wandb_name: the run's name there; by default the folder's name.

        Raises:
            ConfigError: the run there was started with other settings, or the folder holds
                something else, or another process writes it, or a setting cannot be used.
        """
        folder.check_choice(if_exists)
        wandb_project = wandb_project or os.environ.get(WANDB_VARIABLE)
        settings = folder.plain_settings(config)
        path = Path(log_path).expanduser() if log_path else unique_log_path(name)
        path = path.resolve()
        if path in _open_logs:
            _open_logs[path].close()
        folder.make(path, if_exists)
        lock = folder.lock_run(path)
        try:
            folder.check_resumable(path, settings, if_exists)
            run_id = _write_start(path, settings, name, wants_wandb=bool(wandb_project))
            tracker = _tracker(wandb_project, wandb_name or path.name, run_id, settings, path)
            return cls(path, lock, tracker)
        except BaseException:
            lock.release()
            raise

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append the metrics of one step: a flat mapping of names to numbers, text or None.

        Raises:
            DataError: a name or value that is none of these, or a step that is not above the last
                one. Put all metrics of a step into one call; after loading a checkpoint call
                `rewind` first.
        """
        self._check_open()
        _check_step(step)
        if step <= self._last_step:
            raise DataError(
                f"step {step} comes after step {self._last_step} in {self.path / METRICS}. Log all "
                "metrics of a step in one call; after loading a checkpoint call rewind(step) first."
            )
        plain = _plain_metrics(metrics)
        lines.append(self._metrics, {"step": step, **plain})
        self._last_step = step
        measured = {name: value for name, value in plain.items() if value is not None}
        self._tracker.log(step, lines.decode(measured))

    def save_checkpoint(
        self,
        name: str,
        step: int,
        state_path: str | None = None,
        sampler_path: str | None = None,
        **loop_state: Any,
    ) -> None:
        """Record a checkpoint that the server has saved; call it after the save has succeeded.

        Args:
            name: the checkpoint's name, by custom the step as "%06d", or "final".
            step: number of optimiser steps the weights have had.
            state_path: where weights and optimiser state are, for going on.
            sampler_path: where the weights for sampling are.
            loop_state: what the loop needs to go on (epoch, batch, final, ...), JSON-like; None is
                left out.

        Raises:
            DataError: neither path is given, or a value JSON has no form for.
        """
        self._check_open()
        _check_step(step)
        if not (state_path or sampler_path):
            raise DataError(
                f"checkpoint {name!r}: expected a state_path or a sampler_path, got neither; "
                "nothing could be loaded from it."
            )
        fields = {"state_path": state_path, "sampler_path": sampler_path, **loop_state}
        kept = {key: value for key, value in fields.items() if value is not None}
        lines.append(self._checkpoints, {"name": name, "step": step, **kept}, sync=True)

    def last_checkpoint(self, required_key: str = "state_path") -> Record | None:
        """Return the newest checkpoint record that has `required_key`, or None."""
        having = [record for record in read_checkpoints(self.path) if required_key in record]
        return having[-1] if having else None

    def rewind(self, step: int) -> None:
        """Go back to where a checkpoint of `step` optimiser steps left off; call it after loading.

        Drops the metrics of steps >= `step` and the checkpoint records above `step`, since the loop
        is about to write them again. Without a checkpoint, `rewind(0)` starts over. A finished run
        needs none: its last metrics may carry the final step's number.
        """
        self._check_open()
        _check_step(step)
        self._close_files()
        # Checkpoints first: killed in between, the next resume finds the same one and rewinds too.
        for file, stays in ((CHECKPOINTS, step), (METRICS, step - 1)):
            records = lines.read(self.path / file)
            kept = [record for record in records if record.get("step", -1) <= stays]
            if len(kept) < len(records):
                lines.rewrite(self.path / file, kept)
        self._open_files()

    def close(self) -> None:
        """Close the files, free the folder for other processes, end the W&B session; idempotent."""
        if self._metrics.closed:
            return
        self._close_files()
        self._lock.release()
        self._tracker.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open_files(self) -> None:
        steps = [record.get("step", -1) for record in read_metrics(self.path)]
        self._last_step = max(steps, default=-1)
        self._metrics = lines.open_for_append(self.path / METRICS)
        self._checkpoints = lines.open_for_append(self.path / CHECKPOINTS)

    def _close_files(self) -> None:
        self._metrics.close()
        self._checkpoints.close()

    def _check_open(self) -> None:
        if self._metrics.closed:
            raise CookbookError(
                f"the run log of {self.path} is closed. Open it again with RunLog.open(...)."
            )


def read_metrics(log_path: LogPath) -> list[Record]:
    """Return the metrics of each step, in file order, without a torn last line.

    Raises:
        DataError: a line before the last is not a JSON object; the message names file and line.
    """
    return lines.read(Path(log_path).expanduser() / METRICS)


def read_checkpoints(log_path: LogPath) -> list[Record]:
    """Return the record of each saved checkpoint, in file order, without a torn last line.

    Raises:
        DataError: a line before the last is not a JSON object; the message names file and line.
    """
    return lines.read(Path(log_path).expanduser() / CHECKPOINTS)


def _write_start(path: Path, settings: Record, name: str, *, wants_wandb: bool) -> str:
    """Write what marks the folder as a run, where it is missing; return the W&B run id or ""."""
    facts = folder.read_facts(path) or {"kind": folder.KIND, "name": name, **run_facts()}
    if wants_wandb:
        facts.setdefault("wandb_run_id", new_run_id())
    if facts != folder.read_facts(path):
        folder.write_object(path / folder.RUN, facts)
    # Last: from here on the folder counts as a run that can be resumed.
    if not (path / folder.CONFIG).exists():
        folder.write_object(path / folder.CONFIG, settings)
    return facts.get("wandb_run_id", "")


def _tracker(project: str | None, name: str, run_id: str, settings: Record, path: Path) -> Tracker:
    if not project:
        return NoTracker()
    return WandbTracker(project=project, name=name, run_id=run_id, config=settings, folder=path)


def _check_step(step: int) -> None:
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise DataError(f"step: expected a whole number from 0 on, got {step!r}.")


def _plain_metrics(metrics: Mapping[str, Any]) -> Record:
    """Return the metrics as flat JSON data, or raise DataError naming the one that is not."""
    plain = {}
    for name, value in metrics.items():
        encoded = lines.encode(value)
        if name == "step" or not isinstance(name, str) or isinstance(encoded, dict | list):
            raise DataError(
                f"metric {name!r}: expected a name other than 'step' and a number, text or None, "
                f"got {value!r:.80}. Split lists and mappings into metrics of their own."
            )
        plain[name] = encoded
    return plain
