"""A kernel that has run a notebook up to its training cell, to be interrupted and killed."""

import contextlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from cookbook.notebooks.exercises import exercises
from cookbook.notebooks.stamp import code_cells, tagged, tags

if TYPE_CHECKING:
    from tests.conftest import Engine

ROOT = Path(__file__).parents[2]
WAIT_S = 240.0


def read_notebook(name: str) -> Any:
    """Return a committed notebook."""
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


class NotebookKernel:
    """A kernel that uses the tests' engine; `training` is the source of the training cell."""

    training: str

    def __init__(self, engine: "Engine") -> None:
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
        told = self.wait(self.client.execute(source))
        assert told["status"] == "ok", f"{told['ename']}: {told['evalue']}"

    def wait(self, request: str) -> dict[str, Any]:
        """Return how the cell of that request ended."""
        while True:
            reply = self.client.get_shell_msg(timeout=WAIT_S)
            if reply["parent_header"]["msg_id"] == request:
                return reply["content"]

    def interrupt_training(self, when: Callable[[], bool]) -> dict[str, Any]:
        """Start the training cell, interrupt the kernel once `when` holds, return how it ended."""
        request = self.client.execute(self.training)
        wait_until(when)
        self.manager.interrupt_kernel()
        return self.wait(request)

    def kill_training(self, when: Callable[[], bool]) -> None:
        """Start the training cell and kill the kernel with SIGKILL once `when` holds."""
        try:
            self.client.execute(self.training)
            wait_until(when)
        finally:
            self.close()

    def close(self) -> None:
        """End the kernel at once."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


class LoopKernel(NotebookKernel):
    """Runs all cells before the training cell, with small settings and a few words replaced."""

    def __init__(
        self,
        name: str,
        engine: "Engine",
        log_path: Path,
        settings: dict[str, Any],
        replaced: dict[str, str],
    ) -> None:
        super().__init__(engine)
        self.settings = settings
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
        assert time.monotonic() < deadline, "the training cell did not get there"
        time.sleep(0.01)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of a run's file without the seconds that differ from run to run."""
    path = folder / name
    text = path.read_text() if path.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def logged(folder: Path, count: int) -> Callable[[], bool]:
    """Return the condition that a run has logged so many steps."""
    return lambda: len(lines(folder, "metrics.jsonl")) >= count


def final_tensors(folder: Path, engine: "Engine") -> dict[str, bytes]:
    """Return the files of the run's last checkpoint, adapter and optimizer, by file name."""
    last = lines(folder, "checkpoints.jsonl")[-1]
    run, *rest = last["state_path"].removeprefix("tinker://").split("/")
    saved = engine.data_dir.joinpath("runs", run.replace(":", "_"), *rest)
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
