"""SIGKILL between and inside the stages: nothing is lost, and the reference stays the same."""

import json
import multiprocessing
import sys

import pytest

from cookbook.runlog import read_checkpoints, read_config, read_metrics
from tests.engine.processes import checkpoint_folder
from tests.preferences import pipeline_process
from tests.preferences.pipeline_process import STEPS, Pipeline

pytestmark = pytest.mark.slow

TIMEOUT_S = 120


@pytest.fixture(scope="module")
def processes():
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([pipeline_process.__name__])
    return context


def timeless(log_path):
    return [
        {name: value for name, value in line.items() if not name.startswith("time/")}
        for line in read_metrics(log_path)
    ]


def rollouts(log_path):
    """All rollouts of a run, file by file."""
    return {
        file.name: [json.loads(line) for line in file.open()]
        for file in sorted((log_path / "rollouts").glob("*.jsonl"))
    }


def asked(records):
    return [record["problem"] for record in records]


def said(records):
    return [record["turns"][0]["tokens"] for record in records]


def bits(result, engine):
    folder = checkpoint_folder(engine.data_dir, result.state_path)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


@pytest.fixture(scope="module")
def straight(small_service, small_engine, tmp_path_factory):
    pipeline = Pipeline(str(small_engine.model), tmp_path_factory.mktemp("straight"))
    return pipeline.run(small_service, lambda *_: None)


# Inside each stage, in its last step and its end, and so between two stages.
@pytest.mark.parametrize(
    ("stage", "step", "delay_s"),
    [
        ("sft", 2, 0.02),
        ("sft", 4, 0.05),
        ("rm", 1, 0.0),
        ("rm", 4, 0.1),
        ("rl", 0, 0.1),
        ("rl", 2, 0.05),
    ],
)
def test_killed_and_resumed_loses_nothing(
    small_service, small_engine, processes, straight, tmp_path, stage, step, delay_s
):
    pipeline = Pipeline(str(small_engine.model), tmp_path)
    server = {"TINKER_BASE_URL": small_engine.base_url, "TINKER_API_KEY": small_engine.api_key}
    arguments = (server, pipeline, stage, step, delay_s)
    process = processes.Process(target=pipeline_process.run, args=arguments)
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode == -9 or sys.platform == "win32"
    earlier = list(STEPS)[: list(STEPS).index(stage)]
    kept = {name: (tmp_path / name / "checkpoints.jsonl").read_bytes() for name in earlier}

    results = pipeline.run(small_service, lambda *_: None)
    for name in earlier:
        assert (tmp_path / name / "checkpoints.jsonl").read_bytes() == kept[name]
    for name in ("sft", "rm"):
        assert bits(results[name], small_engine) == bits(straight[name], small_engine)
        assert timeless(results[name].log_path) == timeless(straight[name].log_path)
    ends = {name: read_checkpoints(tmp_path / name)[-1] for name in STEPS}
    config = read_config(tmp_path / "rl")
    assert config["start_from"] == ends["sft"]["state_path"]
    assert config["kl_reference"] == ends["sft"]["sampler_path"]
    assert config["task"]["about"] == ends["rm"]["sampler_path"]
    # Requests of a rollout meet the engine in any order, which changes the last bits of the judge's
    # margins; a first step of Adam makes whole steps of them. So only the first samples are equal.
    now, then = rollouts(results["rl"].log_path), rollouts(straight["rl"].log_path)
    assert now.keys() == then.keys()
    assert all(asked(now[file]) == asked(then[file]) for file in now)
    assert said(now["train_000000.jsonl"]) == said(then["train_000000.jsonl"])
    metrics = timeless(results["rl"].log_path)
    assert [line["step"] for line in metrics] == list(range(STEPS["rl"] + 1))
    # The first step is sampled by the reference itself, on whatever run it is measured.
    assert metrics[0]["kl_policy_base"] == pytest.approx(0, abs=1e-3)
    assert ends["rl"]["step"] == STEPS["rl"]
