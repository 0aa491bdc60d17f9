"""The engine, as any program uses it: through the SDK, over HTTP."""

import subprocess
import sys
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import tinker
from tinker import types

from benchmarks.workloads import Rows, Sampling
from cookbook.service import connect

RANK = 16
ADAM = types.AdamParams(learning_rate=1e-4)
FIRST_RESULT = """
import sys, time
import tinker
from tinker import types
from cookbook.service import connect
start = time.perf_counter()
service = connect()
run = service.create_lora_training_client(sys.argv[1], rank=16, seed=0).result()
row = types.Datum(model_input=types.ModelInput.from_ints([504, 1296, 3003]),
                  loss_fn_inputs={"target_tokens": [1296, 3003, 14797]})
run.forward_backward([row], "cross_entropy").result()
print(time.perf_counter() - start)
"""


class Engine:
    """One training client and one sampler with an adapter of its own."""

    def __init__(self, model_name: str) -> None:
        self.service = connect()
        self.run = self.service.create_lora_training_client(model_name, rank=RANK, seed=0).result()
        self.train(Rows([[30, 40, 50, 60]], [[1.0, 1.0, 1.0]]))
        self.sampler = self.run.save_weights_and_get_sampling_client().result()

    def sample(self, job: Sampling) -> None:
        """Draw all samples; every request is in flight at once."""
        waiting = submit(self.sampler, job)
        for future in waiting:
            sequences = future.result().sequences
            assert [len(s.tokens) for s in sequences] == [job.new_tokens] * job.copies

    def train(self, rows: Rows) -> None:
        """One step of cross-entropy."""
        data = [
            datum(tokens, weights=weights)
            for tokens, weights in zip(rows.tokens, rows.weights, strict=True)
        ]
        _wait(self.run.forward_backward(data, "cross_entropy"), self.run.optim_step(ADAM))

    def reinforce(self, job: Sampling) -> None:
        """One step of reinforcement learning: sample, then train on what was sampled."""
        waiting = submit(self.sampler, job)
        data = []
        for prompt, future in zip(job.prompts, waiting, strict=True):
            for i, sequence in enumerate(future.result().sequences):
                zeros = [0.0] * (len(prompt) - 1)
                advantage = 1.0 if i % 2 else -1.0
                data.append(
                    datum(
                        prompt + list(sequence.tokens),
                        logprobs=zeros + list(sequence.logprobs or []),
                        advantages=zeros + [advantage] * job.new_tokens,
                    )
                )
        _wait(self.run.forward_backward(data, "importance_sampling"), self.run.optim_step(ADAM))


def submit(sampler: tinker.SamplingClient, job: Sampling) -> list[Any]:
    """Return the futures of a job's requests, one a prompt."""
    settings = types.SamplingParams(max_tokens=job.new_tokens, stop=[])
    return [
        sampler.sample(types.ModelInput.from_ints(prompt), job.copies, settings)
        for prompt in job.prompts
    ]


def seconds_to_first_result(model_name: str) -> float:
    """Time from `connect()` to the first training result in a new process, model cached."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_RESULT, model_name],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return float(done.stdout.split()[-1])


def datum(tokens: list[int], **inputs: list[float]) -> types.Datum:
    """Return a row of tokens in which each predicts the next."""
    arrays: dict[str, Any] = {
        name: np.asarray(values, np.float32) for name, values in inputs.items()
    }
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": np.asarray(tokens[1:], np.int64), **arrays},
    )


def _wait(*futures: tinker.APIFuture[Any] | Future[Any]) -> None:
    for future in futures:
        future.result()


def clock(work: Any) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
