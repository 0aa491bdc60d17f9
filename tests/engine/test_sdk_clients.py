"""Clients that wait, give up, go silent or are killed, and what the engine keeps of them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinker
from tinker import types

from tests.engine.processes import EngineProcess, RawRun, result, start_engine
from tests.engine.sdk import assert_identical, client_of, datum, prompt, step, tensors

HERE = Path(__file__).parent
ROW, OTHER_ROW = [5, 6, 7, 8, 9], [40, 30, 20]


@pytest.fixture(scope="module")
def hasty(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine that holds polls, keeps results and waits for silent clients for seconds only."""
    folder, program = tmp_path_factory.mktemp("hasty"), [str(HERE / "hasty_engine.py")]
    engine = start_engine(tiny_model, folder, "--embedded", program=program)
    yield engine
    engine.end()


def new_run(service: tinker.ServiceClient, engine: EngineProcess) -> tinker.TrainingClient:
    return service.create_lora_training_client(str(engine.model), rank=2, seed=0).result()


def test_two_engines_train_and_draw_the_same_from_the_same_seeds(tiny_engine, hasty):
    def work(engine: EngineProcess) -> tuple[Any, dict[str, np.ndarray]]:
        with client_of(engine) as service:
            run = new_run(service, engine)
            losses = [step(run, ROW, OTHER_ROW) for _ in range(3)]
            sampler = run.save_weights_and_get_sampling_client().result()
            params = types.SamplingParams(max_tokens=20, seed=7, stop=[])
            drawn = [sampler.sample(prompt(*row), 4, params).result() for row in (ROW, OTHER_ROW)]
            told = [(one.tokens, one.logprobs) for answer in drawn for one in answer.sequences]
            return (losses, told), tensors(run, engine.data_dir)

    ours, weights = work(tiny_engine)
    theirs, other_weights = work(hasty)
    assert ours == theirs
    assert_identical(weights, other_weights)


def test_a_result_that_takes_many_polls_arrives(hasty, monkeypatch):
    """Polls are answered after 0.3 s here; the SDK is told the state of the queue and asks on."""
    states = []

    def record(client: Any, state: Any, reason: str | None) -> None:
        states.append(state.value)

    monkeypatch.setattr(tinker.SamplingClient, "on_queue_state_change", record)
    with client_of(hasty) as service:
        run = new_run(service, hasty)
        sampler = service.create_sampling_client(base_model=str(hasty.model)).result()
        rows = [datum([(i * 7 + j) % 500 for j in range(120)]) for i in range(1000)]
        loss = run.forward_backward(rows, "cross_entropy")
        params = types.SamplingParams(max_tokens=100, stop=[])
        answer = sampler.sample(prompt(*ROW), 1000, params).result()
        assert [len(one.tokens) for one in answer.sequences] == [100] * 1000
        assert loss.result().metrics["num_tokens:sum"] == 119_000
    assert set(states) == {"active"}


def test_a_training_result_that_nobody_waits_for_counts_all_the_same(hasty):
    with client_of(hasty) as service:
        waited, cancelled = new_run(service, hasty), new_run(service, hasty)
        waited.forward_backward([datum(ROW)], "cross_entropy").result()
        pending = cancelled.forward_backward([datum(ROW)], "cross_entropy")
        time.sleep(0.5)  # a request that has not left is not sent any more
        pending.future().cancel()
        nothing = types.AdamParams(learning_rate=0.0)
        norms = [run.optim_step(nothing).result().metrics for run in (waited, cancelled)]
        assert norms[0] == norms[1] != {"unclipped_grad_l2:mean": 0.0}


def test_a_fetched_result_is_kept_for_a_while_and_then_released(hasty):
    with hasty.http() as http:
        run = RawRun(http, str(hasty.model))
        fetched, unfetched = run.forward_backward(1, ROW), run.forward_backward(2, ROW)
        ask = {"json": {"request_id": fetched["request_id"]}}
        result(http, fetched)
        assert http.post("retrieve_future", **ask).status_code == 200
        deadline, number = time.monotonic() + 30, 3
        while http.post("retrieve_future", **ask).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(1.0)
            result(http, run.forward_backward(number, ROW))
            number += 1
        assert http.post("retrieve_future", **ask).status_code == 404
        assert result(http, unfetched).metrics["loss:sum"] > 0


def test_a_killed_client_disturbs_nobody_and_is_cleared_away(hasty):
    with client_of(hasty) as service, hasty.http() as http:
        run = new_run(service, hasty)
        expected = [step(run, ROW) for _ in range(3)]
        arguments = [hasty.base_url, hasty.api_key, str(hasty.model)]
        lost = subprocess.Popen(
            [sys.executable, str(HERE / "lost_client.py"), *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        with lost:
            assert lost.stdout
            lost_run = {"json": {"model_id": lost.stdout.readline().strip()}}
            lost.kill()
        other = new_run(service, hasty)
        assert [step(other, ROW) for _ in range(3)] == expected
        sampler = other.save_weights_and_get_sampling_client().result()
        params = types.SamplingParams(max_tokens=5, stop=[])
        assert len(sampler.sample(prompt(*ROW), 1, params).result().sequences[0].tokens) == 5

        deadline = time.monotonic() + 120
        while http.post("get_info", **lost_run).status_code == 200:
            assert time.monotonic() < deadline, "the run of the killed client is still there"
            time.sleep(0.5)
        assert "closed or silent" in http.post("get_info", **lost_run).json()["detail"]
        assert step(other, ROW) < expected[-1]  # a client with a heartbeat keeps its runs
        assert sampler.compute_logprobs(prompt(*ROW)).result()
