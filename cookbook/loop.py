"""The loop of all trainers: step, log, save; stop between steps when asked; say how far it is."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cookbook.checkpointing import save_checkpoint
from cookbook.interrupt import deferred_interrupt
from cookbook.runlog import RunLog

Metrics = dict[str, Any]
OnStep = Callable[[Mapping[str, Any]], None]


class Stopped(KeyboardInterrupt):
    """The user stopped the run; what was trained is saved, and the text says how to go on."""

    def _render_traceback_(self) -> list[str]:
        """Let a notebook show the text alone: where the code stood is of no use to anybody."""
        return [str(self)]


@dataclass(eq=False, kw_only=True)
class Progress:
    """How far a run is. Another thread may read it while the run goes on."""

    log_path: Path
    n_steps: int
    first_step: int
    """Steps that the run had before, if it was resumed."""
    done: int
    """Steps that it has now."""
    ending: str = ""
    """How the loop ended: "finished", "stopped" or "failed"; empty while it runs."""
    began_s: float = field(default_factory=time.monotonic)
    changed_s: float = field(default_factory=time.monotonic)
    """When a step was counted last, or when the loop ended; both on the monotonic clock."""

    @property
    def seconds(self) -> float:
        """Time since the loop began, up to its end if it has ended."""
        return (self.changed_s if self.ending else time.monotonic()) - self.began_s

    @property
    def seconds_left(self) -> float | None:
        """Estimate of the time to the last step; None before this loop's first step is done.

        Mean time of this loop's steps, the evaluations and checkpoints between them included, times
        the steps left, less what the step in flight has had.
        """
        taken = self.done - self.first_step
        if not taken:
            return None
        mean = (self.changed_s - self.began_s) / taken
        return max(0.0, (self.n_steps - self.done) * mean - (time.monotonic() - self.changed_s))

    def _change(self, done: int, ending: str = "") -> None:
        self.changed_s, self.done, self.ending = time.monotonic(), done, ending


_latest: Progress | None = None


def latest_run() -> Progress | None:
    """Return the progress of the run that was begun last in this process; None before the first."""
    return _latest


def run_steps(
    take_step: Callable[[int], Metrics],
    evaluate_end: Callable[[], Metrics],
    *,
    client: Any,
    log: RunLog,
    first_step: int,
    n_steps: int,
    save_every: int,
    on_step: OnStep,
) -> None:
    """Take the steps from `first_step` on, evaluate the final weights, save them.

    A run with a final checkpoint is complete. An interrupt is heard between steps; one that comes
    while the final weights are evaluated and saved changes nothing. If their evaluation fails, they
    are saved to be resumed from.

    Args:
        take_step: takes the optimiser step of that number and returns its metrics.
        evaluate_end: returns the metrics of the final weights; empty for none.
        client: the training client, for saving.
        log: the run's open log.
        first_step: steps that the weights have had.
        n_steps: steps of the whole run.
        save_every: steps between checkpoints; 0 for the final one only.
        on_step: called with each line of the log, "step" included, once it is written.
    Raises:
        Stopped: an interrupt came; the steps so far are saved.
    """
    progress = _begin(log.path, first_step, n_steps)

    def report(step: int, metrics: Metrics) -> None:
        log.log(step, metrics)
        on_step({"step": step, **metrics})

    ending = "failed"
    try:
        with deferred_interrupt() as stop:
            for step in range(first_step, n_steps):
                metrics, done = take_step(step), step + 1
                progress._change(done)
                report(step, metrics)
                asked = stop.requested
                if done < n_steps:  # else the final checkpoint comes next
                    if asked or (save_every and done % save_every == 0):
                        save_checkpoint(client, log, done)
                    if asked:
                        ending = "stopped"
                        raise Stopped(_how_to_go_on(log.path, done, n_steps))
            try:
                final = evaluate_end()
            except Exception:
                save_checkpoint(client, log, n_steps)  # a resumed run then only evaluates
                raise
            if final:
                report(n_steps, final)
            save_checkpoint(client, log, n_steps, final=True)
            ending = "finished"
    finally:
        progress._change(progress.done, ending)


def _begin(log_path: Path, first_step: int, n_steps: int) -> Progress:
    global _latest
    _latest = Progress(log_path=log_path, first_step=first_step, n_steps=n_steps, done=first_step)
    return _latest


def _how_to_go_on(log_path: Path, done: int, n_steps: int) -> str:
    return (
        f"Interrupted after step {done} of {n_steps}, which is saved. To go on, run this again "
        f"with log_path={str(log_path)!r} and if_exists='resume'."
    )
