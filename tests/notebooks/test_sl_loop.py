"""`sl_loop`: stopped anywhere and run again, it ends as if it had never been stopped."""

import contextlib
import io
import json
import os
import time
from collections.abc import Callable, Iterator
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
NOTEBOOK: Any = nbformat.read(ROOT / "notebooks" / "sl_loop.ipynb", as_version=4)
TINY = {"max_steps": 5, "save_every": 2, "batch_size": 1, "lora_rank": 2, "n_test": 4}
WAIT_S = 120.0
KILLED_AFTER = 3  # logged steps; the last checkpoint is one step older


class Kernel:
    """A kernel that has run `sl_loop` up to the training cell, tiny and without the baseline."""

    def __init__(self, engine: "Engine", log_path: Path) -> None:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error::FutureWarning",  # a deprecated form of an SDK call
            "TINKER_BASE_URL": engine.base_url,
            "TINKER_API_KEY": engine.api_key,
        }
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=env)
        cells = code_cells(NOTEBOOK)
        sources = {tag: cell.source for cell in cells for tag in tags(cell)}
        self.training = sources["live"]
        first = [cell.source for cell in cells[: cells.index(tagged(NOTEBOOK, "live")[0])]]
        self.setup, self.defaults, self.config, *rest, measure = first
        assert "evaluate(base)" in measure
        for source in (self.setup, self.defaults):
            self.run(source)
        self.open(log_path)
        for source in (*rest, measure.replace("evaluate(base)", "(None, None, None)")):
            self.run(source)

    def open(self, log_path: Path, **changed: Any) -> None:
        """Run the config cell with tiny settings on a folder."""
        values = {**TINY, "log_path": str(log_path), **changed}
        self.run("\n".join(f"{name} = {value!r}" for name, value in values.items()))
        self.run(self.config)

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

    def close(self) -> None:
        """End the kernel at once."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def wait_until(condition: Callable[[], bool]) -> None:
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
    return lambda: len(lines(folder, "metrics.jsonl")) >= count


def final_state(folder: Path, engine: "Engine") -> dict[str, bytes]:
    """Return the tensors of the run's last checkpoint, adapter and optimizer, by file name."""
    last = lines(folder, "checkpoints.jsonl")[-1]
    assert last["step"] == TINY["max_steps"]
    run, *rest = last["state_path"].removeprefix("tinker://").split("/")
    saved = engine.data_dir.joinpath("runs", run.replace(":", "_"), *rest)
    return {path.name: path.read_bytes() for path in saved.glob("*.safetensors")}


def same_run(folder: Path, reference: Path, engine: "Engine") -> None:
    """Assert that two runs logged the same numbers and saved the same final tensors."""
    assert lines(folder, "metrics.jsonl") == lines(reference, "metrics.jsonl")
    steps = [line["step"] for line in lines(folder, "checkpoints.jsonl")]
    assert steps == [2, 4, 5]
    state = final_state(folder, engine)
    assert set(state) == {"adapter_model.safetensors", "optimizer.safetensors"}
    assert state == final_state(reference, engine)


@pytest.fixture(scope="module")
def kernel(engine: "Engine", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for all tests of this file."""
    started = Kernel(engine, tmp_path_factory.mktemp("runs") / "reference")
    yield started
    started.close()


@pytest.fixture(scope="module")
def reference(kernel: Kernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("reference")
    kernel.open(folder)
    kernel.run(kernel.training)
    assert [line["step"] for line in lines(folder, "metrics.jsonl")] == [0, 1, 2, 3, 4]
    return folder


@pytest.mark.slow
def test_interrupted_cell_run_again_ends_the_same(
    kernel: Kernel, reference: Path, engine: "Engine", tmp_path: Path
) -> None:
    kernel.open(tmp_path)
    for count in (1, KILLED_AFTER):  # before the first checkpoint, and a step after one
        told = kernel.interrupt_training(logged(tmp_path, count))
        assert told.get("ename") == "KeyboardInterrupt"
    assert lines(tmp_path, "checkpoints.jsonl")[-1]["step"] < TINY["max_steps"]
    kernel.run(kernel.training)
    same_run(tmp_path, reference, engine)
    kernel.run(kernel.training)  # a finished run stays as it is
    same_run(tmp_path, reference, engine)


@pytest.mark.slow
def test_killed_kernel_and_a_new_session_end_the_same(
    kernel: Kernel, reference: Path, engine: "Engine", tmp_path: Path
) -> None:
    doomed = Kernel(engine, tmp_path)
    try:
        doomed.client.execute(doomed.training)
        wait_until(logged(tmp_path, KILLED_AFTER))
    finally:
        doomed.close()
    assert lines(tmp_path, "checkpoints.jsonl")[-1]["step"] < TINY["max_steps"]
    kernel.open(tmp_path)
    kernel.run(kernel.training)
    same_run(tmp_path, reference, engine)


@pytest.mark.slow
def test_folder_of_a_run_with_other_settings_is_refused(kernel: Kernel, reference: Path) -> None:
    before = {path.name: path.read_bytes() for path in reference.iterdir()}
    with pytest.raises(AssertionError, match=r'holds another run.*"learning_rate": 0\.00\d'):
        kernel.open(reference, learning_rate=0.5)
    assert {path.name: path.read_bytes() for path in reference.iterdir()} == before


ANSWERS = {
    "-sum(w * p for q, v in rows for p, w in zip(q, v)) / 4": "Correct",
    "-sum(sum(w * p for p, w in zip(q, v)) / sum(v) for q, v in rows) / 2": "a mean of two means",
    "sum(w * p for q, v in rows for p, w in zip(q, v)) / 4": "an NLL is positive",
    "-sum(w * p for q, v in rows for p, w in zip(q, v))": "a sum, not a mean",
    "-sum(w * p for q, v in rows for p, w in zip(q, v)) / 6": "divide by the trained tokens",
    "-sum(p for q, v in rows for p in q) / 6": "weight 0",
    "None": "Not yet: got None",
    "NotImplemented": "not attempted yet",
}


@pytest.mark.parametrize(("answer", "verdict"), ANSWERS.items())
def test_checker_names_each_mistake(answer: str, verdict: str) -> None:
    checker = NOTEBOOK.cells[exercises(NOTEBOOK)[0].checker].source
    stub = "def nll_per_token(logprobs, weights):\n rows = [*zip(logprobs, weights)]\n"
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(f"{stub} return {answer}\n{checker}", {})
    assert verdict in told.getvalue()
    assert told.getvalue().startswith("Correct") == (verdict == "Correct")
