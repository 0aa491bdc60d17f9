"""`sl_basic`: interrupted and run again it ends the same; its checkers name each mistake."""

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from cookbook.notebooks.exercises import exercises
from cookbook.notebooks.stamp import code_cells

if TYPE_CHECKING:
    from tests.conftest import Engine

ROOT = Path(__file__).parents[2]
NOTEBOOK: Any = nbformat.read(ROOT / "notebooks" / "sl_basic.ipynb", as_version=4)
TINY = {"max_steps": 6, "batch_size": 1, "lora_rank": 2, "n_test": 2}
WAIT_S = 120.0


def cell_with(text: str) -> str:
    """Return the source of the one code cell that contains ``text``."""
    (found,) = [cell.source for cell in code_cells(NOTEBOOK) if text in cell.source]
    return found


class Kernel:
    """A kernel that runs the notebook's cells up to training, but for pictures and baseline."""

    def __init__(self, engine: "Engine") -> None:
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error::FutureWarning",  # a deprecated form of an SDK call
            "TINKER_BASE_URL": engine.base_url,
            "TINKER_API_KEY": engine.api_key,
        }
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=env)
        self.training = cell_with("supervised.train(")
        self.run(cell_with("import tinker"))
        self.run(cell_with("learning_rate: float"))

    def open(self, log_path: Path) -> None:
        """Run the cells before training with tiny settings on a folder."""
        values = {**TINY, "log_path": str(log_path)}
        self.run("\n".join(f"{name} = {value!r}" for name, value in values.items()))
        for text in ("start.parameters(", "service = connect(", "FORM = "):
            self.run(cell_with(text))

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

    def close(self) -> None:
        """End the kernel at once."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of a run's file without the seconds that differ from run to run."""
    path = folder / name
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def final_weights(folder: Path, engine: "Engine") -> dict[str, bytes]:
    """Return the tensors of the run's last checkpoint, adapter and optimizer, by file name."""
    last = lines(folder, "checkpoints.jsonl")[-1]
    assert last["final"]
    run, *rest = last["state_path"].removeprefix("tinker://").split("/")
    saved = engine.data_dir.joinpath("runs", run.replace(":", "_"), *rest)
    return {path.name: path.read_bytes() for path in saved.glob("*.safetensors")}


@pytest.fixture
def kernel(engine: "Engine") -> Iterator[Kernel]:
    started = Kernel(engine)
    yield started
    started.close()


@pytest.mark.slow
def test_interrupted_cell_run_again_ends_the_same(
    kernel: Kernel, engine: "Engine", tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    kernel.open(whole)
    kernel.run(kernel.training)

    kernel.open(cut)
    request = kernel.client.execute(kernel.training)
    deadline = time.monotonic() + WAIT_S
    while len(lines(cut, "metrics.jsonl")) < 2:
        assert time.monotonic() < deadline, "the training cell did not get there"
        time.sleep(0.01)
    kernel.manager.interrupt_kernel()
    assert kernel.wait(request).get("ename") == "KeyboardInterrupt"
    assert 2 <= lines(cut, "checkpoints.jsonl")[-1]["step"] < TINY["max_steps"]
    kernel.run(kernel.training)

    logged = lines(cut, "metrics.jsonl")
    assert [line["step"] for line in logged] == [*range(TINY["max_steps"] + 1)]
    assert logged == lines(whole, "metrics.jsonl")
    weights = final_weights(cut, engine)
    assert set(weights) == {"adapter_model.safetensors", "optimizer.safetensors"}
    assert weights == final_weights(whole, engine)


BYTES = "import math\ndef bits_per_byte(loss_sum, text):\n return "
WARM = "def warm_up_then_fall(step, n_steps, n_warm):\n return "
OWN = """def to_messages(row):
 first = [{{"role": "system", "content": "You ..."}}] if {condition} else []
 names = {names}
 return first + [{{"role": names.get(w, w), "content": t}} for w, t in row["log"]{rest}]"""
ROLES = "{'customer': 'user', 'agent': 'assistant'}"
NO_BOT = " if w != 'bot'"
ANSWERS = [
    (0, BYTES + "NotImplemented", "not attempted yet"),
    (0, BYTES + "loss_sum / math.log(2) / len(text.encode())", "Correct"),
    (0, BYTES + "loss_sum / len(text.encode())", "divide by ln 2"),
    (0, BYTES + "loss_sum / math.log(2) / len(text)", "count the bytes"),
    (0, BYTES + "loss_sum * math.log(2) / len(text.encode())", "instead of multiplying"),
    (0, BYTES + "loss_sum / math.log(2)", "divide by its bytes"),
    (0, BYTES + "7.0", "expected 0.7692"),
    (0, BYTES + "None", "got None"),
    (1, WARM + "NotImplemented", "not attempted yet"),
    (1, WARM + "(step + 1) / 4 if step < 4 else (10 - step) / 6", "Correct"),
    (1, WARM + "step / 4 if step < 4 else (10 - step) / 6", "step 0 has rate 0"),
    (1, WARM + "(step + 1) / 4 if step < 4 else (9 - step) / 6", "last step has rate 0"),
    (1, WARM + "(step + 1) / 4 if step < 4 else 1 - step / 10", "start at 1"),
    (1, WARM + "1.0", "step 0 has 1.000, expected 0.250"),
    (1, WARM + "None", "not all factors are numbers"),
    (2, "def to_messages(row):\n return NotImplemented", "not attempted yet"),
    (2, OWN.format(condition="row['product']", names=ROLES, rest=NO_BOT), "Correct"),
    (2, OWN.format(condition="row['product']", names={}, rest=NO_BOT), "not 'customer'"),
    (2, OWN.format(condition="row['product']", names=ROLES, rest=""), "leave the bot's"),
    (2, OWN.format(condition="True", names=ROLES, rest=NO_BOT), "no product"),
    (2, OWN.format(condition="False", names=ROLES, rest=NO_BOT), "roles are"),
]


@pytest.mark.parametrize(("number", "answer", "verdict"), ANSWERS)
def test_checker_names_each_mistake(number: int, answer: str, verdict: str) -> None:
    exercise = exercises(NOTEBOOK)[number]
    sources = [NOTEBOOK.cells[i].source for i in (exercise.stub, exercise.checker)]
    names: dict[str, Any] = {}
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(cell_with("import tinker"), names)
        exec(f"{sources[0]}\n{answer}\n{sources[1]}", names)
    assert verdict in told.getvalue()
    assert told.getvalue().startswith("Correct") == (verdict == "Correct")
