"""A kernel that has run a notebook up to its training cell, to be interrupted and killed.

The cell stops itself, at a line and in a step that the test names: a signal from outside comes too
late on a busy machine, and Python drops an interrupt that arrives in a weak reference's callback,
of which drawing a figure has many.
"""

import contextlib
import io
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from cookbook.notebooks.exercises import exercises
from cookbook.notebooks.stamp import code_cells, tagged, tags
from tests.engine.processes import EngineProcess, checkpoint_folder

ROOT = Path(__file__).parents[2]
WAIT_S = 240.0
INTERRUPT = "import signal; signal.raise_signal(signal.SIGINT)"
KILL = "import psutil; psutil.Process().kill()"


def read_notebook(name: str) -> Any:
    """Return a committed notebook."""
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


class NotebookKernel:
    """A kernel that uses the tests' engine; `training` is the source of the training cell."""

    training: str

    def __init__(self, engine: EngineProcess) -> None:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error::FutureWarning",  # a deprecated form of an SDK call
            "TINKER_BASE_URL": engine.base_url,
            "TINKER_API_KEY": engine.api_key,
        }
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=env)

    def run(self, source: str) -> None:
        """Run a cell; an error in it is one here."""
        told = self.execute(source)
        assert told["status"] == "ok", f"{told['ename']}: {told['evalue']}"

    def execute(self, source: str) -> dict[str, Any]:
        """Run a cell and return how it ended."""
        # After an error the kernel would for a moment refuse the next cell too.
        request = self.client.execute(source, stop_on_error=False)
        while True:
            reply = self.client.get_shell_msg(timeout=WAIT_S)
            if reply["parent_header"]["msg_id"] == request:
                return reply["content"]

    def interrupted(self, source: str) -> None:
        """Run a cell that must end by an interrupt."""
        assert self.execute(source).get("ename") in ("KeyboardInterrupt", "Stopped")

    def interrupt_training(self, line: str, step: int) -> None:
        """Run the training cell, interrupted just before this line of it in this step."""
        self.interrupted(self.stopped(line, step, INTERRUPT))

    def kill_training(self, line: str, step: int) -> None:
        """Run the training cell in a kernel that is killed just before this line in this step."""
        try:
            self.client.execute(self.stopped(line, step, KILL))
            wait_until(lambda: not self.manager.is_alive())
        finally:
            self.close()

    def stopped(self, line: str, step: int, stop: str) -> str:
        """Return the source of the training cell with a stop before that line."""
        before, indent, after = re.split(rf"^( +)(?={re.escape(line)})", self.training, flags=re.M)
        return f"{before}{indent}if step == {step}:\n{indent}    {stop}\n{indent}{after}"

    def close(self) -> None:
        """End the kernel at once."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


class LoopKernel(NotebookKernel):
    """Runs all cells before the training cell, with small settings and a few words replaced."""

    def __init__(
        self,
        name: str,
        engine: EngineProcess,
        log_path: Path,
        settings: dict[str, Any],
        replaced: dict[str, str],
    ) -> None:
        super().__init__(engine)
        self.settings = {"model_name": str(engine.model), **settings}
        notebook = read_notebook(name)
        cells = code_cells(notebook)
        sources = {tag: cell.source for cell in cells for tag in tags(cell)}
        self.training = sources["live"]
        first = [cell.source for cell in cells[: cells.index(tagged(notebook, "live")[0])]]
        setup, defaults, self.config, *rest = first
        for old, new in replaced.items():
            assert sum(old in source for source in rest) == 1, f"{old!r} is not there once"
            rest = [source.replace(old, new) for source in rest]
        for source in (setup, defaults):
            self.run(source)
        self.open(log_path)
        for source in rest:
            self.run(source)

    def open(self, log_path: Path, **changed: Any) -> None:
        """Run the config cell with the small settings on a folder."""
        values = {**self.settings, "log_path": str(log_path), **changed}
        self.run(assignments(values))
        self.run(self.config)

    def assert_other_settings_refused(self, folder: Path, message: str) -> None:
        """Assert that a finished run's folder is refused with another rate, and left as it is."""
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(AssertionError, match=message):
            self.open(folder, learning_rate=0.5)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def assignments(values: dict[str, Any]) -> str:
    """Return the source of a cell that sets these names."""
    return "\n".join(f"{name} = {value!r}" for name, value in values.items())


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail if that takes too long."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the kernel lives on"
        time.sleep(0.01)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of a run's file without the seconds that differ from run to run."""
    path = folder / name
    text = path.read_text() if path.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def final_tensors(folder: Path, engine: EngineProcess) -> dict[str, bytes]:
    """Return the files of the run's last checkpoint, adapter and optimizer, by file name."""
    saved = checkpoint_folder(engine.data_dir, lines(folder, "checkpoints.jsonl")[-1]["state_path"])
    tensors = {path.name: path.read_bytes() for path in saved.glob("*.safetensors")}
    assert set(tensors) == {"adapter_model.safetensors", "optimizer.safetensors"}
    return tensors


def checked(notebook: Any, number: int, answer: str, *before: str) -> str:
    """Run an exercise's checker on an answer, after the cells `before`; return what it prints."""
    names: dict[str, Any] = {}
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        for source in (*before, answer, notebook.cells[exercises(notebook)[number].checker].source):
            exec(source, names)
    return told.getvalue()
