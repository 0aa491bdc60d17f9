"""`sl_basic`: interrupted and run again it ends the same; its checkers name each mistake."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cookbook.notebooks.exercises import exercises
from cookbook.notebooks.stamp import code_cells
from tests.engine.processes import EngineProcess
from tests.notebooks.loop_kernel import (
    NotebookKernel,
    assignments,
    checked,
    final_tensors,
    lines,
    read_notebook,
)

NOTEBOOK = read_notebook("sl_basic")
TINY = {"max_steps": 6, "batch_size": 1, "lora_rank": 2, "n_test": 2}


def cell_with(text: str) -> str:
    """Return the source of the one code cell that contains ``text``."""
    (found,) = [cell.source for cell in code_cells(NOTEBOOK) if text in cell.source]
    return found


class Kernel(NotebookKernel):
    """Runs the cells up to training, but for pictures and baseline."""

    def __init__(self, engine: EngineProcess) -> None:
        super().__init__(engine)
        self.model_name = str(engine.model)
        self.training = cell_with("supervised.train(")
        self.run(cell_with("import tinker"))
        self.run(cell_with("learning_rate: float"))

    def open(self, log_path: Path) -> None:
        """Run the cells before training with tiny settings on a folder."""
        self.run(assignments({**TINY, "model_name": self.model_name, "log_path": str(log_path)}))
        for text in ("start.parameters(", "service = connect(", "FORM = "):
            self.run(cell_with(text))


@pytest.fixture
def kernel(small_engine: EngineProcess) -> Iterator[Kernel]:
    started = Kernel(small_engine)
    yield started
    started.close()


@pytest.mark.slow
def test_interrupted_cell_run_again_ends_the_same(
    kernel: Kernel, small_engine: EngineProcess, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    kernel.open(whole)
    kernel.run(kernel.training)

    kernel.open(cut)
    shown = "live.update(draw_run)"
    stopped = f"{shown} or metrics['step'] == 2 and signal.raise_signal(signal.SIGINT)"
    kernel.run("import signal")
    kernel.interrupted(kernel.training.replace(shown, stopped))
    assert 2 <= lines(cut, "checkpoints.jsonl")[-1]["step"] < TINY["max_steps"]
    kernel.run(kernel.training)

    steps = lines(cut, "metrics.jsonl")
    assert [line["step"] for line in steps] == [*range(TINY["max_steps"] + 1)]
    assert steps == lines(whole, "metrics.jsonl")
    assert lines(cut, "checkpoints.jsonl")[-1]["final"]
    assert final_tensors(cut, small_engine) == final_tensors(whole, small_engine)


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
    stub = NOTEBOOK.cells[exercises(NOTEBOOK)[number].stub].source
    told = checked(NOTEBOOK, number, answer, cell_with("import tinker"), stub)
    assert verdict in told
    assert told.startswith("Correct") == (verdict == "Correct")
