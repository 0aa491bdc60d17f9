"""SIGKILL and resume on the real engine: the run ends with the same bits as one left alone."""

import json
import multiprocessing
import random
import sys
import time
from dataclasses import replace

import pytest

from cookbook.runlog import read_checkpoints, read_metrics
from cookbook.supervised import Config, train
from tests import trainer_process

pytestmark = pytest.mark.slow

N_STEPS = 4
TIMEOUT_S = 60
# A step takes about this long on two cores, so the kill falls anywhere inside the next one.
STEP_S = 0.6


@pytest.fixture(scope="module")
def base_config(tmp_path_factory):
    """4 steps of 2 very short conversations, saved after every second one."""
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
        dataset=str(data),
        n_test=2,
        batch_size=2,
        num_epochs=2,
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
    run_id, segment, name = state_path.removeprefix("tinker://").split("/")
    folder = engine.data_dir / "runs" / run_id.replace(":", "_") / segment / name
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}
    assert {"adapter_model.safetensors", "optimizer.safetensors"} == set(files)
    return files


def timeless(result):
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(result.log_path)
    ]


@pytest.fixture(scope="module")
def straight(base_config, service, engine):
    result = train(base_config, service)
    assert result.n_steps == N_STEPS
    assert result.after["test/nll"] < result.before["test/nll"]
    final = bits(result.state_path, engine)
    earlier = bits(read_checkpoints(result.log_path)[0]["state_path"], engine)
    assert all(final[name] != earlier[name] for name in final)
    return final, timeless(result)


def kill_during(processes, engine, config, step, delay_s):
    """Start a run, and kill it `delay_s` after it has logged `step` (-1: after connecting)."""
    received, sent = processes.Pipe(duplex=False)
    server = {"TINKER_BASE_URL": engine.base_url, "TINKER_API_KEY": engine.api_key}
    process = processes.Process(target=trainer_process.run, args=(server, config, sent))
    process.start()
    sent.close()
    while received.poll(TIMEOUT_S) and received.recv() < step:
        pass
    time.sleep(delay_s)
    process.kill()
    process.join(TIMEOUT_S)
    assert process.exitcode == -9 or sys.platform == "win32"


_rng = random.Random(0)
POINTS = [
    (step, round(_rng.uniform(0, STEP_S), 3))
    for step in _rng.sample(sorted([*range(-1, N_STEPS - 1)] * 2), 5)
]


@pytest.mark.parametrize(("step", "delay_s"), POINTS)
def test_killed_and_resumed_ends_with_the_same_bits(
    base_config, service, engine, processes, straight, tmp_path, step, delay_s
):
    config = replace(base_config, log_path=str(tmp_path / "run"))
    kill_during(processes, engine, config, step, delay_s)
    assert not any(record.get("final") for record in read_checkpoints(config.log_path))
    result = train(config, service)
    assert timeless(result) == straight[1]
    assert bits(result.state_path, engine) == straight[0]
