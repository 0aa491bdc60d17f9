"""Many requests at once: nothing is lost, nothing is mixed up, memory stays where it was."""

from pathlib import Path

import psutil
import pytest
import tinker
from tinker import types

from tests.engine.processes import start_engine
from tests.engine.sdk import datum, prompt

SAMPLES, STEPS = 2000, 40
PROMPTS = [[5 + i, 60 + 2 * i, 100 + 3 * i] for i in range(20)]
GREEDY = types.SamplingParams(max_tokens=3, temperature=0.0, stop=[])
GROWTH_BYTES = 300_000_000
SHAPES_BYTES = 60_000_000  # compiled programs for 80 lengths take 500 MB


def losses(run: tinker.TrainingClient, count: int) -> list[float]:
    """Submit all steps without waiting for any, then return their losses in order."""
    pending = []
    for i in range(count):
        row = datum([7, 8 + i % 5, 9, 10 + i])
        pending.append(run.forward_backward([row], "cross_entropy"))
        run.optim_step(types.AdamParams(learning_rate=0.01))
    return [future.result().metrics["loss:sum"] for future in pending]


@pytest.mark.timeout(300)
def test_two_thousand_samples_while_another_client_trains(tiny_model: Path, tmp_path: Path) -> None:
    engine = start_engine(tiny_model, tmp_path, "--embedded")
    try:
        address = {"base_url": engine.base_url, "api_key": engine.api_key}
        sampling, training = tinker.ServiceClient(**address), tinker.ServiceClient(**address)
        runs = [
            training.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()
            for _ in range(2)
        ]
        quiet = losses(runs[0], STEPS)
        sampler = sampling.create_sampling_client(base_model=str(tiny_model)).result()
        expected = [
            sampler.sample(prompt(*tokens), 1, GREEDY).result().sequences[0].tokens
            for tokens in PROMPTS
        ]
        before = psutil.Process(engine.process.pid).memory_info().rss

        waiting = [
            sampler.sample(prompt(*PROMPTS[i % len(PROMPTS)]), 1, GREEDY) for i in range(SAMPLES)
        ]
        assert losses(runs[1], STEPS) == quiet
        for i, future in enumerate(waiting):
            assert future.result().sequences[0].tokens == expected[i % len(PROMPTS)]
        assert psutil.Process(engine.process.pid).memory_info().rss - before < GROWTH_BYTES
    finally:
        engine.end()


def test_ever_new_shapes_leave_nothing_behind(tiny_model: Path, tmp_path: Path) -> None:
    engine = start_engine(tiny_model, tmp_path, "--embedded", "--dtype", "bfloat16")
    try:
        service = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
        run = service.create_lora_training_client(str(tiny_model), rank=2, seed=0).result()

        def step(length: int) -> int:
            """Train on a row of this length; return the engine's memory in bytes."""
            run.forward_backward([datum(list(range(length)))], "cross_entropy").result()
            run.optim_step(types.AdamParams(learning_rate=0.01)).result()
            return psutil.Process(engine.process.pid).memory_info().rss

        before = max(step(length) for length in range(3, 23))
        assert max(step(length) for length in range(23, 103)) - before < SHAPES_BYTES
    finally:
        engine.end()
