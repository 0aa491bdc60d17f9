"""The matrix products alone: what no program that multiplies by these weights can go below."""

import time
from pathlib import Path
from statistics import median

import torch

from benchmarks.workloads import Rows, Sampling
from cookbook.engine.base import Weights, load_weights
from cookbook.engine.config import read_config


class Floor:
    """Times the frozen matrices' products with as many rows as a job has."""

    def __init__(self, folder: Path) -> None:
        self.weights: Weights = load_weights(folder, read_config(folder), torch.float32, "cpu")

    def sampling(self, job: Sampling) -> float:
        """Every new token of every sequence once through all matrices, and each prompt once."""
        prompt_rows = sum(map(len, job.prompts))
        steps = (job.new_tokens - 1) * self._pass(job.sequences)
        return steps + self._layers(prompt_rows) + self._head(job.sequences)

    def training(self, rows: Rows, shared: int = 0) -> float:
        """Forward, and the gradient by the input, of all tokens but `shared` ones.

        The frozen weights need no gradient, so a step is two passes, not three.
        """
        count = sum(len(row) - 1 for row in rows.tokens) - shared
        trained = sum(weight != 0 for row in rows.weights for weight in row)
        return 2 * (self._layers(count) + self._head(trained))

    def _pass(self, rows: int) -> float:
        return self._layers(rows) + self._head(rows)

    def _layers(self, rows: int) -> float:
        layer = self.weights.layers[0]
        one = sum(_product(m, rows) for m in (layer.qkv, layer.output, layer.gate_up, layer.down))
        return one * len(self.weights.layers)

    def _head(self, rows: int) -> float:
        return _product(self.weights.unembedding, rows)


def _product(matrix: torch.Tensor, rows: int) -> float:
    """Seconds of one product with so many rows, the faster of both forms, median of 7."""
    x = torch.randn(rows, matrix.shape[1])
    best = float("inf")
    for form in (lambda: x @ matrix.T, lambda: matrix @ x.T):
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            form()
            seconds.append(time.perf_counter() - start)
        best = min(best, median(seconds))
    return best
