"""SIGKILL and resume on an engine process: the same reference, and in the end the same bits."""

import json
import multiprocessing
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cookbook.preferences import Config, train
from cookbook.preferences.reference import FILE
from cookbook.runlog import read_checkpoints, read_metrics
from tests import trainer_process
from tests.engine.processes import checkpoint_folder

pytestmark = pytest.mark.slow

N_STEPS = 8
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def base_config(tmp_path_factory, small_engine):
    """8 steps of 2 very short pairs, saved after every second one."""
    folder = tmp_path_factory.mktemp("kill")
    rows = [{"prompt": f"{i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(6)]
    data = folder / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    return Config(
        model_name=str(small_engine.model),
        dataset=str(data),
        n_test=2,
        batch_size=2,
        num_epochs=4,
        lora_rank=4,
        learning_rate=1e-2,
        eval_every=3,
        save_every=2,
        log_path=str(folder / "straight"),
    )


@pytest.fixture(scope="module")
def processes():
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([trainer_process.__name__])
    return context


def outcome(result, engine):
    """Return final weights, optimiser state, metrics and reference, to the bit."""
    folder = checkpoint_folder(engine.data_dir, result.state_path)
    bits = {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
    metrics = [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(result.log_path)
    ]
    return bits, metrics, (result.log_path / FILE).read_bytes()


@pytest.fixture(scope="module")
def straight(base_config, small_service, small_engine):
    result = train(base_config, small_service)
    assert result.n_steps == N_STEPS
    assert result.after["test/margin"] > result.before["test/margin"] == 0
    return outcome(result, small_engine)


# While the reference is computed, within the first steps, and between later checkpoints.
@pytest.mark.parametrize(("step", "part"), [(-1, 0.2), (-1, 1.0), (1, 0.5), (4, 0.3)])
def test_killed_and_resumed_is_the_same_run(
    base_config, small_service, small_engine, processes, straight, tmp_path, step, part
):
    step_s = statistics.median(
        row["time/total"] for row in read_metrics(base_config.log_path) if "time/total" in row
    )
    config = replace(base_config, log_path=str(tmp_path / "run"))
    server = {"TINKER_BASE_URL": small_engine.base_url, "TINKER_API_KEY": small_engine.api_key}
    process = processes.Process(
        target=trainer_process.run, args=(server, config, step, part * step_s)
    )
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == -9 or sys.platform == "win32"
    assert not any(record.get("final") for record in read_checkpoints(config.log_path))
    reference = Path(config.log_path) / FILE
    kept = reference.read_bytes() if step >= 0 else b""
    bits, metrics, computed = outcome(train(config, small_service), small_engine)
    assert computed.startswith(kept)
    assert metrics == straight[1]
    assert bits == straight[0]
    assert sorted(computed.splitlines()) == sorted(straight[2].splitlines())
