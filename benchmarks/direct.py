"""The engine's arithmetic without its server: what is left of its time is HTTP and scheduling."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from benchmarks.ours import RANK
from benchmarks.workloads import Rows, Sampling
from cookbook.engine.adam import AdamSettings
from cookbook.engine.base import load_weights
from cookbook.engine.config import read_config
from cookbook.engine.generation import GenerationBatch, SampleRequest
from cookbook.engine.lora import Adapter, LoraSpec
from cookbook.engine.losses import loss_call
from cookbook.engine.sampling import SamplingSettings
from cookbook.engine.trainer import TrainingDatum, TrainingRun


class Direct:
    """One run and one batch of running samples, in one process without a server."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        weights = load_weights(folder, read_config(folder), dtype, "cpu")
        shapes = weights.config.linear_shapes()
        self.run = TrainingRun(weights, Adapter.new(LoraSpec(rank=RANK), shapes, 0, "cpu"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.batch = GenerationBatch(weights, tokenizer, self.run.adapter.snapshot())

    def sample(self, job: Sampling) -> None:
        """Draw all samples."""
        settings = SamplingSettings(max_tokens=job.new_tokens)
        for prompt in job.prompts:
            request = SampleRequest(
                prompt=np.asarray(prompt), num_samples=job.copies, settings=settings
            )
            self.batch.add(request, lambda outcome: None)
        while not self.batch.idle:
            self.batch.step()

    def train(self, rows: Rows) -> None:
        """One step of cross-entropy."""
        data = [
            TrainingDatum(
                np.asarray(tokens[:-1]),
                np.asarray(tokens[1:]),
                {"weights": np.asarray(weights, np.float32)},
            )
            for tokens, weights in zip(rows.tokens, rows.weights, strict=True)
        ]
        self.run.forward_backward(data, loss_call("cross_entropy", {}))
        self.run.optim_step(AdamSettings())
