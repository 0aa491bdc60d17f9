"""`sl_loop`: stopped anywhere and run again, it ends as if it had never been stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.processes import EngineProcess
from tests.notebooks.loop_kernel import LoopKernel, checked, final_tensors, lines, read_notebook

NOTEBOOK = read_notebook("sl_loop")
TINY = {"max_steps": 5, "save_every": 2, "batch_size": 1, "lora_rank": 2, "n_test": 4}
IN_FLIGHT, LOGGED = "update.result()", "curve = ["  # lines of the training cell


def new_kernel(engine: EngineProcess, log_path: Path) -> LoopKernel:
    """Return a kernel ready to train, tiny and without the baseline."""
    return LoopKernel("sl_loop", engine, log_path, TINY, {"evaluate(base)": "(None, None, None)"})


def same_run(folder: Path, reference: Path, engine: EngineProcess) -> None:
    """Assert that two runs logged the same numbers and saved the same final tensors."""
    assert lines(folder, "metrics.jsonl") == lines(reference, "metrics.jsonl")
    steps = [line["step"] for line in lines(folder, "checkpoints.jsonl")]
    assert steps == [2, 4, 5]
    assert final_tensors(folder, engine) == final_tensors(reference, engine)


@pytest.fixture(scope="module")
def kernel(
    small_engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LoopKernel]:
    """One kernel for all tests of this file."""
    started = new_kernel(small_engine, tmp_path_factory.mktemp("runs") / "reference")
    yield started
    started.close()


@pytest.fixture(scope="module")
def reference(kernel: LoopKernel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing stopped."""
    folder = tmp_path_factory.mktemp("reference")
    kernel.open(folder)
    kernel.run(kernel.training)
    assert [line["step"] for line in lines(folder, "metrics.jsonl")] == [0, 1, 2, 3, 4]
    return folder


@pytest.mark.slow
def test_interrupted_cell_run_again_ends_the_same(
    kernel: LoopKernel, reference: Path, small_engine: EngineProcess, tmp_path: Path
) -> None:
    kernel.open(tmp_path)
    # Before the first checkpoint, in the step after one, and after a step that the next repeats.
    for line, step in ((LOGGED, 0), (IN_FLIGHT, 2), (LOGGED, 2)):
        kernel.interrupt_training(line, step)
        assert len(lines(tmp_path, "metrics.jsonl")) == step + (line == LOGGED)
    assert lines(tmp_path, "checkpoints.jsonl")[-1]["step"] == 2
    kernel.run(kernel.training)
    same_run(tmp_path, reference, small_engine)
    kernel.run(kernel.training)  # a finished run stays as it is
    same_run(tmp_path, reference, small_engine)


@pytest.mark.slow
def test_killed_kernel_and_a_new_session_end_the_same(
    kernel: LoopKernel, reference: Path, small_engine: EngineProcess, tmp_path: Path
) -> None:
    new_kernel(small_engine, tmp_path).kill_training(LOGGED, 2)
    assert [row["step"] for row in lines(tmp_path, "metrics.jsonl")] == [0, 1, 2]
    assert lines(tmp_path, "checkpoints.jsonl")[-1]["step"] == 2
    kernel.open(tmp_path)
    kernel.run(kernel.training)
    same_run(tmp_path, reference, small_engine)


@pytest.mark.slow
def test_folder_of_a_run_with_other_settings_is_refused(
    kernel: LoopKernel, reference: Path
) -> None:
    kernel.assert_other_settings_refused(reference, r'holds another run.*"learning_rate": 0\.00\d')


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
    stub = "def nll_per_token(logprobs, weights):\n rows = [*zip(logprobs, weights)]\n"
    told = checked(NOTEBOOK, 0, f"{stub} return {answer}")
    assert verdict in told
    assert told.startswith("Correct") == (verdict == "Correct")
