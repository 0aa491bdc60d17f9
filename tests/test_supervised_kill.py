"""SIGKILL and resume on an engine process: the run ends with the same bits as one left alone."""

import json
import multiprocessing
import random
import statistics
import sys
from dataclasses import replace

import pytest

from cookbook.runlog import read_checkpoints, read_metrics
from cookbook.supervised import Config, train
from tests import trainer_process
from tests.engine.processes import checkpoint_folder

pytestmark = pytest.mark.slow

N_STEPS = 12
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def base_config(tmp_path_factory, small_engine):
    """12 steps of 2 very short conversations, saved after every second one."""
    folder = tmp_path_factory.mktemp("kill")
    rows = [
        [
            {"role": "system", "content": "s"},
            {"role": "user", "content": f"{i}?"},
            {"role": "assistant", "content": f"It is {i * i}."},
        ]
        for i in range(6)
    ]
    data = folder / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    return Config(
        model_name=str(small_engine.model),
        dataset=str(data),
        n_test=2,
        batch_size=2,
        num_epochs=6,
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


def bits(state_path, engine):
    """Return the bytes of every tensor file of a checkpoint, optimiser state included."""
    folder = checkpoint_folder(engine.data_dir, state_path)
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
    assert {"adapter_model.safetensors", "optimizer.safetensors"} == set(files)
    return files


def timeless(result):
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(result.log_path)
    ]


@pytest.fixture(scope="module")
def straight(base_config, small_service, small_engine):
    result = train(base_config, small_service)
    assert result.n_steps == N_STEPS
    assert result.after["test/nll"] < result.before["test/nll"]
    final = bits(result.state_path, small_engine)
    earlier = bits(read_checkpoints(result.log_path)[0]["state_path"], small_engine)
    assert all(final[name] != earlier[name] for name in final)
    return final, timeless(result), result.log_path


@pytest.fixture(scope="module")
def step_s(straight):
    """Seconds that a step takes."""
    log_path = straight[2]
    return statistics.median(
        row["time/total"] for row in read_metrics(log_path) if "time/total" in row
    )


def run_killed(processes, engine, config, step, delay_s):
    """Run until the process is killed `delay_s` after it has logged `step` (-1: has connected)."""
    server = {"TINKER_BASE_URL": engine.base_url, "TINKER_API_KEY": engine.api_key}
    process = processes.Process(target=trainer_process.run, args=(server, config, step, delay_s))
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == -9 or sys.platform == "win32"


# Anywhere inside the step after that one, and long before the end.
_rng = random.Random(0)
POINTS = [
    (step, round(_rng.random(), 2)) for step in sorted(_rng.sample(range(-1, N_STEPS - 3), 5))
]


@pytest.mark.parametrize(("step", "part"), POINTS)
def test_killed_and_resumed_ends_with_the_same_bits(
    base_config, small_service, small_engine, processes, straight, step_s, tmp_path, step, part
):
    config = replace(base_config, log_path=str(tmp_path / "run"))
    run_killed(processes, small_engine, config, step, part * step_s)
    assert not any(record.get("final") for record in read_checkpoints(config.log_path))
    result = train(config, small_service)
    assert timeless(result) == straight[1]
    assert bits(result.state_path, small_engine) == straight[0]
