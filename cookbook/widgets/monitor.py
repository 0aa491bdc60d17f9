"""The run that is going on, told once a second: steps, time left, newest samples, a stop button.

Plain HTML that is replaced in place. The button is a link to JupyterLab's own command that
interrupts the kernel: a callback in the kernel would wait for the very cell that it is to stop.
What it causes is the trainers' interrupt: the step in flight ends, is saved, and the run can go on.
"""

import threading
from html import escape
from types import TracebackType
from typing import Any, Self

from cookbook.analysis.rollouts import newest_rollouts, rollout_table
from cookbook.loop import Progress, latest_run
from cookbook.notebooks.status import told_duration

TICK_S = 1.0
STOP = "Stop and save"
# Pressed once it can't be pressed again: a second interrupt would not wait for the step.
_BUTTON = (
    '<button style="padding:.2em .9em" onclick="this.disabled=true;'
    "this.textContent='Stopping after this step'\" "
    'data-commandlinker-command="notebook:interrupt-kernel" data-commandlinker-args="{}">'
    f"{STOP}</button> &ensp;<small>Run the cell again to go on.</small>"
)


class Monitor:
    """Shows the run begun in its ``with`` block; nothing if none begins, one line when it ended."""

    def __init__(self) -> None:
        self._before = latest_run()
        self._over = threading.Event()
        self._teller = threading.Thread(target=self._tell, daemon=True)
        self._button: Any = None
        self._status: Any = None

    def __enter__(self) -> Self:
        self._teller.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._teller.join()
        progress = self._run()
        if progress is None:
            return
        words = told(progress)
        self._button = _show(self._button, f"<small>{escape(words)}</small>", words)
        self._status = _show(self._status, *_samples(progress))

    def _run(self) -> Progress | None:
        """Return the run to tell of, None if none has begun in this block."""
        latest = latest_run()
        return None if latest is self._before else latest

    def _tell(self) -> None:
        while not self._over.wait(TICK_S):
            progress = self._run()
            if progress is None or progress.ending:
                continue
            if self._button is None:  # never drawn anew, or a click could fall between two of them
                self._button = _show(None, _BUTTON, "")
            self._status = _show(self._status, *status(progress))


def status(progress: Progress) -> tuple[str, str]:
    """Return HTML and text of a run that is going on."""
    done, n_steps, words = progress.done, progress.n_steps, told(progress)
    bar = f'<progress style="width:18em" value="{done}" max="{n_steps}"></progress>'
    markup, text = _samples(progress)
    return f"<div>{bar} &ensp;{escape(words)}</div>{markup}", f"{words}\n{text}".strip()


def told(progress: Progress) -> str:
    """Return the words for how far a run is, e.g. ``step 3 of 12 · 21 s · about 1 min left``."""
    taken = told_duration(progress.seconds)
    if progress.ending:
        return (
            f"{progress.ending.capitalize()}: {progress.done} of {progress.n_steps} steps · {taken}"
        )
    if progress.done == progress.n_steps:
        return f"all {progress.n_steps} steps done · {taken} · evaluating and saving"
    left = progress.seconds_left
    ahead = "" if left is None else f" · about {told_duration(left)} left"
    return f"step {progress.done + 1} of {progress.n_steps} · {taken}{ahead}"


def _samples(progress: Progress) -> tuple[str, str]:
    """Return HTML and text of the newest samples, the best and the worst; '' where none are."""
    records = newest_rollouts(progress.log_path)
    if not records:
        return "", ""
    title, table = f"Sampled in step {records[0]['step'] + 1}:", rollout_table(records, 2)
    return f"<div><small>{title}</small>{table._repr_html_()}</div>", f"{title}\n{table}"


def _show(handle: Any, markup: str, text: str) -> Any:
    """Put HTML in the handle's place, or below all there is; return the handle."""
    from IPython.display import display

    data = {"text/html": markup, "text/plain": text}
    if handle is None:
        return display(data, raw=True, display_id=True)
    handle.update(data, raw=True)
    return handle
