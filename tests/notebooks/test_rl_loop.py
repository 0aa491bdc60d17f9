"""`rl_loop`: stopped anywhere and run again, it samples, rewards and trains every step once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.processes import EngineProcess
from tests.notebooks.loop_kernel import LoopKernel, checked, lines, read_notebook

NOTEBOOK = read_notebook("rl_loop")
TINY = {"max_steps": 5, "save_every": 2, "prompts_per_step": 2, "group_size": 4, "max_tokens": 3}
TINY |= {"lora_rank": 2, "learning_rate": 1e-2}
# Three tokens are too few for a right answer, so rewards come from the tokens' own numbers, a rule
# that is not learned in five steps: the steps have groups to train on, and the weights that come of
# it decide what the next step samples.
REPLACED = {
    "held_out, train_set = questions[:16], questions[16:]": (
        "held_out, train_set = questions[:2], questions[2:]"
    ),
    "right = numbers[-1:] == [str(sum(question))]": (
        "right = (sum(answer.tokens) + question[0]) % 2"
    ),
    'float(right and answer.stop_reason == "stop")': "float(right)",
}
IN_FLIGHT = "outputs = zip("  # lines of the training cell
LOGGED = "if (step + 1) % save_every"


def new_kernel(engine: EngineProcess, log_path: Path) -> LoopKernel:
    """Return a kernel ready to train."""
    return LoopKernel("rl_loop", engine, log_path, TINY, REPLACED)


def same_run(folder: Path, reference: Path) -> None:
    """Assert that two runs took the same steps: same samples, same rewards, nothing twice."""
    ours, theirs = lines(folder, "metrics.jsonl"), lines(reference, "metrics.jsonl")
    assert [row["step"] for row in ours] == [0, 1, 2, 3, 4]
    rewards = [[row["env/all/reward/total"] for row in run] for run in (ours, theirs)]
    assert rewards[0] == rewards[1]
    for mine, other in zip(ours, theirs, strict=True):
        # Requests that join a decoding batch in another order round differently.
        assert mine["kl_sample_train_v1"] == pytest.approx(other["kl_sample_train_v1"], abs=1e-4)
    assert [line["step"] for line in lines(folder, "checkpoints.jsonl")] == [2, 4, 5]


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
    rows = lines(folder, "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    mixed = [0 < row["env/all/reward/total"] < 1 for row in rows]
    assert sum(mixed) >= 4, "steps that teach nothing"
    return folder


@pytest.mark.slow
def test_interrupted_cell_run_again_ends_the_same(
    kernel: LoopKernel, reference: Path, tmp_path: Path
) -> None:
    kernel.open(tmp_path)
    for line, step in ((LOGGED, 0), (IN_FLIGHT, 2), (LOGGED, 2)):
        kernel.interrupt_training(line, step)
        assert len(lines(tmp_path, "metrics.jsonl")) == step + (line == LOGGED)
    assert lines(tmp_path, "checkpoints.jsonl")[-1]["step"] == 2
    kernel.run(kernel.training)
    same_run(tmp_path, reference)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2], ids=["before a checkpoint", "a step after one"])
def test_killed_kernel_and_a_new_session_end_the_same(
    kernel: LoopKernel, reference: Path, small_engine: EngineProcess, tmp_path: Path, step: int
) -> None:
    new_kernel(small_engine, tmp_path).kill_training(LOGGED, step)
    assert len(lines(tmp_path, "metrics.jsonl")) == step + 1
    assert [row["step"] for row in lines(tmp_path, "checkpoints.jsonl")] == [2][: step // 2]
    kernel.open(tmp_path)
    kernel.run(kernel.training)
    same_run(tmp_path, reference)


@pytest.mark.slow
def test_folder_of_a_run_with_other_settings_is_refused(
    kernel: LoopKernel, reference: Path
) -> None:
    kernel.assert_other_settings_refused(reference, r"holds a run with .*'learning_rate': 0\.01")


ANSWERS = {
    "1 - p**G - (1 - p) ** G": "Correct",
    "1 - (1 - p) ** G": "all answers are right",
    "1 - p**G": "all answers are wrong",
    "0.5": "Not yet: 0.5",
    "NotImplemented": "not attempted yet",
}


@pytest.mark.parametrize(("answer", "verdict"), ANSWERS.items())
def test_checker_names_each_mistake(answer: str, verdict: str) -> None:
    told = checked(NOTEBOOK, 0, f"def share_that_teaches(p, G):\n return {answer}")
    assert verdict in told
    assert told.startswith("Correct") == (verdict == "Correct")
